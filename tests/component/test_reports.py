import asyncio

import pytest

from kit.eventually import eventually
from kit.manualclock import ManualClock
from kit.modelstore import Fail, ModelStore
from kit.world import make_facts, make_placement, make_ve
from veapi.errors import InvalidInput
from veapi.model import (
    Cluster,
    Event,
    EventType,
    HostName,
    SnapshotStatus,
    Uid,
    VEReport,
    VEState,
    VEStatus,
)
from vecontroller.leader import NotLeader, acquire, init_cluster
from vecontroller.mirror import Mirror
from vecontroller.reports import ATTEMPTS, Reported, Reports
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Put
from vecontroller.topic import Topic
from vecontroller.writer import LostRace, Writer

H1, H2 = HostName("h1"), HostName("h2")


class QuickClock(ManualClock):
    """Sleeps only give way to others."""

    async def sleep(self, seconds):
        await asyncio.sleep(0)


class Rig:
    def __init__(self):
        self.store = ModelStore()
        self.mirror = Mirror(self.store, Topic(), ManualClock())
        writer = Writer(self.store, self.mirror, lambda: self.leadership)
        self.reports = Reports(self.mirror, writer, QuickClock())
        self.done, self.failed = [], []
        self.running: asyncio.Task[None]

    async def begin(self):
        await init_cluster(self.store, Cluster(name="rack"))
        self.leadership = await acquire(
            self.store, name="c1", address="a:1", run_id="r", clock=ManualClock()
        )
        await self.mirror.start()

    async def place(self, uid, host="h1", **options):
        """A VE that is placed on the host."""
        ve = make_ve(uid, **options)
        writes = [
            Put(key=keys.ve_spec(ve.uid), value=values.encode_ve(ve)),
            Put(
                key=keys.ve_placement(ve.uid),
                value=values.encode_placement(make_placement(host)),
            ),
        ]
        await self.mirror.reached(self.store.etcd.transact([], writes).revision)

    async def submit(self, uid, state=VEState.RUNNING, host=H1, started_at=None, **options):
        """One report of one VE."""
        status = VEStatus(state=state, placement_generation=1, started_at=started_at)
        report = VEReport(uid=Uid(uid), name="n", project="p", status=status, **options)
        await self.reports.submit(
            Reported(
                host=host,
                ves=(report,),
                done=lambda: self.done.append(uid),
                failed=lambda error: self.failed.append((uid, error)),
            )
        )

    def stored(self, uid):
        item = self.store.etcd.items.get(keys.ve_status(Uid(uid)))
        return None if item is None else values.decode_status(item.value).state

    async def answered(self, count=1):
        await eventually(lambda: len(self.done) + len(self.failed) >= count)


@pytest.fixture
async def rig():
    rig = Rig()
    await rig.begin()
    following = asyncio.create_task(rig.mirror.run())
    rig.running = asyncio.create_task(rig.reports.run())
    yield rig
    for task in (following, rig.running):
        task.cancel()
    await asyncio.gather(following, rig.running, return_exceptions=True)


async def test_a_report_is_done_only_when_it_is_stored(rig):
    await rig.place("u1")
    rig.store.cut_watches()
    await rig.submit("u1")
    await ManualClock.settle()
    assert rig.done == []
    rig.store.heal_watches()
    await rig.answered()
    assert rig.done == ["u1"]
    assert rig.stored("u1") is VEState.RUNNING


async def test_what_came_meanwhile_is_written_together_and_the_newest_word_counts(rig):
    for index in range(30):
        await rig.place(f"u{index}")
    rig.running.cancel()
    for index in range(30):
        await rig.submit(f"u{index}", VEState.CREATING)
        await rig.submit(f"u{index}", VEState.RUNNING)
    before = rig.store.etcd.revision
    rig.running = asyncio.create_task(rig.reports.run())
    await rig.answered(60)
    assert rig.store.etcd.revision == before + 1
    assert all(rig.stored(f"u{index}") is VEState.RUNNING for index in range(30))


async def test_saying_the_same_again_writes_nothing(rig):
    await rig.place("u1")
    await rig.submit("u1")
    await rig.answered()
    before = rig.store.etcd.revision
    await rig.submit("u1")
    await rig.answered(2)
    assert rig.store.etcd.revision == before


@pytest.mark.parametrize("fail", list(Fail))
async def test_a_write_that_fails_is_done_in_the_end(rig, fail):
    await rig.place("u1")
    rig.store.fail_writes(fail)
    await rig.submit("u1")
    await rig.answered()
    assert rig.done == ["u1"]
    assert rig.stored("u1") is VEState.RUNNING


async def test_a_write_that_lands_late_does_not_undo_a_later_one(rig):
    await rig.place("u1")
    rig.store.fail_writes(Fail.LATE)
    await rig.submit("u1", VEState.CREATING)
    await rig.answered()
    await rig.submit("u1", VEState.RUNNING)
    await rig.answered(2)
    rig.store.land_late_writes()
    assert rig.stored("u1") is VEState.RUNNING


class Spoiled:
    """A writer whose commits fail when they touch one key; they lose their race unless another error is given."""

    def __init__(self, inner, key, error=None):
        self.inner, self.key, self.error = inner, key, error or LostRace(())

    async def commit(self, guards, writes, *, confirm):
        if any(write.key == self.key for write in writes):
            raise self.error
        return await self.inner.commit(guards, writes, confirm=confirm)


async def test_one_that_can_not_be_written_holds_up_nobody_else(rig):
    for uid in ("u1", "u2", "u3"):
        await rig.place(uid)
    rig.reports._writer = Spoiled(rig.reports._writer, keys.ve_status(Uid("u2")))
    rig.running.cancel()
    for uid in ("u1", "u2", "u3"):
        await rig.submit(uid)
    rig.running = asyncio.create_task(rig.reports.run())
    await rig.answered(3)
    assert [rig.stored(uid) for uid in ("u1", "u2", "u3")] == [
        VEState.RUNNING,
        None,
        VEState.RUNNING,
    ]


@pytest.mark.parametrize("error", [InvalidInput("too much"), ValueError("garbage")])
async def test_only_the_report_that_can_not_be_written_fails(rig, error):
    for uid in ("u1", "u2", "u3"):
        await rig.place(uid)
    rig.reports._writer = Spoiled(rig.reports._writer, keys.ve_status(Uid("u2")), error)
    rig.running.cancel()
    for uid in ("u1", "u2", "u3"):
        await rig.submit(uid)
    rig.running = asyncio.create_task(rig.reports.run())
    await rig.answered(3)
    assert rig.done == ["u1", "u3"]
    assert [uid for uid, _ in rig.failed] == ["u2"]
    assert not rig.running.done()


async def test_a_report_that_can_not_be_put_into_words_fails_alone(rig):
    await rig.place("u1")
    await rig.place("u2")
    rig.running.cancel()
    await rig.submit("u1", started_at=1e18)
    await rig.submit("u2")
    rig.running = asyncio.create_task(rig.reports.run())
    await rig.answered(2)
    assert rig.done == ["u2"]
    ((uid, error),) = rig.failed
    assert (uid, error.kind) == ("u1", "invalid_input")
    await rig.submit("u1")
    await rig.answered(3)
    assert rig.stored("u1") is VEState.RUNNING


async def test_what_was_written_behind_the_mirrors_back_is_overtaken(rig):
    await rig.place("u1")
    rig.store.cut_watches()
    status = values.encode_status(VEStatus(state=VEState.FAILED, placement_generation=1))
    rig.store.etcd.transact([], [Put(key=keys.ve_status(Uid("u1")), value=status)])
    await rig.submit("u1")
    await ManualClock.settle()
    rig.store.heal_watches()
    await rig.answered()
    assert rig.done == ["u1"]
    assert rig.stored("u1") is VEState.RUNNING


async def test_a_report_that_can_not_be_stored_fails_with_the_reason(rig):
    await rig.place("u1")
    rig.store.fail_writes(*[Fail.REFUSED] * ATTEMPTS)
    await rig.submit("u1")
    await rig.answered()
    ((uid, error),) = rig.failed
    assert uid == "u1"
    assert error.kind == "unavailable"


async def test_the_last_word_of_a_deleted_ve_removes_it(rig):
    await rig.place("u1", delete_requested_at=5.0)
    await rig.submit("u1", gone=True)
    await rig.answered()
    assert rig.done == ["u1"]
    assert keys.ve_spec(Uid("u1")) not in rig.store.etcd.items
    assert keys.ve_placement(Uid("u1")) not in rig.store.etcd.items


async def test_a_ve_that_moved_on_meanwhile_is_left_to_its_new_host(rig):
    await rig.place("u1", "h1")
    rig.store.cut_watches()
    placement = values.encode_placement(make_placement("h2", generation=2))
    rig.store.etcd.transact([], [Put(key=keys.ve_placement(Uid("u1")), value=placement)])
    await rig.submit("u1")
    await ManualClock.settle()
    rig.store.heal_watches()
    await rig.answered()
    assert rig.done == ["u1"]
    assert rig.stored("u1") is None


async def test_facts_are_stored_and_orphans_remembered(rig):
    await rig.reports.submit(
        Reported(host=H1, facts=make_facts(), done=lambda: rig.done.append("facts"))
    )
    await rig.submit("lost", orphan=True)
    await rig.answered(2)
    assert rig.mirror.view.hosts[H1].value == make_facts()
    assert [report.uid for report in rig.reports.orphans(H1)] == ["lost"]
    await rig.submit("lost", gone=True)
    await rig.answered(3)
    assert rig.reports.orphans(H1) == ()


async def test_of_orphans_so_much_is_remembered_as_is_shown(rig):
    event = Event(at=1.0, type=EventType.NORMAL, reason="Started", message="x" * 500)
    there = SnapshotStatus(tag="s", seq=3, taken_at=1.0)
    status = VEStatus(
        state=VEState.RUNNING, events=(event,), snapshots=(there,), observed_snapshot_seq=3
    )
    report = VEReport(uid=Uid("lost"), name="n", project="p", status=status, orphan=True)
    await rig.reports.submit(Reported(host=H1, ves=(report,), done=lambda: rig.done.append("lost")))
    await rig.answered()
    (found,) = rig.reports.orphans(H1)
    assert found.status == VEStatus(state=VEState.RUNNING, observed_snapshot_seq=3)


async def test_a_value_of_a_newer_version_is_left_alone_and_the_report_is_done(rig):
    await rig.place("u1")
    done = rig.store.etcd.transact([], [Put(key=keys.ve_status(Uid("u1")), value=b"\xff")])
    await rig.mirror.reached(done.revision)
    await rig.submit("u1")
    await rig.answered()
    assert rig.done == ["u1"]
    assert rig.store.etcd.items[keys.ve_status(Uid("u1"))].value == b"\xff"


async def test_a_deposed_leader_writes_nothing(rig):
    await rig.place("u1")
    rig.store.etcd.transact([], [Delete(key=keys.LEADER)])
    await rig.submit("u1")
    with pytest.raises(NotLeader):
        await asyncio.wait_for(rig.running, 5)
    assert rig.stored("u1") is None
    assert rig.done == []
