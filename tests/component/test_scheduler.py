import asyncio
import itertools
from contextlib import asynccontextmanager

import pytest

from kit.eventually import eventually
from kit.manualclock import ManualClock
from kit.modelstore import Fail, ModelStore
from kit.world import GIB, make_facts, make_placement, make_ve
from veapi.model import Cluster, HostName, HostSpec, HostState, Resources, RootWish, Uid
from vecontroller import scheduler
from vecontroller.holding import Reserved
from vecontroller.leader import NotLeader, acquire, init_cluster
from vecontroller.mirror import Mirror
from vecontroller.scheduler import BATCH_VES, SAFETY_PASS_S, Scheduler
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Put
from vecontroller.topic import Topic
from vecontroller.view import Changed
from vecontroller.writer import FENCE_ATTEMPTS, LostRace, Writer

NEVER_KNOWN = [Fail.LATE] * (1 + FENCE_ATTEMPTS)
"""Of a write, and of all that is tried to find out what became of it."""


class Hosts:
    """Hosts are ready and connected unless a test says otherwise."""

    def __init__(self):
        self.silent, self.away, self.unheard = set(), set(), set()

    def host_state(self, host):
        if host in self.unheard:
            return HostState.UNKNOWN
        return HostState.SILENT if host in self.silent else HostState.READY

    def connected(self, host):
        return host not in self.away


class Passes:
    def __init__(self):
        self.placed = self.refused = self.lost = 0

    def passed(self, seconds, *, placed=0, refused=0, lost=0):
        self.placed += placed
        self.refused += refused
        self.lost += lost


class Rig:
    def __init__(self):
        self.store, self.topic, self.clock = ModelStore(), Topic(), ManualClock()
        self.hosts, self.passes = Hosts(), Passes()
        self.reserved = Reserved(self.clock)
        self.mirror = Mirror(self.store, self.topic, ManualClock())
        numbers = itertools.count()
        self.writer = Writer(self.store, self.mirror, lambda: self.leadership)
        self.scheduler = Scheduler(
            self.mirror,
            self.writer,
            self.hosts,
            self.topic,
            self.clock,
            new_op_id=lambda: f"op-{next(numbers)}",
            passes=self.passes,
            reserved=self.reserved,
        )

    async def begin(self):
        await init_cluster(self.store, Cluster(name="rack"))
        self.leadership = await acquire(
            self.store, name="c1", address="a:1", run_id="r", clock=ManualClock()
        )
        await self.mirror.start()

    async def put(self, *pairs):
        """Somebody else's write, seen by the mirror."""
        done = self.store.etcd.transact([], [Put(key=key, value=value) for key, value in pairs])
        await self.mirror.reached(done.revision)

    async def put_ves(self, *ves):
        for ve in ves:
            await self.put((keys.ve_spec(ve.uid), values.encode_ve(ve)))

    async def put_host(self, name, **options):
        facts = make_facts(**options)
        await self.put((keys.host_status(HostName(name)), values.encode_host_status(facts)))

    async def delete(self, *names):
        done = self.store.etcd.transact([], [Delete(key=key) for key in names])
        await self.mirror.reached(done.revision)

    def places(self):
        return {uid: held.value.host for uid, held in self.mirror.view.placements.items()}

    def stored(self, uid):
        item = self.store.etcd.items.get(keys.ve_placement(Uid(uid)))
        return None if item is None else values.decode_placement(item.value).host

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.scheduler.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def rig():
    rig = Rig()
    await rig.begin()
    following = asyncio.create_task(rig.mirror.run())
    yield rig
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


def small(memory_gib=1):
    return Resources(
        cpu_millis=64_000, memory_bytes=memory_gib * GIB, disk_bytes=99 * GIB, pids=9999
    )


async def test_a_new_leader_decides_once_the_hosts_had_time_to_dial_it(rig):
    for host in ("h1", "h2"):
        await rig.put_host(host)
    await rig.put_ves(make_ve("u1"))
    rig.hosts.unheard = {"h2"}
    async with rig.running():
        await asyncio.sleep(0.1)
        assert rig.places() == {}
        assert rig.scheduler.refusals == {}
        rig.hosts.unheard = set()
        rig.topic.publish(Changed(revision=1, hosts=frozenset({HostName("h2")})))
        await eventually(rig.places)


async def test_a_new_leader_waits_for_no_host_for_long(rig, monkeypatch):
    monkeypatch.setattr(scheduler, "HOSTS_WITHIN_S", 0.05)
    await rig.put_host("h1")
    await rig.put_host("h2")
    rig.hosts.unheard = {"h2"}
    async with rig.running():
        await rig.put_ves(make_ve("u1"))
        await eventually(lambda: rig.places() == {"u1": "h1"})


async def test_a_new_ve_gets_a_host_as_soon_as_the_view_shows_it(rig):
    await rig.put_host("h1")
    async with rig.running():
        await rig.put_ves(make_ve("u1"))
        await eventually(lambda: rig.places() == {"u1": "h1"})
    placement = rig.mirror.view.placements[Uid("u1")].value
    assert placement.generation == 1
    assert placement.message


async def test_a_hundred_ves_are_placed_in_batches_and_spread(rig):
    for name in ("h1", "h2", "h3"):
        await rig.put_host(name, rack=name)
    before = rig.store.etcd.revision
    await rig.put_ves(*(make_ve(f"u{index:03}") for index in range(100)))
    created = rig.store.etcd.revision - before
    assert await rig.scheduler.decide_once()
    assert len(rig.places()) == 100
    assert rig.store.etcd.revision - before - created == 3
    counts = [list(rig.places().values()).count(name) for name in ("h1", "h2", "h3")]
    assert max(counts) - min(counts) <= 1
    assert rig.passes.placed == 100


async def test_two_ves_that_fit_only_alone_do_not_overfill_the_host(rig):
    await rig.put_host("h1", capacity=small())
    await rig.put_ves(make_ve("u1"), make_ve("u2"))
    await rig.scheduler.decide_once()
    await rig.scheduler.decide_once()
    assert rig.places() == {"u1": "h1"}
    assert "too little memory" in rig.scheduler.refusals[Uid("u2")].message


async def test_a_refusal_is_told_once_and_taken_back_when_room_comes(rig):
    await rig.put_ves(make_ve("u1"))
    with rig.topic.subscribe() as changes:
        await rig.scheduler.decide_once()
        assert (await changes.next()).ves == {"u1"}
        first = rig.scheduler.refusals[Uid("u1")]
        assert first.at == rig.clock.wall()
        rig.clock.jump(60)
        await rig.scheduler.decide_once()
        assert rig.scheduler.refusals[Uid("u1")] == first
        waiting = asyncio.create_task(changes.next())
        await rig.clock.settle()
        assert not waiting.done()
        waiting.cancel()
    await rig.put_host("h1")
    await rig.scheduler.decide_once()
    assert rig.scheduler.refusals == {}
    assert rig.places() == {"u1": "h1"}


async def test_what_was_refused_is_not_planned_again_while_nothing_changed(rig):
    await rig.put_ves(make_ve("u1", memory_bytes=900 * GIB))
    await rig.put_host("h1")
    for _ in range(3):
        await rig.scheduler.decide_once()
    assert rig.passes.refused == 1
    await rig.put_ves(make_ve("u1", memory_bytes=800 * GIB))
    await rig.scheduler.decide_once()
    assert rig.passes.refused == 2


async def test_only_ready_hosts_with_a_session_get_ves(rig):
    for name in ("h1", "h2", "h3"):
        await rig.put_host(name)
    rig.hosts.silent, rig.hosts.away = {"h1"}, {"h2"}
    await rig.put_ves(make_ve("u1"), make_ve("u2"))
    await rig.scheduler.decide_once()
    assert rig.places() == {"u1": "h3", "u2": "h3"}


async def test_news_of_a_host_wake_it(rig):
    await rig.put_host("h1")
    rig.hosts.away = {"h1"}
    await rig.put_ves(make_ve("u1"))
    async with rig.running():
        await eventually(lambda: rig.scheduler.refusals)
        rig.hosts.away = set()
        rig.topic.publish(Changed(revision=1, hosts=frozenset({HostName("h1")})))
        await eventually(lambda: rig.places() == {"u1": "h1"})


async def test_a_deleting_ve_keeps_its_place_until_it_is_gone(rig):
    await rig.put_host("h1", capacity=small())
    old = make_ve("u1", delete_requested_at=5.0)
    await rig.put_ves(old)
    await rig.put((keys.ve_placement(old.uid), values.encode_placement(make_placement("h1"))))
    await rig.put_ves(make_ve("u2"))
    await rig.scheduler.decide_once()
    assert rig.stored("u2") is None
    await rig.delete(keys.ve_spec(old.uid), keys.ve_placement(old.uid))
    await rig.scheduler.decide_once()
    assert rig.stored("u2") == "h1"


async def test_a_ve_that_is_to_be_deleted_gets_no_host_and_goes(rig):
    await rig.put_host("h1")
    await rig.put_ves(make_ve("u1", delete_requested_at=5.0))
    await rig.scheduler.decide_once()
    assert rig.places() == {}
    assert keys.ve_spec(Uid("u1")) not in rig.store.etcd.items


class Spoiled:
    """A writer whose commits lose their race when they touch one key."""

    def __init__(self, inner, key):
        self.inner, self.key, self.sizes = inner, key, []

    async def commit(self, guards, writes, *, confirm):
        self.sizes.append(len(writes))
        if any(write.key == self.key for write in writes):
            raise LostRace(())
        return await self.inner.commit(guards, writes, confirm=confirm)


async def test_a_race_that_is_lost_again_and_again_spares_the_others(rig):
    await rig.put_host("h1")
    await rig.put_ves(*(make_ve(f"u{index}") for index in range(8)))
    rig.scheduler._writer = Spoiled(rig.writer, keys.ve_placement(Uid("u3")))
    for _ in range(6):
        assert not await rig.scheduler.decide_once()
    assert sorted(rig.places()) == [f"u{index}" for index in range(8) if index != 3]
    assert rig.scheduler._writer.sizes[-1] == 1


async def test_after_lost_races_batches_are_whole_again(rig):
    await rig.put_host("h1")
    await rig.put_ves(make_ve("u0"))
    rig.scheduler._writer = Spoiled(rig.writer, keys.ve_placement(Uid("u0")))
    await rig.scheduler.decide_once()
    rig.scheduler._writer = spoiled = Spoiled(rig.writer, "")
    await rig.scheduler.decide_once()
    await rig.put_ves(*(make_ve(f"v{index}") for index in range(BATCH_VES)))
    await rig.scheduler.decide_once()
    assert spoiled.sizes == [1, BATCH_VES]


async def test_a_placement_by_another_hand_is_respected(rig):
    await rig.put_host("h1")
    await rig.put_ves(make_ve("u1"))
    rig.store.cut_watches()
    placement = values.encode_placement(make_placement("h9"))
    rig.store.etcd.transact([], [Put(key=keys.ve_placement(Uid("u1")), value=placement)])
    deciding = asyncio.create_task(rig.scheduler.decide_once())
    await rig.clock.settle()
    rig.store.heal_watches()
    assert not await deciding
    assert rig.places() == {"u1": "h9"}


async def test_a_placement_of_unknown_outcome_is_tried_again_on_the_same_host(rig):
    for name in ("h1", "h2"):
        await rig.put_host(name, capacity=small())
    await rig.put_ves(make_ve("u1"))
    rig.store.fail_writes(*NEVER_KNOWN)
    assert not await rig.scheduler.decide_once()
    rig.hosts.away = {"h1"}
    await rig.put_ves(make_ve("u2"))
    await rig.scheduler.decide_once()
    assert rig.places() == {"u1": "h1", "u2": "h2"}
    rig.store.land_late_writes()
    assert rig.stored("u1") == "h1"


@pytest.mark.parametrize("fail", [Fail.APPLIED, Fail.LOST])
async def test_a_lost_answer_never_places_twice_nor_overfills(rig, fail):
    await rig.put_host("h1", capacity=small())
    await rig.put_ves(make_ve("u1"), make_ve("u2"))
    rig.store.fail_writes(fail)
    for _ in range(4):
        await rig.scheduler.decide_once()
    assert rig.places() == {"u1": "h1"}


async def test_what_is_not_known_to_be_written_stays_reserved(rig):
    await rig.put_host("h1", capacity=small())
    await rig.put_ves(make_ve("u1"))
    rig.store.fail_writes(*NEVER_KNOWN)
    assert not await rig.scheduler.decide_once()
    await rig.put_ves(make_ve("u2"))
    rig.store.away = True
    await rig.scheduler.decide_once()
    assert "too little memory" in rig.scheduler.refusals[Uid("u2")].message
    rig.store.away = False
    rig.store.land_late_writes()
    await eventually(lambda: rig.places() == {"u1": "h1"})
    await rig.scheduler.decide_once()
    assert rig.places() == {"u1": "h1"}


async def test_while_the_store_is_away_it_tries_again(rig, monkeypatch):
    monkeypatch.setattr(scheduler, "RETRY_S", 0.01)
    await rig.put_host("h1")
    await rig.put_ves(make_ve("u1"))
    rig.store.fail_writes(Fail.REFUSED)
    async with rig.running():
        await eventually(lambda: rig.places() == {"u1": "h1"}, timeout_s=SAFETY_PASS_S / 2)


async def test_a_placement_that_can_not_be_read_is_not_rewritten(rig):
    await rig.put_host("h1")
    await rig.put_ves(make_ve("u1"), make_ve("u2"))
    await rig.put((keys.ve_placement(Uid("u1")), b"\xff"))
    assert await rig.scheduler.decide_once()
    assert rig.places() == {"u2": "h1"}
    assert rig.scheduler.refusals[Uid("u1")].reason == "PlacementUnreadable"


async def test_a_deposed_leader_places_nothing(rig):
    await rig.put_host("h1")
    rig.leadership.depose()
    await rig.put_ves(make_ve("u1"))
    with pytest.raises(NotLeader):
        await rig.scheduler.decide_once()
    assert rig.stored("u1") is None


def test_a_batch_fits_a_transaction():
    assert 2 * BATCH_VES <= 100
    assert scheduler.RETRY_S < SAFETY_PASS_S


async def test_who_was_refused_for_room_that_stays_free_is_looked_at_again(rig):
    await rig.put_host(
        "h1",
        capacity=Resources(cpu_millis=64_000, memory_bytes=GIB, disk_bytes=100 * GIB, pids=32_768),
    )
    first, second = make_ve("a", memory_bytes=GIB), make_ve("b", memory_bytes=GIB)
    await rig.put_ves(first, second)
    rig.store.fail_writes(Fail.REFUSED)
    assert not await rig.scheduler.decide_once()
    assert list(rig.scheduler.refusals) == [second.uid]
    await rig.delete(keys.ve_spec(first.uid))
    await rig.scheduler.decide_once()
    assert rig.places() == {second.uid: "h1"}


async def test_room_that_a_growing_ve_is_about_to_take_is_not_given_away(rig):
    await rig.put_host("h1", capacity=small(memory_gib=2))
    await rig.put_ves(make_ve("u1", memory_bytes=GIB))
    with rig.reserved.holding(HostName("h1"), Resources(memory_bytes=2 * GIB)):
        await rig.scheduler.decide_once()
        assert "memory" in rig.scheduler.refusals[Uid("u1")].message
    await rig.scheduler.decide_once()
    assert rig.places() == {"u1": "h1"}


async def test_what_is_given_away_at_the_moment_is_told_until_the_view_shows_it(rig):
    await rig.put_host("h1")
    await rig.put_ves(make_ve("u1", memory_bytes=GIB))
    told = []
    original = rig.writer.commit

    async def commit(guards, writes, **options):
        told.append([amount.memory_bytes for amount in rig.scheduler.coming(HostName("h1"))])
        return await original(guards, writes, **options)

    rig.writer.commit = commit
    await rig.scheduler.decide_once()
    assert told == [[GIB]]
    assert rig.scheduler.coming(HostName("h1")) == []


async def test_what_may_have_been_given_away_is_told_until_it_is_known(rig):
    await rig.put_host("h1")
    await rig.put_ves(make_ve("u1", memory_bytes=GIB))
    rig.store.fail_writes(*NEVER_KNOWN)
    await rig.scheduler.decide_once()
    assert [each.memory_bytes for each in rig.scheduler.coming(HostName("h1"))] == [GIB]
    assert rig.scheduler.coming(HostName("h2")) == []


async def test_a_clone_follows_its_source_and_a_full_pool_is_told(rig):
    await rig.put_host("h1")
    await rig.put_host("h2", rack="r2")
    await rig.put_ves(make_ve("source"), make_ve("clone", root=RootWish(from_uid=Uid("source"))))
    await rig.put((keys.ve_placement(Uid("source")), values.encode_placement(make_placement("h2"))))
    await rig.scheduler.decide_once()
    assert rig.places()["clone"] == "h2"
    await rig.put_host("h1", refuses="its pool is full")
    await rig.put_host("h2", refuses="its pool is full", rack="r2")
    await rig.put_ves(make_ve("late"))
    await rig.scheduler.decide_once()
    assert "2 taking no new VEs (its pool is full)" in rig.scheduler.refusals[Uid("late")].message


async def test_who_waits_is_looked_at_again_only_when_something_may_help(rig):
    await rig.put_host("h1", capacity=small(2))
    await rig.put_ves(make_ve("big", memory_bytes=2 * GIB), make_ve("old", memory_bytes=GIB))
    await rig.put((keys.ve_placement(Uid("old")), values.encode_placement(make_placement("h1"))))
    await rig.scheduler.decide_once()
    assert rig.passes.refused == 1
    await rig.put_ves(make_ve("new", memory_bytes=GIB // 2))
    await rig.scheduler.decide_once()
    await rig.scheduler.decide_once()
    assert rig.stored("new") == "h1"
    assert rig.passes.refused == 1
    await rig.delete(keys.ve_spec(Uid("new")), keys.ve_placement(Uid("new")))
    await rig.scheduler.decide_once()
    assert rig.passes.refused == 2
    await rig.delete(keys.ve_spec(Uid("old")), keys.ve_placement(Uid("old")))
    await rig.scheduler.decide_once()
    assert rig.stored("big") == "h1"


async def test_a_taint_that_goes_lets_in_who_waited_and_says_what_for(rig):
    await rig.put_host("h1")
    tainted = values.encode_host_spec(HostSpec(taints=("gpu",)))
    await rig.put((keys.host_spec(HostName("h1")), tainted))
    await rig.put_ves(make_ve("u1"))
    await rig.scheduler.decide_once()
    assert rig.scheduler.refusals[Uid("u1")].message == "1 host: 1 tainted `gpu`"
    waited_since = rig.clock.wall()
    rig.clock.jump(60)
    await rig.delete(keys.host_spec(HostName("h1")))
    await rig.scheduler.decide_once()
    placement = rig.mirror.view.placements[Uid("u1")].value
    assert (placement.host, placement.waited_for) == ("h1", "1 host: 1 tainted `gpu`")
    assert placement.waited_since == waited_since
