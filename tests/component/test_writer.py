"""The writer writes only for the leader, and always finds out what became of a write."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import contextmanager

import pytest

from kit.eventually import eventually
from kit.manualclock import ManualClock
from kit.modelstore import Fail, ModelStore
from kit.world import make_ve
from veapi.errors import Conflict, TimedOut, Unavailable
from veapi.model import Uid
from vecontroller import writer
from vecontroller.leader import Leadership, NotLeader, acquire
from vecontroller.mirror import Mirror
from vecontroller.store import keys, values
from vecontroller.store.port import Ambiguous, Delete, Guard, Put
from vecontroller.topic import Topic
from vecontroller.writer import LostRace, Writer

KEY = keys.ve_spec(Uid("u1"))
NEW = [Guard(key=KEY, mod_revision=0)]


def spec(op_id: str, **options) -> Put:
    return Put(key=KEY, value=values.encode_ve(make_ve("u1", op_id=op_id, **options)))


class Leading:
    """A leader with a running mirror, and a second client of the same etcd."""

    def __init__(self) -> None:
        self.store = ModelStore()
        self.other = ModelStore(self.store.etcd)
        self.clock = ManualClock()
        self.mirror = Mirror(self.store, Topic(), self.clock)
        self.term: Leadership | None = None
        self.writer = Writer(self.store, self.mirror, lambda: self.term)

    async def create(self, op_id: str = "op") -> int:
        return await self.writer.commit(NEW, [spec(op_id)], confirm=(KEY, op_id))


@pytest.fixture
async def it() -> AsyncIterator[Leading]:
    it = Leading()
    it.term = await acquire(it.store, name="c", address="a", run_id="r", clock=it.clock)
    await it.mirror.start()
    running = asyncio.create_task(it.mirror.run())
    yield it
    running.cancel()


async def test_a_commit_is_seen_by_its_own_writer(it: Leading) -> None:
    revision = await it.create()
    assert it.mirror.view.ves[Uid("u1")].mod_revision == revision


async def test_a_lost_race_says_what_was_found_and_keeps_the_term(it: Leading) -> None:
    await it.create("first")
    with pytest.raises(LostRace) as lost:
        await it.create("second")
    assert [item.key for item in lost.value.found] == [KEY]
    assert lost.value.hint
    assert it.term is not None
    assert not it.term.deposed


async def test_nobody_writes_without_a_term(it: Leading) -> None:
    it.term = None
    before = it.store.writes
    with pytest.raises(NotLeader):
        await it.create()
    assert it.store.writes == before


async def test_a_deposed_leader_writes_nothing_and_learns_it(it: Leading) -> None:
    await it.other.transact([], [Put(key=keys.LEADER, value=b"another")])
    with pytest.raises(NotLeader):
        await it.create()
    assert it.term is not None
    assert it.term.deposed
    assert await it.store.get(KEY) is None


@pytest.mark.parametrize("how", [Fail.APPLIED, Fail.LOST, Fail.LATE])
async def test_a_write_of_unknown_outcome_is_done_exactly_once(it: Leading, how: Fail) -> None:
    it.store.fail_writes(how)
    revision = await it.create()
    it.store.land_late_writes()
    item = await it.store.get(KEY)
    assert item is not None
    assert item.mod_revision == item.create_revision == revision
    assert it.writer.ambiguous == 1


def overtaking(it: Leading, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the next write another one writes the same key, whatever is there."""
    transact = it.store.transact

    async def overtaken(guards, writes):
        monkeypatch.setattr(it.store, "transact", transact)
        try:
            return await transact(guards, writes)
        finally:
            await it.other.transact([], [spec("theirs")])

    monkeypatch.setattr(it.store, "transact", overtaken)


async def test_a_write_of_unknown_outcome_that_another_overtook_is_a_lost_race(
    it: Leading, monkeypatch: pytest.MonkeyPatch
) -> None:
    it.store.fail_writes(Fail.LOST)
    overtaking(it, monkeypatch)
    with pytest.raises(LostRace):
        await it.create()
    assert it.mirror.view.ves[Uid("u1")].value.op_id == "theirs"


async def test_a_write_that_was_applied_and_then_overwritten_is_a_success(
    it: Leading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for a lost race it would be done a second time."""
    it.store.fail_writes(Fail.APPLIED)
    overtaking(it, monkeypatch)
    revision = await it.create()
    item = await it.store.get(KEY)
    assert item is not None
    assert item.create_revision == revision < item.mod_revision


async def test_what_was_overwritten_while_the_mirror_was_blind_stays_unknown(
    it: Leading, monkeypatch: pytest.MonkeyPatch
) -> None:
    it.store.fail_writes(Fail.APPLIED)
    overtaking(it, monkeypatch)
    monkeypatch.setattr("vecontroller.writer.CATCH_UP_S", 0.01)
    it.store.cut_watches()
    with pytest.raises(Ambiguous):
        await it.create()
    it.store.heal_watches()


def deleted_before_it_is_read(it: Leading, monkeypatch: pytest.MonkeyPatch, *, seen: bool) -> None:
    """The next write is applied, and deleted again before anybody reads it back; its watch tells no more, or nothing."""
    transact, listing = it.store.transact, it.store.list

    async def applied(guards, writes):
        monkeypatch.setattr(it.store, "transact", transact)
        it.store.fail_writes(Fail.APPLIED)
        if not seen:
            it.store.cut_watches()
        try:
            return await transact(guards, writes)
        finally:
            if seen:
                await eventually(lambda: Uid("u1") in it.mirror.view.ves)
                it.store.cut_watches()

    async def then_deleted(prefix: str):
        await it.other.transact([], [Delete(key=KEY)])
        return await listing(prefix)

    monkeypatch.setattr(it.store, "transact", applied)
    monkeypatch.setattr(it.store, "list", then_deleted)
    monkeypatch.setattr("vecontroller.writer.CATCH_UP_S", 0.01)


async def test_a_write_that_was_seen_and_deleted_again_is_not_sent_a_second_time(
    it: Leading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VE that was made and deleted would be there again."""
    deleted_before_it_is_read(it, monkeypatch, seen=True)
    before = it.store.writes
    revision = await it.writer.commit(NEW, [spec("op")], confirm=(KEY, "op"), wait=False)
    assert revision > 0
    assert it.store.writes == before + 2  # it, and the fence
    assert await it.other.get(KEY) is None
    it.store.heal_watches()


async def test_a_key_that_is_gone_tells_nothing_over_a_gap(
    it: Leading, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted_before_it_is_read(it, monkeypatch, seen=False)
    tracing = it.mirror.tracing

    @contextmanager
    def with_gap(key: str):
        with tracing(key) as trace:
            trace.gap = True
            yield trace

    monkeypatch.setattr(it.mirror, "tracing", with_gap)
    with pytest.raises(Ambiguous):
        await it.writer.commit(NEW, [spec("op")], confirm=(KEY, "op"))
    it.store.heal_watches()


async def test_a_second_sending_that_meets_the_first_is_a_success(
    it: Leading, monkeypatch: pytest.MonkeyPatch
) -> None:
    it.store.fail_writes(Fail.LATE)
    transact = it.store.transact

    async def first_lands(guards, writes):
        it.store.land_late_writes()
        return await transact(guards, writes)

    listing = it.store.list

    async def then_land(prefix: str):
        monkeypatch.setattr(it.store, "transact", first_lands)
        return await listing(prefix)

    monkeypatch.setattr(it.store, "list", then_land)
    revision = await it.create()
    item = await it.store.get(KEY)
    assert item is not None
    assert item.mod_revision == item.create_revision == revision


async def test_an_unknown_outcome_stays_unknown_without_a_key_to_confirm(it: Leading) -> None:
    it.store.fail_writes(Fail.APPLIED)
    before = it.store.writes
    with pytest.raises(Ambiguous):
        await it.writer.commit(NEW, [spec("op")])
    assert it.store.writes == before + 1


async def test_a_key_that_is_not_guarded_is_never_sent_again(it: Leading) -> None:
    it.store.fail_writes(Fail.LOST)
    before = it.store.writes
    with pytest.raises(Ambiguous):
        await it.writer.commit([], [spec("op")], confirm=(KEY, "op"))
    assert it.store.writes == before + 1


async def test_an_unknown_outcome_stays_unknown_when_the_store_stays_away(
    it: Leading, monkeypatch: pytest.MonkeyPatch
) -> None:
    it.store.fail_writes(Fail.APPLIED)
    it.store.cut_watches()
    monkeypatch.setattr("vecontroller.writer.CATCH_UP_S", 0.01)

    async def away(prefix: str):
        raise Unavailable("away")

    monkeypatch.setattr(it.store, "list", away)
    with pytest.raises(Ambiguous):
        await it.create()


async def test_a_fence_whose_answers_are_lost_at_once_waits_for_the_connection_to_be_made_anew(
    it: Leading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that is closing fails each write within a millisecond: three of them are no reason to give up."""
    transact = it.store.transact
    closed_at = asyncio.get_running_loop().time()

    async def closing(guards, writes):
        if asyncio.get_running_loop().time() < closed_at + 1.5 * writer.FENCE_PAUSE_S:
            it.store.fail_writes(Fail.LOST)
        return await transact(guards, writes)

    monkeypatch.setattr(it.store, "transact", closing)
    revision = await it.create()
    item = await it.store.get(KEY)
    assert item is not None
    assert item.mod_revision == revision


@pytest.mark.parametrize("how", [Fail.APPLIED, Fail.LOST])
async def test_a_delete_of_unknown_outcome_is_done_exactly_once(it: Leading, how: Fail) -> None:
    made = await it.create()
    it.store.fail_writes(how)
    await it.writer.commit(
        [Guard(key=KEY, mod_revision=made)], [Delete(key=KEY)], confirm=(KEY, "")
    )
    assert Uid("u1") not in it.mirror.view.ves


async def test_a_write_that_was_surely_not_applied_is_not_tried_again(it: Leading) -> None:
    it.store.fail_writes(Fail.REFUSED)
    before = it.store.writes
    with pytest.raises(Unavailable) as refused:
        await it.create()
    assert not isinstance(refused.value, Ambiguous)
    assert it.store.writes == before + 1


async def test_a_value_that_cant_be_read_is_never_rewritten(it: Leading) -> None:
    garbage = await it.other.transact([], [Put(key=KEY, value=b"?")])
    await it.mirror.reached(garbage.revision)
    with pytest.raises(Conflict, match="can't read"):
        await it.writer.commit([Guard(key=KEY, mod_revision=garbage.revision)], [spec("op")])
    item = await it.store.get(KEY)
    assert item is not None
    assert item.value == b"?"


async def test_after_a_write_that_nobody_sees_no_other_is_taken(it: Leading, monkeypatch) -> None:
    async def late(revision: int, **_: float) -> None:
        raise TimedOut("late on command")

    it.store.cut_watches()
    with monkeypatch.context() as patch:
        patch.setattr(it.mirror, "reached", late)
        revision = await it.create()
    with pytest.raises(Unavailable, match="own last writes"):
        await it.create("again")
    it.store.heal_watches()
    await it.mirror.reached(revision)
    with pytest.raises(LostRace):
        await it.create("again")


async def test_who_does_not_wait_gets_the_revision_at_once(it: Leading) -> None:
    it.store.cut_watches()
    revision = await it.writer.commit(NEW, [spec("op")], wait=False)
    assert it.mirror.view.revision < revision


async def test_an_election_of_etcds_between_a_lost_answer_and_the_fence_is_sat_out(
    it: Leading,
) -> None:
    it.store.fail_writes(Fail.LATE, Fail.REFUSED, Fail.REFUSED)
    revision = await it.create()
    item = await it.store.get(KEY)
    assert item is not None
    assert item.mod_revision == revision


async def test_while_the_fence_cant_be_moved_the_outcome_is_unknown(
    it: Leading, monkeypatch
) -> None:
    monkeypatch.setattr(writer, "FENCE_PAUSE_S", 0.0)
    it.store.fail_writes(Fail.LATE, *[Fail.REFUSED] * writer.FENCE_WAITS)
    with pytest.raises(Ambiguous):
        await it.create()


async def test_a_write_that_comes_after_what_it_made_was_deleted_again_has_no_effect(
    it: Leading,
) -> None:
    it.store.fail_writes(Fail.LATE)
    made = await it.create()
    await it.writer.commit(
        [Guard(key=KEY, mod_revision=made)], [Delete(key=KEY)], confirm=(KEY, "")
    )
    it.store.land_late_writes()
    assert await it.store.get(KEY) is None


async def test_writes_that_are_under_way_when_the_fence_moves_are_sent_again(
    it: Leading, monkeypatch: pytest.MonkeyPatch
) -> None:
    transact, other = it.store.transact, keys.ve_spec(Uid("u2"))
    put = Put(key=other, value=values.encode_ve(make_ve("u2", op_id="op2")))

    async def overtaken(guards, writes):
        if any(write.key == other for write in writes):
            monkeypatch.setattr(it.store, "transact", transact)
            it.store.fail_writes(Fail.LOST)
            await it.create()
        return await transact(guards, writes)

    monkeypatch.setattr(it.store, "transact", overtaken)
    guards = [Guard(key=other, mod_revision=0)]
    revision = await it.writer.commit(guards, [put], confirm=(other, "op2"))
    item = await it.store.get(other)
    assert item is not None
    assert item.mod_revision == revision


async def test_a_new_term_goes_on_from_the_fence_of_the_last_one(it: Leading) -> None:
    it.store.fail_writes(Fail.LOST)
    made = await it.create()
    it.term = await acquire(
        it.store, name="d", address="a", run_id="s", clock=it.clock, patience_s=0
    )
    await it.writer.commit(
        [Guard(key=KEY, mod_revision=made)], [Delete(key=KEY)], confirm=(KEY, "")
    )
    assert await it.store.get(KEY) is None
