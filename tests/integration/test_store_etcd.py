"""The store on a real etcd: the promises of the port, over kills, cuts, freezes, compaction and restores."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from kit.certs import issue, make_ca
from kit.etcds import forget_data, kill, lasting_etcd, real_etcd, store_of  # noqa: F401 - a fixture
from kit.eventually import eventually
from kit.proxy import proxied
from kit.storecontract import PROMISES, ROOT, put, take
from veapi.channel import Identity
from veapi.errors import Unavailable
from vecontroller.store.endpoints import WrongCluster
from vecontroller.store.etcd import EtcdStore
from vecontroller.store.port import (
    Ambiguous,
    Compacted,
    Delete,
    Put,
    Regressed,
    StoreEvent,
    TooFarBehind,
)
from vecontroller.store.watch import WatchTiming

FAST = WatchTiming(idle_s=0.2, last_backoff_s=0.2)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with lasting_etcd(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture
async def store(etcd):
    """The module's etcd, emptied."""
    async with store_of(etcd) as store:
        keys = [item.key for item in (await store.list(ROOT)).items]
        for first in range(0, len(keys), 100):
            await store.transact([], [Delete(key=key) for key in keys[first : first + 100]])
        yield store


class Seen:
    """What a watch has delivered so far."""

    def __init__(self) -> None:
        self.events: list[StoreEvent] = []
        self.batches = 0
        self.error: Exception | None = None

    @property
    def revisions(self) -> list[int]:
        return [event.revision for event in self.events]

    async def follow(self, store, after_revision: int) -> None:
        try:
            async for batch in store.watch(ROOT, after_revision):
                assert batch.revision == batch.events[-1].revision
                assert not self.events or self.events[-1].revision < batch.events[0].revision
                self.events += batch.events
                self.batches += 1
        except Exception as error:
            self.error = error
            raise


def has_seen(seen: Seen, count: int) -> bool:
    return len(seen.events) >= count


@asynccontextmanager
async def watching(store, after_revision: int) -> AsyncIterator[Seen]:
    seen = Seen()
    task = asyncio.create_task(seen.follow(store, after_revision))
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("name", PROMISES)
async def test_etcd_keeps_the_promise(store, name: str) -> None:
    await PROMISES[name](store, store.compact)


async def test_a_list_of_many_pages_is_of_one_revision(etcd, store) -> None:
    for first in range(0, 300, 100):
        await store.transact(
            [], [Put(key=f"{ROOT}{number:04}", value=b"1") for number in range(first, first + 100)]
        )
    async with store_of(etcd, page_keys=7) as paging:
        listing = asyncio.create_task(paging.list(ROOT))
        while not listing.done():
            await store.transact(
                [], [Put(key=f"{ROOT}0000", value=b"2"), Put(key=f"{ROOT}0299", value=b"2")]
            )
    snapshot = listing.result()
    assert [item.key for item in snapshot.items] == [f"{ROOT}{number:04}" for number in range(300)]
    assert snapshot.items[0].value == snapshot.items[-1].value
    assert max(item.mod_revision for item in snapshot.items) <= snapshot.revision


async def test_a_list_that_compaction_overtakes_begins_again(
    etcd, store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await put(store, f"{number:04}")
    async with store_of(etcd, page_keys=2) as paging:
        read_once = paging._read_once
        pages = []

        async def compacted_after_the_first_page(request, timeouts):
            pages.append(request)
            answer = await read_once(request, timeouts)
            if len(pages) == 1:
                await store.compact(await put(store, "0000"))
            return answer

        monkeypatch.setattr(paging, "_read_once", compacted_after_the_first_page)
        snapshot = await paging.list(ROOT)
    assert len(snapshot.items) == 5
    assert len(pages) == 5, "one page, the one that was refused, and three of the second list"


async def test_a_catch_up_larger_than_grpcs_own_limit_arrives(store) -> None:
    first = await put(store, "a")
    writes = [Put(key=f"{ROOT}{number}", value=b"x" * 8192) for number in range(100)]
    for _ in range(8):
        last = (await store.transact([], writes)).revision
    assert len(await take(store.watch(ROOT, first), until=last)) == 800


async def test_a_watch_over_kill_9_of_etcd_loses_nothing_and_repeats_nothing(tmp_path) -> None:
    async with real_etcd(tmp_path) as etcd, store_of(etcd) as store, watching(store, 1) as seen:
        wrote = [await put(store, f"{number}") for number in range(200)]
        dead = kill(etcd)
        await eventually(lambda: etcd.pid != dead)
        assert await store.get(ROOT + "199") is not None
        wrote += [await put(store, f"{number}") for number in range(200)]
        await eventually(lambda: len(seen.events) >= 400)
        assert seen.revisions == wrote


async def test_a_watch_that_is_cut_in_its_catch_up_loses_nothing_and_repeats_nothing(
    etcd, store
) -> None:
    first = await put(store, "a")
    for number in range(0, 4000, 8):
        wrote = await asyncio.gather(*(put(store, f"{number + more}") for more in range(8)))
    async with (
        proxied(etcd.endpoint) as proxy,
        store_of(etcd, proxy.endpoint, timing=FAST) as cut,
        watching(cut, first) as seen,
    ):
        for part in range(1, 4):
            await eventually(partial(has_seen, seen, part * 1000), 30)
            proxy.cut()
        await eventually(lambda: len(seen.events) >= 4000, 30)
        assert proxy.connections > 1
    assert seen.revisions == list(range(first + 1, max(wrote) + 1))


async def test_a_watch_leaves_an_endpoint_that_gives_no_sign_of_life(etcd, store) -> None:
    async with (
        proxied(etcd.endpoint) as proxy,
        store_of(etcd, proxy.endpoint, etcd.endpoint, timing=FAST) as client,
        watching(client, await put(store, "a")) as seen,
    ):
        await put(store, "b")
        await eventually(lambda: len(seen.events) == 1)
        proxy.freeze()
        await put(store, "c")
        await eventually(lambda: len(seen.events) == 2)


async def test_a_silent_watch_of_a_living_store_is_kept(etcd, store) -> None:
    async with (
        proxied(etcd.endpoint) as proxy,
        store_of(etcd, proxy.endpoint, timing=FAST) as client,
        watching(client, await put(store, "a")) as seen,
    ):
        await asyncio.sleep(FAST.idle_s * 5)
        await put(store, "b")
        await eventually(lambda: len(seen.events) == 1)
        assert proxy.connections == 1


async def test_reads_leave_a_frozen_endpoint(etcd, store) -> None:
    await put(store, "a")
    async with (
        proxied(etcd.endpoint) as proxy,
        store_of(etcd, proxy.endpoint, etcd.endpoint) as client,
    ):
        assert await client.get(ROOT + "a") is not None
        proxy.freeze()
        assert await client.get(ROOT + "a") is not None


async def test_a_write_whose_answer_is_lost_is_ambiguous_and_sent_once(etcd, store) -> None:
    async with proxied(etcd.endpoint) as proxy, store_of(etcd, proxy.endpoint) as client:
        made = await put(client, "a")
        proxy.freeze(requests=False)
        writing = asyncio.create_task(client.transact([], [Put(key=ROOT + "a", value=b"2")]))
        await take(store.watch(ROOT, made), until=made + 1)
        proxy.cut()
        with pytest.raises(Ambiguous) as unknown:
            await writing
        assert unknown.value.hint
        assert (await store.get(ROOT + "a")).mod_revision == made + 1


async def test_a_write_that_may_have_arrived_is_sent_to_no_other_endpoint(etcd, store) -> None:
    async with (
        proxied(etcd.endpoint) as proxy,
        store_of(etcd, proxy.endpoint, etcd.endpoint) as client,
    ):
        await put(client, "a")
        proxy.freeze()
        with pytest.raises(Ambiguous):
            await put(client, "b")
        proxy.cut()
        assert await store.get(ROOT + "b") is None


async def test_a_write_to_nobody_is_surely_not_applied(etcd) -> None:
    async with proxied(etcd.endpoint) as proxy:
        nobody = proxy.endpoint
    async with store_of(etcd, nobody, read_timeout_s=0.3) as client:
        for call in (put(client, "a"), client.get(ROOT + "a"), client.list(ROOT)):
            with pytest.raises(Unavailable) as refused:
                await call
            assert not isinstance(refused.value, Ambiguous)
            assert nobody in refused.value.message


async def test_a_write_that_reached_nobody_is_tried_at_the_next_endpoint(etcd, store) -> None:
    async with proxied(etcd.endpoint) as proxy:
        nobody = proxy.endpoint
    async with store_of(etcd, nobody, etcd.endpoint) as client:
        await put(client, "a")
    assert await store.get(ROOT + "a") is not None


async def test_a_watch_that_missed_too_much_asks_for_a_list(etcd, store) -> None:
    first = await put(store, "a")
    for _ in range(12):
        await put(store, "a")
    async with store_of(etcd, timing=WatchTiming(gap_revisions=10)) as client:
        with pytest.raises(TooFarBehind):
            await anext(client.watch(ROOT, first))
        assert (await anext(client.watch(ROOT, first + 5))).events


async def test_compaction_while_the_watch_is_cut_is_told(etcd, store) -> None:
    async with (
        proxied(etcd.endpoint) as proxy,
        store_of(etcd, proxy.endpoint, timing=FAST) as client,
        watching(client, await put(store, "a")) as seen,
    ):
        await put(store, "a")
        await eventually(lambda: seen.events)
        proxy.freeze()
        for _ in range(5):
            last = await put(store, "a")
        await store.compact(last)
        proxy.cut()
        proxy.thaw()
        await eventually(lambda: seen.error)
    assert isinstance(seen.error, Compacted)
    assert not isinstance(seen.error, TooFarBehind | Regressed)


async def test_another_cluster_behind_the_same_endpoint_is_refused(etcd, store, tmp_path) -> None:
    async with (
        real_etcd(tmp_path, identity=etcd._identity) as other,
        proxied(etcd.endpoint) as proxy,
        store_of(etcd, proxy.endpoint, timing=FAST) as client,
        watching(client, await put(store, "a")) as seen,
    ):
        assert await client.get(ROOT + "a") is not None
        proxy.target = other.endpoint
        proxy.cut()
        with pytest.raises(WrongCluster):
            await client.get(ROOT + "a")
        await eventually(lambda: seen.error)
        assert isinstance(seen.error, WrongCluster)
        assert (await store.get(ROOT + "a")) is not None


async def test_a_store_that_went_back_is_told(tmp_path) -> None:
    backup = tmp_path / "backup"
    data = tmp_path / "etcd" / "data"
    async with real_etcd(tmp_path) as etcd, store_of(etcd) as store:
        first = await put(store, "a", b"1")
    shutil.copytree(data, backup)
    async with (
        real_etcd(tmp_path) as etcd,
        store_of(etcd, timing=FAST) as store,
        watching(store, first) as seen,
    ):
        for _ in range(50):
            await put(store, "a", b"2")
        await eventually(lambda: len(seen.events) == 50)
        await etcd.stop()
        shutil.rmtree(data)
        shutil.copytree(backup, data)
        async with real_etcd(tmp_path) as restored:
            assert restored.endpoint == etcd.endpoint
            await eventually(lambda: seen.error)
            assert isinstance(seen.error, Regressed)


async def test_a_client_with_a_key_of_another_ca_gets_nothing(etcd, tmp_path) -> None:
    stranger = issue(make_ca(tmp_path, "other"), "controller.other")
    identity = Identity(etcd.client_identity.ca, stranger.cert, stranger.key)
    store = EtcdStore([etcd.endpoint], identity, read_timeout_s=0.3)
    with pytest.raises(Unavailable):
        await store.get(ROOT + "a")
    await store.aclose()
