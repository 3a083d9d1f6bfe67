"""Exactly one controller leads, and a deposed one can neither write nor keep a host alive."""

import asyncio

import pytest
import structlog

from kit.manualclock import ManualClock
from kit.modelstore import Fail, ModelEtcd, ModelStore
from veapi.errors import Conflict, InvalidInput
from veapi.model import Cluster, Timing
from vecontroller import leader
from vecontroller.leader import Leadership, NotLeader, acquire, init_cluster, keep
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put


class Candidate:
    """A controller's part of it: a store of its own on the same etcd, and a shared clock."""

    def __init__(self, etcd: ModelEtcd, clock: ManualClock, name: str) -> None:
        self.store = ModelStore(etcd)
        self.clock = clock
        self.name = name
        self.term: Leadership | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def stand(self, patience_s: float = leader.TAKEOVER_AFTER_S) -> None:
        self._spawn(self._lead(patience_s))

    def die(self) -> None:
        for task in self.tasks:
            task.cancel()

    async def _lead(self, patience_s: float) -> None:
        self.term = await acquire(
            self.store,
            name=self.name,
            address=f"{self.name}:7443",
            run_id=f"run-{self.name}",
            clock=self.clock,
            patience_s=patience_s,
        )
        await keep(self.term)

    def _spawn(self, work) -> None:
        self.tasks.add(asyncio.create_task(work))

    @property
    def won(self) -> Leadership:
        """The term, once there is one."""
        assert self.term is not None
        return self.term

    @property
    def leads(self) -> bool:
        return self.term is not None and not self.term.deposed


@pytest.fixture
async def pair():
    etcd, clock = ModelEtcd(), ManualClock()
    candidates = Candidate(etcd, clock, "c1"), Candidate(etcd, clock, "c2")
    yield *candidates, clock
    for candidate in candidates:
        candidate.die()


async def test_a_free_key_is_taken_at_once(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(0)
    assert one.leads
    assert one.term.incarnation == 1
    item = await one.store.get(keys.LEADER)
    assert item.mod_revision == one.term.epoch
    assert values.decode_leader(item.value).address == "c1:7443"


async def test_of_two_candidates_one_leads_and_the_other_waits(pair) -> None:
    one, two, clock = pair
    one.stand()
    two.stand()
    await clock.advance(30)
    assert [one.leads, two.leads].count(True) == 1
    assert (one.term or two.term).stalls == 0


async def test_a_standby_takes_over_three_seconds_after_the_last_beat(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    two.stand()
    await clock.advance(1)
    one.die()
    await clock.advance(2)
    assert two.term is None
    await clock.advance(2.1)
    assert two.leads
    assert two.won.epoch > one.won.epoch


async def test_a_deposed_leader_learns_it_from_its_next_beat(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    two.stand()
    one.store.away = True
    await clock.advance(5)
    assert two.leads
    assert one.leads, "nobody could tell it yet"
    one.store.away = False
    await clock.advance(1)
    assert one.term.lost.is_set()
    assert two.leads


async def test_no_heartbeat_is_confirmed_by_a_deposed_leader(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    two.stand()
    one.store.away = True
    waiting = asyncio.create_task(one.term.confirmed_after(clock.boot()))
    await clock.advance(5)
    assert two.leads
    assert not waiting.done()
    one.store.away = False
    await clock.advance(1)
    with pytest.raises(NotLeader):
        await waiting
    with pytest.raises(NotLeader):
        await one.term.confirmed_after(0)


async def test_a_beat_that_began_before_confirms_nothing(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(0.2)
    waiting = asyncio.create_task(one.term.confirmed_after(clock.boot()))
    await clock.advance(0.2)
    assert not waiting.done()
    await clock.advance(0.2)
    await waiting


async def test_a_beat_that_was_on_its_way_confirms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store, clock = ModelStore(), ManualClock()
    term = await acquire(store, name="c", address="a", run_id="r", clock=clock)
    held = asyncio.Event()
    transact = store.transact

    async def slow(guards, writes):
        await held.wait()
        return await transact(guards, writes)

    monkeypatch.setattr(store, "transact", slow)
    beating = asyncio.create_task(term.beat())
    await clock.settle()
    clock.jump(0.1)
    arrived = clock.boot()
    waiting = [asyncio.create_task(term.confirmed_after(arrived))]
    await clock.settle()
    clock.jump(0.1)
    held.set()
    await beating
    waiting.append(asyncio.create_task(term.confirmed_after(arrived)))
    await clock.settle()
    assert not any(wait.done() for wait in waiting)
    clock.jump(0.1)
    await term.beat()
    await asyncio.gather(*waiting)


async def test_a_thousand_heartbeats_are_confirmed_by_one_beat(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(0.2)
    before = one.store.writes
    waiting = [asyncio.create_task(one.term.confirmed_after(clock.boot())) for _ in range(1000)]
    await clock.advance(0.5)
    await asyncio.gather(*waiting)
    assert one.store.writes == before + 1
    assert not one.term._waiters


async def test_who_gives_up_waiting_is_forgotten_while_the_store_is_away(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(0.2)
    one.store.away = True
    waiting = asyncio.create_task(one.term.confirmed_after(clock.boot()))
    await clock.settle()
    waiting.cancel()
    await clock.settle()
    assert not one.term._waiters


@pytest.mark.parametrize("how", [Fail.APPLIED, Fail.LOST])
async def test_a_beat_of_unknown_outcome_is_read_back(pair, how: Fail) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(0.2)
    waiting = asyncio.create_task(one.term.confirmed_after(clock.boot()))
    one.store.fail_writes(how)
    await clock.advance(0.4)
    assert waiting.done() is (how is Fail.APPLIED)
    await clock.advance(0.5)
    await waiting
    assert one.leads


async def test_an_earlier_beat_that_lands_late_does_not_pass_for_a_later_one() -> None:
    store, clock = ModelStore(), ManualClock()
    term = await acquire(store, name="c", address="a", run_id="r", clock=clock)
    store.fail_writes(Fail.LATE)
    await term.beat()
    clock.jump(1)
    arrived = clock.boot()
    store.land_late_writes()
    clock.jump(1)
    store.fail_writes(Fail.LOST)
    await term.beat()
    waiting = asyncio.create_task(term.confirmed_after(arrived))
    await clock.settle()
    assert not waiting.done()
    await term.beat()
    await waiting


async def test_a_takeover_of_unknown_outcome_is_decided_by_the_run_id(pair) -> None:
    one, two, clock = pair
    one.store.fail_writes(Fail.APPLIED)
    one.stand()
    await clock.advance(1)
    assert one.leads
    one.die()
    two.store.fail_writes(Fail.LOST)
    two.stand()
    await clock.advance(3.6)
    assert two.term is None
    await clock.advance(4)
    assert two.leads


async def test_a_leader_that_beats_at_the_last_moment_keeps_its_term(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    one.die()
    two.stand()
    await clock.advance(2.8)
    await one.term.beat()
    await clock.advance(2)
    assert two.term is None
    assert one.leads


async def test_a_beat_between_the_last_look_and_the_takeover_stops_it(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    one.die()
    transact, tries = two.store.transact, []

    async def after_a_beat(guards, writes):
        tries.append(guards)
        await one.term.beat()
        return await transact(guards, writes)

    two.store.transact = after_a_beat
    two.stand()
    await clock.advance(3.6)
    assert len(tries) == 1
    assert two.term is None
    assert one.leads


async def test_after_an_outage_the_leader_has_its_time_to_beat_again(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    two.stand()
    await clock.advance(0.2)
    one.store.away = two.store.away = True
    await clock.advance(60)
    two.store.away = False
    await clock.advance(2.5)
    one.store.away = False
    await clock.advance(10)
    assert one.leads
    assert two.term is None


async def test_a_read_that_took_long_proves_no_silence(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    one.die()
    two.stand()
    await clock.advance(0.2)
    listing = two.store.list

    async def slow(prefix: str):
        two.store.list = listing
        clock.jump(20)
        return await listing(prefix)

    two.store.list = slow
    await clock.advance(2)
    assert two.term is None
    await clock.advance(21 + 2)
    assert two.leads


async def test_silence_while_the_store_is_away_is_not_the_leaders(pair) -> None:
    one, two, clock = pair
    one.stand()
    two.stand()
    await clock.advance(1)
    lead, standby = (one, two) if one.leads else (two, one)
    lead.store.away = standby.store.away = True
    await clock.advance(60)
    lead.store.away = standby.store.away = False
    await clock.advance(10)
    assert lead.leads
    assert standby.term is None


async def test_a_leader_that_stood_still_counts_it(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(1)
    assert one.term.stalls == 0
    clock.jump(1.6)
    await clock.advance(0.1)
    assert one.term.stalls == 1
    await clock.advance(5)
    assert one.term.stalls == 1


async def test_who_resigns_frees_the_key_for_the_next(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    two.stand()
    await one.term.resign()
    await clock.advance(0.6)
    assert two.leads
    assert one.term.deposed


async def test_a_clean_stop_is_no_warning_and_frees_who_waits(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(1)
    waiting = asyncio.create_task(one.term.confirmed_after(clock.boot() + 60))
    await clock.advance(0)
    with structlog.testing.capture_logs() as logs:
        await one.term.resign()
        await one.term.resign()
    with pytest.raises(NotLeader):
        await waiting
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("leadership given up", "info")
    ]


async def test_the_sole_controller_need_not_wait_for_its_dead_self(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    one.die()
    two.stand(patience_s=0)
    await clock.advance(0)
    assert two.leads


async def test_a_leader_whose_store_went_back_gives_up(pair) -> None:
    one, _, clock = pair
    one.stand()
    await clock.advance(0.2)
    backup = one.store.etcd.snapshot()
    await clock.advance(5)
    one.store.etcd.restore(backup)
    await clock.advance(0.6)
    assert one.term.deposed


async def test_a_leader_key_that_was_deleted_deposes(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    await two.store.transact([], [Delete(key=keys.LEADER)])
    await clock.advance(1)
    assert one.term.deposed


async def test_a_leader_key_that_cant_be_read_is_respected_and_then_taken(pair) -> None:
    one, _, clock = pair
    await one.store.transact([], [Put(key=keys.LEADER, value=b"?")])
    one.stand()
    await clock.advance(2)
    assert one.term is None
    await clock.advance(2)
    assert one.leads


async def test_the_cluster_record_is_written_once() -> None:
    store = ModelStore()
    first = await init_cluster(store, Cluster(name="rack", incarnation=4))
    second = await init_cluster(store, Cluster(name="rack"))
    assert first == second
    assert second.incarnation == 4
    term = await acquire(store, name="c", address="a", run_id="r", clock=ManualClock())
    assert term.incarnation == 4


@pytest.mark.parametrize("how", [Fail.APPLIED])
async def test_a_cluster_record_of_unknown_outcome_is_read_back(how: Fail) -> None:
    store = ModelStore()
    store.fail_writes(how)
    assert (await init_cluster(store, Cluster(name="rack"))).name == "rack"


async def test_another_clusters_store_is_refused() -> None:
    store = ModelStore()
    await init_cluster(store, Cluster(name="rack"))
    with pytest.raises(Conflict, match="rack"):
        await init_cluster(store, Cluster(name="other"))


async def test_times_that_let_a_ve_run_twice_are_refused() -> None:
    store = ModelStore()
    with pytest.raises(InvalidInput, match="timing"):
        await init_cluster(store, Cluster(name="rack", timing=Timing(move_after_s=10.0)))
    assert await store.get(keys.CLUSTER) is None


async def test_the_guard_of_a_term_is_its_epoch(pair) -> None:
    one, two, clock = pair
    one.stand()
    await clock.advance(1)
    assert one.term.guard == Guard(key=keys.LEADER, mod_revision=one.term.epoch)
    one.die()
    two.stand()
    await clock.advance(4)
    write = [Put(key=keys.ROOT + "x", value=b"")]
    assert not (await one.store.transact([one.term.guard], write)).succeeded
    assert (await two.store.transact([two.term.guard], write)).succeeded
