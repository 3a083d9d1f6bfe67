"""The loop that moves VEs, over a model of etcd: what it writes, and what it never does."""

import asyncio
import itertools

import msgspec
import pytest

from kit.failing import H1, H2, H3, U1, armed, fenced_ve, fencing_facts
from kit.manualclock import ManualClock
from kit.modelstore import Fail, ModelStore
from kit.world import make_placement
from veapi.model import (
    Cluster,
    FenceFacts,
    HostName,
    HostState,
    RootWish,
    SnapshotWish,
    Timing,
    Uid,
)
from vecontroller.failover.brakes import STARTS_A_SECOND
from vecontroller.failover.judge import Why
from vecontroller.failover.moves import Moves
from vecontroller.failover.moving import BATCH_VES
from vecontroller.holding import Reserved
from vecontroller.leader import acquire, init_cluster
from vecontroller.mirror import Mirror
from vecontroller.scheduler import Scheduler
from vecontroller.store import keys, values
from vecontroller.store.port import Put
from vecontroller.topic import Topic
from vecontroller.writer import FENCE_ATTEMPTS, Writer

NEVER_KNOWN = [Fail.LATE] * (1 + FENCE_ATTEMPTS)
HOSTS = (H1, H2, H3, HostName("h4"), HostName("h5"))


class Silence:
    """Hosts answer, but for those in `silent`, with the seconds."""

    def __init__(self):
        self.silent, self.back = {}, {}
        self.told = []

    def host_state(self, host):
        return HostState.SILENT if self.silent.get(host, 0) >= 8 else HostState.READY

    def connected(self, host):
        return host not in self.silent

    def silent_for(self, host):
        return self.silent.get(host, 0.0)

    def came_back(self, host):
        return self.back.get(host, ())

    def hold(self, host):
        self.told.append(("hold", host))

    def release(self, host, *, revision):
        self.told.append(("release", host, revision))


class Counts:
    def __init__(self):
        self.seconds = []

    def moved(self, seconds):
        self.seconds.append(seconds)


class Rig:
    def __init__(self):
        self.store, self.topic, self.clock = ModelStore(), Topic(), ManualClock()
        self.silence, self.counts = Silence(), Counts()
        self.mirror = Mirror(self.store, self.topic, ManualClock())
        self.writer = Writer(self.store, self.mirror, lambda: self.leadership)
        numbers = itertools.count()
        shared = (self.mirror, self.writer, self.silence)
        reserved = Reserved(self.clock)

        def new_op_id():
            return f"op-{next(numbers)}"

        self.scheduler = Scheduler(
            *(*shared, self.topic, self.clock), new_op_id=new_op_id, reserved=reserved
        )
        self.moves = Moves(
            *(*shared, self.scheduler, self.topic, self.clock),
            new_op_id=new_op_id,
            reserved=reserved,
            keep_deleted_s=100.0,
            counts=self.counts,
        )

    async def begin(self):
        await init_cluster(self.store, Cluster(name="rack"))
        self.leadership = await acquire(
            self.store, name="c1", address="a:1", run_id="r", clock=ManualClock()
        )
        await self.mirror.start()

    async def put(self, key, value):
        done = self.store.etcd.transact([], [Put(key=key, value=value)])
        await self.mirror.reached(done.revision)

    async def put_host(self, name, **options):
        facts = fencing_facts(**options)
        await self.put(keys.host_status(name), values.encode_host_status(facts))

    async def put_ve(self, uid="u1", host=H1, **options):
        ve = fenced_ve(uid, **options)
        await self.put(keys.ve_spec(ve.uid), values.encode_ve(ve))
        placement = values.encode_placement(make_placement(host))
        await self.put(keys.ve_placement(ve.uid), placement)
        await self.put(keys.ve_status(ve.uid), values.encode_status(armed()))

    def place(self, uid=U1):
        return self.view.placements[uid].value

    @property
    def view(self):
        return self.mirror.view

    def why(self, uid=U1):
        waits = self.moves.waits.get(uid)
        return waits.why if waits is not None else None


@pytest.fixture
async def rig():
    rig = Rig()
    await rig.begin()
    following = asyncio.create_task(rig.mirror.run())
    for host in HOSTS:
        await rig.put_host(host)
    await rig.put_ve()
    rig.silence.silent[H1] = 12.0
    yield rig
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_an_armed_ve_of_a_lost_host_goes_to_another_one(rig):
    await rig.moves.move_once()
    placement = rig.place()
    assert placement.host != H1
    assert (placement.generation, placement.root_since) == (2, 2)
    (stay,) = placement.past
    assert (stay.host, stay.ended) == (H1, "host h1 was lost")
    assert "moved as host h1 was lost" in placement.message
    assert rig.why() is None
    assert rig.counts.seconds == [12.0]


async def test_what_it_leaves_is_kept_under_its_old_placement(rig):
    await rig.moves.move_once()
    left = rig.view.left[H1, U1].value
    assert (left.placement.host, left.placement.generation) == (H1, 1)
    assert left.unconfirmed
    assert "host h1 was lost" in left.left


async def test_its_snapshots_and_the_source_of_its_root_are_no_wishes_any_more(rig):
    wish = SnapshotWish(tag="a", seq=3, created_at=1.0)
    root = RootWish(seq=4, snapshot="a")
    await rig.put_ve(root=root, snapshots=(wish,), snapshot_seq=3)
    await rig.moves.move_once()
    ve = rig.view.ves[U1].value
    assert (ve.root, ve.snapshots, ve.snapshot_seq) == (RootWish(seq=4), (), 3)
    assert "its 1 snapshot stayed there" in rig.place().past[-1].ended
    assert rig.view.left[H1, U1].value.ve.snapshots == (wish,)


async def test_the_host_gets_no_answer_from_the_decision_until_it_has_the_set(rig):
    await rig.moves.move_once()
    revision = rig.view.placements[U1].mod_revision
    assert rig.silence.told == [("hold", H1), ("release", H1, revision)]


async def test_nothing_moves_before_its_time_and_then_it_does(rig):
    rig.silence.silent[H1] = 11.5
    assert await rig.moves.move_once() == pytest.approx(0.5)
    assert rig.place().host == H1
    assert rig.why() is Why.SILENCE
    rig.silence.silent[H1] = 12.0
    await rig.moves.move_once()
    assert rig.place().host != H1


async def test_a_host_that_is_heard_while_it_is_decided_keeps_its_ves(rig):
    answers = iter([12.0] * 3)
    rig.silence.silent_for = lambda host: next(answers, 0.0) if host == H1 else 0.0
    await rig.moves.move_once()
    assert rig.place().host == H1
    assert rig.silence.told == []


@pytest.mark.parametrize("kind", ["spec", "placement", "status", "facts", "cluster", "host_spec"])
async def test_never_moved_when_anything_changed_that_the_decision_read(rig, kind):
    view, view_key = rig.view, {}
    view_key["spec"] = (keys.ve_spec(U1), lambda: values.encode_ve(view.ves[U1].value))
    view_key["placement"] = (
        keys.ve_placement(U1),
        lambda: values.encode_placement(view.placements[U1].value),
    )
    view_key["status"] = (keys.ve_status(U1), lambda: values.encode_status(armed()))
    view_key["facts"] = (
        keys.host_status(H1),
        lambda: values.encode_host_status(fencing_facts()),
    )
    view_key["cluster"] = (keys.CLUSTER, lambda: values.encode_cluster(view.cluster.value))
    view_key["host_spec"] = (
        keys.host_spec(H1),
        lambda: values.encode_host_spec(values.decode_host_spec(b"\x08\x01")),
    )
    key, value = view_key[kind]
    written = rig.store.transact

    async def overtaken(guards, writes):
        if any(write.key == keys.ve_placement(U1) for write in writes):
            rig.store.etcd.transact([], [Put(key=key, value=value())])
        return await written(guards, writes)

    rig.store.transact = overtaken
    await rig.moves.move_once()
    assert values.decode_placement(rig.store.etcd.items[keys.ve_placement(U1)].value).host == H1
    assert rig.silence.told == [("hold", H1), ("release", H1, 0)]


async def test_half_of_the_hosts_silent_at_once_stop_all_moves_and_the_store_says_so(rig):
    rig.silence.silent |= {H2: 9.0, H3: 9.0}
    await rig.moves.move_once()
    assert "3 of 5 hosts" in rig.view.cluster.value.moves_stopped
    assert rig.why() is Why.MOVES_STOPPED
    rig.silence.silent = {H1: 99.0}
    await rig.moves.move_once()
    assert rig.place().host == H1
    assert rig.why() is Why.MOVES_STOPPED


async def test_a_storm_without_a_ve_to_move_stops_nothing(rig):
    await rig.put(keys.ve_status(U1), values.encode_status(armed(armed_generation=0)))
    rig.silence.silent |= {H2: 9.0, H3: 9.0}
    await rig.moves.move_once()
    assert rig.view.cluster.value.moves_stopped == ""


async def test_it_stays_with_the_reason_when_no_host_has_room(rig):
    await rig.put_ve(memory_bytes=1 << 50)
    await rig.moves.move_once()
    assert rig.place().host == H1
    waits = rig.moves.waits[U1]
    assert waits.why is Why.NO_ROOM
    assert "too little memory" in waits.message


async def test_no_host_without_a_live_vefence_gets_it(rig):
    for host in HOSTS[1:]:
        await rig.put_host(host, fence=FenceFacts(live=host == H3, timing=Timing()))
    await rig.moves.move_once()
    assert rig.place().host == H3


async def test_no_host_that_flaps_gets_it(rig):
    rig.silence.back = {host: (300.0, 5.0) for host in HOSTS if host != H2}
    await rig.moves.move_once()
    assert rig.place().host == H2


async def test_no_host_gets_more_than_twenty_a_second(rig):
    for host in HOSTS[2:]:
        await rig.put_host(host, refuses="full")
    uids = [Uid(f"v{n}") for n in range(25)]
    for uid in uids:
        await rig.put_ve(uid)
    await rig.moves.move_once()
    there = [uid for uid in (U1, *uids) if rig.place(uid).host == H2]
    assert len(there) == STARTS_A_SECOND
    assert {rig.why(uid) for uid in uids if uid not in there} <= {Why.RATE}
    await rig.moves.move_once()
    assert len([uid for uid in (U1, *uids) if rig.place(uid).host == H2]) == STARTS_A_SECOND
    rig.clock.jump(1.0)
    await rig.moves.move_once()
    assert {rig.place(uid).host for uid in (U1, *uids)} == {H2}


async def test_it_may_go_back_to_a_host_that_it_left(rig):
    await rig.moves.move_once()
    second = rig.place().host
    assert (H1, U1) in rig.view.left
    status = armed(placement_generation=2)
    await rig.put(keys.ve_status(U1), values.encode_status(status))
    for host in HOSTS:
        if host not in (H1, second):
            await rig.put_host(host, refuses="full")
    rig.silence.silent = {second: 12.0}
    await rig.moves.move_once()
    assert rig.place().host == H1
    assert rig.place().root_since == rig.place().generation == 3
    assert set(rig.view.left) == {(second, U1)}


async def test_a_move_of_unknown_outcome_is_settled_before_its_host_is_answered(rig):
    rig.store.fail_writes(*NEVER_KNOWN)
    await rig.moves.move_once()
    assert rig.silence.told == [("hold", H1)]
    rig.silence.silent = {}
    await rig.moves.move_once()
    assert rig.silence.told[-1][:2] == ("release", H1)
    assert rig.silence.told[-1][2] >= rig.view.placements[U1].mod_revision


async def test_its_reason_is_told_once_and_dated(rig):
    await rig.put(keys.ve_status(U1), values.encode_status(armed(armed_generation=0)))
    with rig.topic.subscribe() as changes:
        await rig.moves.move_once()
        told = await asyncio.wait_for(changes.next(), 1)
        assert U1 in told.ves
        first = rig.moves.waits[U1]
        rig.clock.jump(5)
        await rig.moves.move_once()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(changes.next(), 0.05)
    assert rig.moves.waits[U1] == first
    assert first.at == msgspec.structs.replace(first).at > 0


async def test_it_looks_again_when_the_next_host_may_be_silent_though_nobody_tells(rig):
    rig.silence.silent = {H1: 6.5}
    assert await rig.moves.move_once() == pytest.approx(1.5)


async def test_whoever_asks_is_told_how_long_it_stays_once_its_host_lost_its_session(rig):
    rig.silence.silent = {H1: 4.0}
    rig.silence.host_state = lambda host: HostState.SILENT if host == H1 else HostState.READY
    assert await rig.moves.move_once() <= 1.0
    assert rig.moves.waits[U1].seconds == pytest.approx(8.0)


async def test_what_operators_say_while_a_batch_is_written_stops_the_next_one(rig, monkeypatch):
    for number in range(BATCH_VES + 1):
        await rig.put_ve(f"u{number}", ip=f"10.66.1.{number}")
    rig.silence.silent[H1] = 12.0
    commit = rig.writer.commit

    async def disarmed_meanwhile(*args, **options):
        revision = await commit(*args, **options)
        record = msgspec.structs.replace(rig.view.cluster.value, disarmed_until=9e9)
        await rig.put(keys.CLUSTER, values.encode_cluster(record))
        return revision

    monkeypatch.setattr(rig.writer, "commit", disarmed_meanwhile)
    await rig.moves.move_once()
    assert len(rig.view.placed_on[H1]) == 1
    await rig.moves.move_once()
    assert {rig.moves.waits[uid].why for uid in rig.view.placed_on[H1]} == {Why.DISARMED}
