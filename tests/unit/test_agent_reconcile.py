"""The next step with one VE, as a table; and as properties over all that may happen."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.agenthost import U1, entry
from veagent import reconcile as r
from veagent.record import VERecord, confirmed, first_record, is_off, kept, started, with_disk
from veagent.snapshots import DeleteSnapshot, TakeSnapshot, with_deleted, with_taken
from veapi.model import Action, Limits, RootWish, SetEntry, SnapshotStatus, SnapshotWish, Uid

NEW = first_record(entry(), 1_000_000)
UP = started(
    msgspec.structs.replace(NEW, limits=with_disk(Limits(), 1 << 30)), entry(), boot_id="b"
)
DOWN = msgspec.structs.replace(UP, up=False)
OFF = msgspec.structs.replace(DOWN, off=True, off_generation=1)


def seen(record: VERecord | None = None, **changes: object) -> r.Observed:
    return msgspec.structs.replace(r.Observed(record=record), **changes)


RUNNING = seen(UP, running=True, root=True, image_held=True)
STOPPED = seen(DOWN, root=True, image_held=True)
FROZEN = msgspec.structs.replace(RUNNING, frozen=True)
KEPT = kept(DOWN, entry(action=Action.KEEP), 7)
HAS = SnapshotStatus(tag="a", seq=1, taken_at=1.0)
SNAPPED = msgspec.structs.replace(RUNNING, record=with_taken(UP, HAS))
REBUILD, RESTORE = RootWish(seq=1), RootWish(seq=1, snapshot="a")
CLONE = RootWish(from_uid=Uid("other"))


def wishes(*seqs: int, deleting: int = 0) -> tuple[SnapshotWish, ...]:
    return tuple(
        SnapshotWish(tag="abc"[seq - 1], seq=seq, created_at=1.0, deleting=seq == deleting)
        for seq in seqs
    )


def world(observed: r.Observed, **changes: object) -> r.Observed:
    return msgspec.structs.replace(observed, **changes)


MADE = msgspec.structs.replace(DOWN, made=True)
UP_LATER = msgspec.structs.replace(UP, placement_generation=2)
LATER = world(RUNNING, record=UP_LATER)
TABLE = [
    ("new, image here", entry(), seen(image_held=True), r.CreateRoot()),
    ("new, image missing", entry(), seen(), r.AwaitImage()),
    ("root there", entry(), seen(NEW, root=True, image_held=True), r.LimitDisk(1 << 30)),
    ("stopped, shall run", entry(), STOPPED, r.Start()),
    ("stopped, image gone since", entry(), seen(DOWN, root=True), r.Start()),
    ("runs as asked", entry(), RUNNING, r.Nothing("Running")),
    ("runs without record", entry(), seen(running=True, root=True), r.Confirm()),
    ("restart asked", entry(restart_seq=1), RUNNING, r.Stop(10.0)),
    (
        "more memory",
        entry(memory_bytes=1 << 30, generation=2),
        RUNNING,
        r.Limit(entry(memory_bytes=1 << 30).spec.limits),
    ),
    (
        "more disk",
        entry(disk_bytes=2 << 30, generation=2),
        RUNNING,
        r.Limit(entry(disk_bytes=2 << 30).spec.limits),
    ),
    (
        "a rate",
        entry(net_in_bps=8000),
        RUNNING,
        r.Limit(entry(net_in_bps=8000).spec.limits),
    ),
    ("rates as they are", entry(), world(RUNNING, rates=(0, 0)), r.Nothing("Running")),
    ("rates not known", entry(), world(RUNNING, rates=None), r.Limit(entry().spec.limits)),
    ("no card, no rates", entry(ip=""), world(RUNNING, rates=None), r.Confirm()),
    ("other processors", entry(), world(RUNNING, cpus=(1,)), r.Pin((1,))),
    ("processors not known", entry(), world(RUNNING, pinned=None), r.Pin(())),
    (
        "a disk limit that was refused keeps nothing from starting",
        entry(disk_bytes=1 << 20),
        world(STOPPED, disk_refused=1 << 20),
        r.Start(),
    ),
    (
        "more disk while stopped",
        entry(action=Action.STOP, disk_bytes=2 << 30),
        STOPPED,
        r.LimitDisk(2 << 30),
    ),
    ("only generation", entry(generation=2), RUNNING, r.Confirm()),
    ("renamed", entry(name="other"), RUNNING, r.Confirm()),
    ("moved back here", entry(placement_generation=2), RUNNING, r.Confirm()),
    ("guest switched off", entry(), seen(OFF, root=True), r.Nothing("PoweredOff")),
    ("changed after that", entry(generation=2), seen(OFF, root=True), r.Confirm()),
    (
        "started after that",
        entry(generation=2, run_generation=2),
        seen(OFF, root=True),
        r.Start(),
    ),
    ("restarted after that", entry(restart_seq=1), seen(OFF, root=True), r.Start()),
    ("stop", entry(action=Action.STOP), RUNNING, r.Stop(10.0)),
    ("just stopped", entry(action=Action.STOP), STOPPED, r.Confirm()),
    (
        "stopped",
        entry(action=Action.STOP),
        seen(confirmed(DOWN, entry(action=Action.STOP)), root=True),
        r.Nothing("Stopped"),
    ),
    ("stopped, newer spec", entry(action=Action.STOP, generation=2), STOPPED, r.Confirm()),
    ("never started", entry(action=Action.STOP), seen(), r.Confirm()),
    ("ended, shall be stopped", entry(action=Action.STOP), seen(UP, root=True), r.Confirm()),
    ("purge kills at once", entry(action=Action.PURGE), RUNNING, r.Stop(0)),
    ("purge", entry(action=Action.PURGE), STOPPED, r.Remove(root=True)),
    ("purge, root only", entry(action=Action.PURGE), seen(root=True), r.Remove(root=True)),
    ("purged", entry(action=Action.PURGE), seen(), r.Nothing("Gone")),
    ("release stops cleanly", entry(action=Action.RELEASE), RUNNING, r.Stop(10.0)),
    ("release", entry(action=Action.RELEASE), STOPPED, r.Remove(root=False)),
    ("released", entry(action=Action.RELEASE), seen(root=True), r.Nothing("Gone")),
    ("keep, as of an earlier stay", entry(action=Action.KEEP), LATER, r.Nothing("Stale")),
    ("purge, as of an earlier stay", entry(action=Action.PURGE), LATER, r.Nothing("Stale")),
    ("release, as of an earlier stay", entry(action=Action.RELEASE), LATER, r.Nothing("Stale")),
    (
        "no snapshot goes with an earlier stay's end",
        entry(action=Action.KEEP, snapshots=wishes(1, deleting=1)),
        world(LATER, record=with_taken(UP_LATER, HAS)),
        r.Nothing("Stale"),
    ),
    ("a stop as of an earlier stay", entry(action=Action.STOP), LATER, r.Stop(10.0)),
    ("root lost", entry(), seen(MADE, image_held=True), r.Nothing("RootLost")),
    ("root lost, snapshots there", entry(), seen(MADE, remains=True), r.Nothing("RootLost")),
    ("root lost, off", entry(), seen(MADE), r.Nothing("RootLost")),
    ("root lost, stop", entry(action=Action.STOP), seen(MADE), r.Nothing("RootLost")),
    (
        "root of a clone lost, stop",
        entry(action=Action.STOP, root=CLONE),
        seen(MADE),
        r.Nothing("RootLost"),
    ),
    ("root lost, rebuild", entry(root=REBUILD), seen(MADE, image_held=True), r.ReplaceRoot(10.0)),
    ("root lost, restore", entry(root=RESTORE), seen(MADE, remains=True), r.ReplaceRoot(10.0)),
    ("root lost, delete", entry(action=Action.KEEP), seen(MADE), r.Remove(root=False)),
    ("root lost, purge", entry(action=Action.PURGE), seen(MADE), r.Remove(root=True)),
    ("absent and runs", None, RUNNING, r.Nothing("Orphan")),
    ("absent and stopped", None, STOPPED, r.Nothing("Orphan")),
    ("back-off", entry(), msgspec.structs.replace(STOPPED, wait_s=3.0), r.Wait(3.0)),
    ("image needs no back-off", entry(), seen(wait_s=3.0), r.AwaitImage()),
    ("freeze", entry(action=Action.FREEZE), RUNNING, r.Freeze()),
    ("frozen", entry(), world(FROZEN, record=UP), r.Thaw()),
    ("freeze what is stopped", entry(action=Action.FREEZE), STOPPED, r.Start()),
    ("stop what is frozen", entry(action=Action.STOP), FROZEN, r.Stop(10.0)),
    ("restart what is frozen", entry(restart_seq=1), FROZEN, r.Stop(10.0)),
    ("keep what runs", entry(action=Action.KEEP), RUNNING, r.Stop(10.0)),
    ("keep what is stopped", entry(action=Action.KEEP), STOPPED, r.Keep()),
    ("kept", entry(action=Action.KEEP), seen(KEPT, root=True), r.Nothing("Kept")),
    ("kept, root lost", entry(action=Action.KEEP), seen(KEPT), r.Nothing("Kept")),
    ("nothing to keep", entry(action=Action.KEEP), seen(), r.Nothing("Gone")),
    ("no root to keep", entry(action=Action.KEEP), seen(DOWN), r.Remove(root=False)),
    ("only snapshots to keep", entry(action=Action.KEEP), seen(DOWN, remains=True), r.Keep()),
    ("wanted back", entry(), seen(KEPT, root=True, image_held=True), r.Start()),
    ("wanted back, stopped", entry(action=Action.STOP), seen(KEPT, root=True), r.Confirm()),
    ("kept, purged", entry(action=Action.PURGE), seen(KEPT, root=True), r.Remove(root=True)),
    ("rebuild", entry(root=REBUILD), RUNNING, r.ReplaceRoot(10.0)),
    (
        "rebuild what is stopped",
        entry(root=REBUILD, action=Action.STOP),
        STOPPED,
        r.ReplaceRoot(10.0),
    ),
    (
        "rebuild, image missing",
        entry(root=REBUILD),
        world(RUNNING, image_held=False),
        r.AwaitImage(),
    ),
    ("rebuild waits, crashed", entry(root=REBUILD), seen(UP, root=True), r.Start()),
    (
        "rebuild waits, restarted",
        entry(root=REBUILD, restart_seq=1),
        seen(DOWN, root=True),
        r.Start(),
    ),
    ("rebuild waits, was stopped", entry(root=REBUILD), seen(DOWN, root=True), r.AwaitImage()),
    ("rebuild waits, no root", entry(root=REBUILD), seen(UP, remains=True), r.AwaitImage()),
    (
        "rebuild waits, crashed, shall be stopped",
        entry(root=REBUILD, action=Action.STOP),
        seen(UP, root=True),
        r.AwaitImage(),
    ),
    (
        "a rebuild that waits keeps nothing from a freeze",
        entry(root=REBUILD, action=Action.FREEZE),
        world(RUNNING, image_held=False),
        r.Freeze(),
    ),
    ("restore needs no image", entry(root=RESTORE), seen(UP, running=True), r.ReplaceRoot(10.0)),
    ("refused restore, runs on", entry(root=RESTORE), world(RUNNING, root_refused=1), r.Confirm()),
    ("refused restore, starts", entry(root=RESTORE), world(STOPPED, root_refused=1), r.Start()),
    (
        "root dropped",
        entry(root=REBUILD),
        seen(UP, remains=True, image_held=True),
        r.ReplaceRoot(10.0),
    ),
    ("clone", entry(root=CLONE), seen(), r.CreateRoot()),
    (
        "clone that shall be stopped",
        entry(root=CLONE, action=Action.STOP),
        seen(NEW),
        r.CreateRoot(),
    ),
    ("a partial root needs no image", entry(), seen(NEW, remains=True), r.CreateRoot()),
    ("pool full", entry(), seen(image_held=True, refuses="full"), r.AwaitRoom("full")),
    ("pool full, root there", entry(), world(STOPPED, refuses="full"), r.Start()),
    (
        "purge of a partial root",
        entry(action=Action.PURGE),
        seen(remains=True),
        r.Remove(root=True),
    ),
    ("snapshot", entry(snapshots=wishes(1)), RUNNING, TakeSnapshot("a", 1)),
    ("snapshot of a frozen", entry(snapshots=wishes(1)), FROZEN, TakeSnapshot("a", 1)),
    (
        "snapshot of a stopped",
        entry(snapshots=wishes(1), action=Action.STOP),
        STOPPED,
        TakeSnapshot("a", 1),
    ),
    ("in order", entry(snapshots=wishes(3, 2)), RUNNING, TakeSnapshot("b", 2)),
    ("taken once", entry(snapshots=wishes(1)), SNAPPED, r.Confirm()),
    (
        "removal",
        entry(snapshots=wishes(1, 2, deleting=1)),
        SNAPPED,
        DeleteSnapshot("a", 1),
    ),
    ("removed before it was taken", entry(snapshots=wishes(1, deleting=1)), RUNNING, r.Confirm()),
    ("not wished any more", entry(), SNAPPED, r.Nothing("Running")),
    (
        "snapshot before a rebuild",
        entry(snapshots=wishes(1), root=REBUILD),
        RUNNING,
        TakeSnapshot("a", 1),
    ),
    (
        "restore before the removal of its snapshot",
        entry(snapshots=wishes(1, deleting=1), root=RESTORE),
        SNAPPED,
        r.ReplaceRoot(10.0),
    ),
    (
        "a snapshot that waits keeps nothing from a stop",
        entry(snapshots=wishes(1), action=Action.STOP),
        world(RUNNING, waiting=frozenset({1})),
        r.Stop(10.0),
    ),
    (
        "a purge takes no snapshot",
        entry(snapshots=wishes(1), action=Action.PURGE),
        STOPPED,
        r.Remove(root=True),
    ),
]


@pytest.mark.parametrize(
    ("wanted", "observed", "step"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_next_step(wanted: SetEntry | None, observed: r.Observed, step: r.Step) -> None:
    assert r.next_action(wanted, observed) == step


def done(  # noqa: C901, PLR0912 - one case for each step
    wanted: SetEntry, observed: r.Observed, step: r.Step
) -> r.Observed:
    """The host after `step`."""
    record = observed.record or first_record(wanted, 1_000_000)
    replace = msgspec.structs.replace
    changed: dict[str, object] = {"record": record}
    match step:
        case r.AwaitImage():
            changed = {"image_held": True}
        case r.AwaitRoom():
            changed = {"refuses": ""}
        case r.Wait():
            changed = {"wait_s": 0.0}
        case r.CreateRoot():
            limits = with_disk(record.limits, wanted.spec.disk_bytes)
            record = replace(record, limits=limits, made=True)
            changed = {"root": True, "remains": False, "record": record}
        case r.ReplaceRoot() if observed.running:
            changed = {"running": False, "frozen": False, "record": replace(record, up=False)}
        case r.ReplaceRoot():
            dropped = replace(record, root_seq=wanted.root.seq, made=False, off=False)
            changed = {"root": False, "remains": True, "record": dropped}
        case r.Start():
            up = started(record, wanted, boot_id="b", cpus=observed.cpus)
            begun = {"rates": (0, 0), "pinned": observed.cpus}
            changed = {"running": True, "record": up, **begun}
        case r.Stop():
            known = observed.record
            changed = {
                "running": False,
                "frozen": False,
                "record": known and replace(known, up=False),
            }
        case r.Freeze() | r.Thaw():
            changed = {"frozen": isinstance(step, r.Freeze)}
        case r.Limit(limits):
            rates = (limits.net_in_bps, limits.net_out_bps)
            changed = {"rates": rates, "record": replace(record, limits=limits)}
        case r.LimitDisk(disk_bytes):
            changed = {"record": replace(record, limits=with_disk(record.limits, disk_bytes))}
        case r.Pin(cpus):
            changed = {"pinned": cpus}
        case TakeSnapshot(tag, seq):
            taken = SnapshotStatus(tag=tag, seq=seq, taken_at=1.0)
            changed = {"record": with_taken(record, taken)}
        case DeleteSnapshot(_, seq):
            changed = {"record": with_deleted(record, seq)}
        case r.Confirm():
            changed = {"record": replace(confirmed(record, wanted), up=observed.running)}
        case r.Keep():
            changed = {"record": kept(record, wanted, 7)}
        case r.Remove(root):
            there = observed.root and not root
            changed = {"record": None, "root": there, "remains": observed.remains and not root}
        case _:
            raise AssertionError(step)
    return replace(observed, **changed)


numbers = st.integers(1, 3)
entries = st.builds(
    entry,
    action=st.sampled_from(Action),
    generation=numbers,
    placement_generation=numbers,
    restart_seq=numbers,
    cpu_millis=st.sampled_from([500, 1000]),
    disk_bytes=st.sampled_from([1 << 30, 2 << 30]),
    net_in_bps=st.sampled_from([0, 8000]),
    run_generation=st.integers(0, 3),
    root=st.builds(RootWish, seq=st.integers(0, 2), snapshot=st.sampled_from(["", "a"])),
    snapshots=st.sampled_from([(), wishes(1), wishes(1, 2), wishes(1, 2, deleting=1)]),
)
records = st.none() | st.builds(
    VERecord,
    uid=st.just(U1),
    name=st.just("ve-1111"),
    project=st.just("default"),
    id_base=st.just(1_000_000),
    limits=st.builds(
        Limits, cpu_millis=st.sampled_from([0, 500]), disk_bytes=st.sampled_from([0, 1 << 30])
    ),
    root_seq=st.integers(0, 2),
    snapshot_seq=st.integers(0, 2),
    snapshots=st.sampled_from([(), (HAS,)]),
    kept=st.booleans(),
    made=st.booleans(),
    restart_seq=st.integers(0, 3),
    generation=st.integers(0, 3),
    placement_generation=st.integers(0, 3),
    up=st.booleans(),
    off=st.booleans(),
    off_generation=st.integers(0, 3),
)
worlds = st.builds(
    r.Observed,
    record=records,
    root=st.booleans(),
    remains=st.booleans(),
    running=st.booleans(),
    frozen=st.booleans(),
    rates=st.sampled_from([None, (0, 0), (8000, 0)]),
    cpus=st.sampled_from([(), (0,)]),
    pinned=st.sampled_from([None, (), (0,)]),
    refuses=st.sampled_from(["", "full"]),
    root_refused=st.sampled_from([None, 1]),
    image_held=st.booleans(),
    wait_s=st.sampled_from([0.0, 5.0]),
)


@given(wanted=entries, observed=worlds)
def test_eventually_every_wish_is_carried_out_from_any_state(
    wanted: SetEntry, observed: r.Observed
) -> None:
    for _ in range(20):
        step = r.next_action(wanted, observed)
        if isinstance(step, r.Nothing):
            break
        observed = done(wanted, observed, step)
    else:
        pytest.fail(f"does not converge: {observed}")
    if step == r.Nothing("Stale"):
        assert r.is_stale(wanted, observed.record)
        return
    match wanted.action:
        case Action.RUN | Action.FREEZE:
            refused = (r.Nothing("PoweredOff"), r.Nothing("RootLost"))
            assert observed.running or step in refused
            freeze = wanted.action is Action.FREEZE
            assert step == r.Nothing("RootLost") or observed.frozen == (observed.running and freeze)
        case Action.STOP | Action.KEEP:
            assert not observed.running
        case Action.RELEASE:
            assert not observed.running
            assert observed.record is None
        case Action.PURGE:
            assert not observed.running
            assert observed.record is None
            assert not observed.root
            assert not observed.remains


def test_what_was_off_in_a_generation_that_the_store_has_forgotten_is_off_in_the_one_it_has() -> (
    None
):
    """Else its user's next words have numbers that are below that, and do nothing."""
    off = msgspec.structs.replace(OFF, off_generation=7)
    seen_again = confirmed(off, entry(generation=3))
    assert (seen_again.off, seen_again.off_generation) == (True, 3)
    assert not is_off(entry(generation=4, run_generation=4), seen_again)


@given(observed=worlds)
def test_never_does_absence_touch_anything(observed: r.Observed) -> None:
    assert r.next_action(None, observed) == r.Nothing("Orphan")


@given(wanted=entries, observed=worlds)
def test_never_is_a_root_deleted_unless_purge_says_so_and_nothing_runs(
    wanted: SetEntry, observed: r.Observed
) -> None:
    step = r.next_action(wanted, observed)
    if isinstance(step, r.Remove):
        assert not observed.running
        assert step.root == (wanted.action is Action.PURGE)


@given(wanted=entries, observed=worlds)
def test_never_is_a_running_ve_started(wanted: SetEntry, observed: r.Observed) -> None:
    if observed.running:
        step = r.next_action(wanted, observed)
        assert not isinstance(step, r.Start | r.CreateRoot)
