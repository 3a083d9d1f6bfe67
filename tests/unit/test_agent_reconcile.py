"""The next step with one VE, as a table; and as properties over all that may happen."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.agenthost import U1, entry
from veagent import reconcile as r
from veagent.record import VERecord, confirmed, first_record, started, with_disk
from veapi.model import Action, Resources, SetEntry

NEW = first_record(entry(), 1_000_000)
UP = started(
    msgspec.structs.replace(NEW, limits=with_disk(Resources(), 1 << 30)), entry(), boot_id="b"
)
DOWN = msgspec.structs.replace(UP, up=False)
OFF = msgspec.structs.replace(DOWN, off=True, off_generation=1)


def seen(record: VERecord | None = None, **changes: object) -> r.Observed:
    return msgspec.structs.replace(r.Observed(record=record), **changes)


RUNNING = seen(UP, running=True, root=True, image_held=True)
STOPPED = seen(DOWN, root=True, image_held=True)

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
        r.Limit(entry(memory_bytes=1 << 30).spec.request),
    ),
    ("more disk", entry(disk_bytes=2 << 30, generation=2), RUNNING, r.LimitDisk(2 << 30)),
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
    ("started after that", entry(generation=2), seen(OFF, root=True), r.Start()),
    ("restarted after that", entry(restart_seq=1), seen(OFF, root=True), r.Start()),
    ("stop", entry(action=Action.STOP), RUNNING, r.Stop(10.0)),
    ("stopped", entry(action=Action.STOP), STOPPED, r.Nothing("Stopped")),
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
    ("absent and runs", None, RUNNING, r.Nothing("Orphan")),
    ("absent and stopped", None, STOPPED, r.Nothing("Orphan")),
    ("back-off", entry(), msgspec.structs.replace(STOPPED, wait_s=3.0), r.Wait(3.0)),
    ("image needs no back-off", entry(), seen(wait_s=3.0), r.AwaitImage()),
]


@pytest.mark.parametrize(
    ("wanted", "observed", "step"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_next_step(wanted: SetEntry | None, observed: r.Observed, step: r.Step) -> None:
    assert r.next_action(wanted, observed) == step


def done(wanted: SetEntry, observed: r.Observed, step: r.Step) -> r.Observed:  # noqa: PLR0911
    """The host after `step`."""
    record = observed.record or first_record(wanted, 1_000_000)
    replace = msgspec.structs.replace
    match step:
        case r.AwaitImage():
            return replace(observed, image_held=True)
        case r.CreateRoot():
            limits = with_disk(record.limits, wanted.spec.disk_bytes)
            return replace(observed, root=True, record=replace(record, limits=limits))
        case r.Start():
            return replace(observed, running=True, record=started(record, wanted, boot_id="b"))
        case r.Stop():
            known = observed.record
            return replace(
                observed, running=False, record=replace(known, up=False) if known else None
            )
        case r.Limit(limits):
            limits = with_disk(limits, record.limits.disk_bytes)
            return replace(observed, record=replace(record, limits=limits))
        case r.LimitDisk(disk_bytes):
            limits = with_disk(record.limits, disk_bytes)
            return replace(observed, record=replace(record, limits=limits))
        case r.Confirm():
            return replace(observed, record=replace(confirmed(record, wanted), up=observed.running))
        case r.Remove(root):
            return replace(observed, record=None, root=observed.root and not root)
        case r.Wait():
            return replace(observed, wait_s=0.0)
        case _:
            raise AssertionError(step)


numbers = st.integers(1, 3)
entries = st.builds(
    entry,
    action=st.sampled_from(Action),
    generation=numbers,
    placement_generation=numbers,
    restart_seq=numbers,
    cpu_millis=st.sampled_from([500, 1000]),
    disk_bytes=st.sampled_from([1 << 30, 2 << 30]),
)
records = st.none() | st.builds(
    VERecord,
    uid=st.just(U1),
    name=st.just("ve-1111"),
    project=st.just("default"),
    id_base=st.just(1_000_000),
    limits=st.builds(
        Resources, cpu_millis=st.sampled_from([0, 500]), disk_bytes=st.sampled_from([0, 1 << 30])
    ),
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
    running=st.booleans(),
    image_held=st.booleans(),
    wait_s=st.sampled_from([0.0, 5.0]),
)


@given(wanted=entries, observed=worlds)
def test_eventually_every_wish_is_carried_out_from_any_state(
    wanted: SetEntry, observed: r.Observed
) -> None:
    for _ in range(12):
        step = r.next_action(wanted, observed)
        if isinstance(step, r.Nothing):
            break
        observed = done(wanted, observed, step)
    else:
        pytest.fail(f"does not converge: {observed}")
    match wanted.action:
        case Action.RUN:
            assert observed.running or step == r.Nothing("PoweredOff")
        case Action.STOP:
            assert not observed.running
        case Action.RELEASE:
            assert not observed.running
            assert observed.record is None
        case Action.PURGE:
            assert not observed.running
            assert observed.record is None
            assert not observed.root


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
