"""The watch against an etcd that plays tricks: what is wanted is counted from what was delivered, and silence is asked."""

import asyncio

import pytest

from kit.fakeetcd import FakeEtcd, Stream, fake_etcd
from vecontroller.store.port import Batch, Compacted, Regressed
from vecontroller.store.watch import WatchTiming

FAST = WatchTiming(idle_s=0.2, first_backoff_s=0.01, last_backoff_s=0.05)


async def stay(stream: Stream) -> None:
    await asyncio.Event().wait()


async def batches(store, count: int, *, after: int) -> list[Batch]:
    found = []
    async with asyncio.timeout(10):
        async for batch in store.watch("/verack/", after):
            found.append(batch)
            if len(found) == count:
                break
    return found


def revisions(found: list[Batch]) -> list[list[int]]:
    return [[event.revision for event in batch.events] for batch in found]


async def test_events_that_come_again_are_dropped(tmp_path) -> None:
    async def repeats(stream: Stream) -> None:
        await stream.say(created=True, head=5)
        await stream.events(5, 6)
        await stream.events(5, 6)
        await stream.events(6, 7)
        await stay(stream)

    async with fake_etcd(tmp_path, FakeEtcd(repeats), FAST) as store:
        assert revisions(await batches(store, 2, after=4)) == [[5, 6], [7]]


async def test_a_header_ahead_of_the_events_moves_nothing(tmp_path) -> None:
    async def ahead_then_cut(stream: Stream) -> None:
        await stream.say(created=True, head=100)
        await stream.events(5)
        await stream.say(head=100)

    async def go_on(stream: Stream) -> None:
        await stream.say(created=True, head=100)
        await stream.events(stream.create.start_revision)  # had already, and so left out
        await stream.events(stream.create.start_revision + 1)
        await stay(stream)

    fake = FakeEtcd(ahead_then_cut, go_on)
    async with fake_etcd(tmp_path, fake, FAST) as store:
        assert revisions(await batches(store, 2, after=4)) == [[5], [6]]
    assert [stream.create.start_revision for stream in fake.streams] == [4, 5]


async def test_a_silent_stream_that_answers_for_its_progress_is_kept(tmp_path) -> None:
    async def quiet(stream: Stream) -> None:
        await stream.say(created=True, head=4)
        for _ in range(4):
            await stream.progress_asked.wait()
            stream.progress_asked.clear()
            await stream.say(head=90)
        await stream.events(5)
        await stay(stream)

    fake = FakeEtcd(quiet)
    async with fake_etcd(tmp_path, fake, FAST) as store:
        assert revisions(await batches(store, 1, after=4)) == [[5]]
    assert len(fake.streams) == 1


async def test_a_stream_that_does_not_answer_is_opened_again(tmp_path) -> None:
    async def dead(stream: Stream) -> None:
        await stream.say(created=True, head=4)
        await stay(stream)

    async def alive(stream: Stream) -> None:
        await stream.say(created=True, head=5)
        await stream.events(5)
        await stay(stream)

    fake = FakeEtcd(dead, dead, alive)
    async with fake_etcd(tmp_path, fake, FAST) as store:
        assert revisions(await batches(store, 1, after=4)) == [[5]]
    assert len(fake.streams) == 3
    assert fake.streams[0].progress_asked.is_set()


async def test_a_watch_that_was_cancelled_by_the_server_is_opened_again(tmp_path) -> None:
    async def cancelled(stream: Stream) -> None:
        await stream.say(created=True, head=4)
        await stream.say(canceled=True, cancel_reason="etcdserver: no leader")
        await stay(stream)

    async def alive(stream: Stream) -> None:
        await stream.say(created=True, head=5)
        await stream.events(5)
        await stay(stream)

    async with fake_etcd(tmp_path, FakeEtcd(cancelled, alive), FAST) as store:
        assert revisions(await batches(store, 1, after=4)) == [[5]]


async def test_a_compacted_watch_is_never_resumed(tmp_path) -> None:
    async def compacted(stream: Stream) -> None:
        await stream.say(created=True, head=50)
        await stream.say(canceled=True, compact_revision=40, head=50)
        await stay(stream)

    fake = FakeEtcd(compacted)
    async with fake_etcd(tmp_path, fake, FAST) as store:
        with pytest.raises(Compacted, match="40"):
            await batches(store, 1, after=4)
    assert len(fake.streams) == 1


async def test_a_member_that_lags_behind_is_no_restore(tmp_path) -> None:
    async def lagging(stream: Stream) -> None:
        await stream.say(created=True, head=3)
        await stream.events(5)
        await stay(stream)

    fake = FakeEtcd(lagging)
    fake.head = 4
    async with fake_etcd(tmp_path, fake, FAST) as store:
        assert revisions(await batches(store, 1, after=4)) == [[5]]
        fake.head = 3
        with pytest.raises(Regressed):
            await batches(store, 1, after=4)


async def test_a_transaction_of_many_events_is_one_batch(tmp_path) -> None:
    async def whole(stream: Stream) -> None:
        await stream.say(created=True, head=4)
        await stream.events(5, 5, 5, 6, 6)
        await stay(stream)

    fake = FakeEtcd(whole)
    async with fake_etcd(tmp_path, fake, FAST) as store:
        assert revisions(await batches(store, 1, after=4)) == [[5, 5, 5, 6, 6]]
    assert not fake.streams[0].create.fragment
