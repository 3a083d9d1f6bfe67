"""What to do next with one VE: pure, from what is wanted and what is observed.

A worker asks after every step and every event, and does the one step that it gets. So a death of the agent between
any two steps costs nothing: the next run observes and asks again. What no set names is never touched.
"""

from dataclasses import dataclass
from typing import assert_never

from veagent.fence.gate import FREE, AwaitFence, FenceOff, FenceView
from veagent.record import (
    VERecord,
    beside_disk_and_rates,
    is_off,
    is_root_stale,
    wants_root,
)
from veagent.snapshots import DeleteSnapshot, TakeSnapshot, next_snapshot
from veapi.model import Action, Limits, SetEntry, Value

Rates = tuple[int, int]
"""Bits a second into a VE and out of it."""


class Observed(Value, frozen=True, kw_only=True):
    """One VE as it is. `wait_s`: seconds until a failed step, or a start after quick ends, may be tried again.

    `remains`: a part of a root, or snapshots without one. `rates`: those that its card has; None: not known, it was adopted. `cpus`: the processors that it shall
    use now, `pinned`: those that it does; None: not known.
    `disk_refused`: the disk limit that did not fit the last time; `root_refused`: number of the root whose source was not
    there. `waiting`: numbers of snapshots that failed and may not be tried yet. `refuses`: why no root can be made now.
    """

    record: VERecord | None = None
    root: bool = False
    remains: bool = False
    running: bool = False
    frozen: bool = False
    rates: Rates | None = (0, 0)
    cpus: tuple[int, ...] = ()
    pinned: tuple[int, ...] | None = ()
    image_held: bool = False
    refuses: str = ""
    disk_refused: int | None = None
    root_refused: int | None = None
    waiting: frozenset[int] = frozenset()
    wait_s: float = 0.0
    fence: FenceView = FREE


@dataclass(frozen=True, slots=True)
class AwaitImage:
    """The host lacks the image; it is being fetched. Nothing blocks: its arrival wakes the worker."""


@dataclass(frozen=True, slots=True)
class AwaitRoom:
    """The pool takes no new root. Who watches the pool wakes the worker."""

    reason: str


@dataclass(frozen=True, slots=True)
class CreateRoot:
    """Allocate ids, record them, make the root of its source."""


@dataclass(frozen=True, slots=True)
class ReplaceRoot:
    """Check the new source, stop, drop the old root, record its number. The new root is the next step's."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Start:
    """Attach to the network and start."""


@dataclass(frozen=True, slots=True)
class Stop:
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Freeze:
    pass


@dataclass(frozen=True, slots=True)
class Thaw:
    pass


@dataclass(frozen=True, slots=True)
class Limit:
    """Set what differs of the running VE's limits: disk, network, and the rest."""

    limits: Limits


@dataclass(frozen=True, slots=True)
class LimitDisk:
    """Of a VE that does not run."""

    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Pin:
    """Set the processors of the running VE."""

    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Confirm:
    """All is as asked: note the generation."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Give up all but root, snapshots, record and ids."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget the VE; with `root` its data too."""

    root: bool


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class Nothing:
    """`reason`: Running, Frozen, Stopped, PoweredOff, Kept, Gone, Orphan, or one of those below, of what is refused."""

    reason: str


STALE = "Stale"
"""An end is asked of an earlier stay of the VE than this: what asks was set back to an older state."""
ROOT_LOST = "RootLost"
"""Its root was made, and is not there. A new one in its place would look as if nothing had been in it."""

Step = (
    AwaitImage
    | AwaitRoom
    | AwaitFence
    | FenceOff
    | CreateRoot
    | ReplaceRoot
    | Start
    | Stop
    | Freeze
    | Thaw
    | Limit
    | LimitDisk
    | Pin
    | TakeSnapshot
    | DeleteSnapshot
    | Confirm
    | Keep
    | Remove
    | Wait
    | Nothing
)
Passive = Nothing | AwaitImage | AwaitRoom | AwaitFence
"""Steps that something else than the worker ends."""


def next_action(wanted: SetEntry | None, observed: Observed) -> Step:
    """The one next step. Absence (`wanted` None) never stops or deletes anything."""
    if wanted is None:
        return Nothing("Orphan")
    if observed.fence.doomed and observed.running:
        return FenceOff()
    if is_stale(wanted, observed.record):
        return Nothing(STALE)
    snapshot = _snapshot(wanted, observed)
    if snapshot is not None:
        return snapshot
    step = _wanted_step(wanted, observed)
    if observed.wait_s > 0 and not isinstance(step, Passive):
        return Wait(observed.wait_s)
    return step


def is_stale(wanted: SetEntry, record: VERecord | None) -> bool:
    """What can't be taken back is done only for who knows of all that the VE was placed here for."""
    if record is None or wanted.action not in (Action.KEEP, Action.PURGE, Action.RELEASE):
        return False
    return wanted.placement_generation < record.placement_generation


def _snapshot(wanted: SetEntry, observed: Observed) -> Step | None:
    """Before all else, so that what is asked together with a rebuild is taken of the old root.

    A VE that is to run takes none before it has a root; one that is not to run says that it has none.
    """
    record, action = observed.record, wanted.action
    if record is None or action in (Action.PURGE, Action.RELEASE):
        return None
    takes = action is Action.STOP or (observed.root and action is not Action.KEEP)
    return next_snapshot(wanted, record, waiting=observed.waiting, takes=takes)


def _wanted_step(wanted: SetEntry, observed: Observed) -> Step:
    match wanted.action:
        case Action.RUN | Action.FREEZE:
            return _settle(wanted, observed) if observed.running else _bring_up(wanted, observed)
        case Action.STOP:
            return _halt(wanted, observed)
        case Action.KEEP:
            return _keep(wanted, observed)
        case Action.RELEASE:
            return _remove(observed, timeout_s=wanted.stop_timeout_s, root=False)
        case Action.PURGE:
            return _remove(observed, timeout_s=0, root=True)
        case _:
            assert_never(wanted.action)


def _settle(wanted: SetEntry, observed: Observed) -> Step:
    """Of a VE that runs and shall. A root that can't be made yet keeps it from nothing else."""
    record = observed.record
    if record is None:
        return Confirm()
    replace = _replace(wanted, observed, record)
    if isinstance(replace, ReplaceRoot | Stop):
        return replace
    if wanted.restart_seq > record.restart_seq:
        return Stop(wanted.stop_timeout_s)
    step = _live(wanted, observed, record) or replace
    if step is not None:
        return step
    if not is_confirmed(wanted, record):
        return Confirm()
    return Nothing("Frozen" if observed.frozen else "Running")


def _live(wanted: SetEntry, observed: Observed, record: VERecord) -> Step | None:
    """What changes without a stop."""
    freeze = wanted.action is Action.FREEZE
    if freeze != observed.frozen:
        return Freeze() if freeze else Thaw()
    if not has_limits(wanted, record) or rates_differ(wanted, observed.rates):
        return Limit(wanted.spec.limits)
    return Pin(observed.cpus) if observed.cpus != observed.pinned else None


def has_limits(wanted: SetEntry, record: VERecord) -> bool:
    """Disk, and what the runtime sets."""
    asked, has = wanted.spec.limits, record.limits
    return asked.disk_bytes == has.disk_bytes and (
        beside_disk_and_rates(asked) == beside_disk_and_rates(has)
    )


def rates_differ(wanted: SetEntry, rates: Rates | None) -> bool:
    limits = wanted.spec.limits
    return bool(wanted.ip) and rates != (limits.net_in_bps, limits.net_out_bps)


def _bring_up(wanted: SetEntry, observed: Observed) -> Step:
    record = observed.record
    if record is not None:
        replace = _replace(wanted, observed, record)
        if replace is not None:
            return replace
        if _is_lost(observed, record):
            return Nothing(ROOT_LOST)
        if is_off(wanted, record):
            return _down(wanted, observed, record, "PoweredOff")
    if not observed.root:
        return _make_root(wanted, observed)
    asked_bytes = wanted.spec.disk_bytes
    refused = observed.disk_refused == asked_bytes
    if record is not None and asked_bytes != record.limits.disk_bytes and not refused:
        return LimitDisk(asked_bytes)
    return observed.fence.refusal or Start()


def _make_root(wanted: SetEntry, observed: Observed) -> Step:
    """A root of which a part is there, or that is replaced, needs no room; nor, perhaps, its source: its making tells."""
    if observed.remains:
        return CreateRoot()
    if is_of_image(wanted) and not observed.image_held:
        return AwaitImage()
    return AwaitRoom(observed.refuses) if observed.refuses else CreateRoot()


def _is_lost(observed: Observed, record: VERecord) -> bool:
    return record.made and not observed.root


def _replace(wanted: SetEntry, observed: Observed, record: VERecord) -> Step | None:
    """The old root stays until all that the new one needs is here; until then, None for one that is to come up on it again."""
    if is_root_stale(wanted, record):
        return _replace_stale(wanted, observed)
    if wanted.root.seq <= record.root_seq or wanted.root.seq == observed.root_refused:
        return None
    if is_of_image(wanted) and not observed.image_held:
        return None if _comes_up_again(wanted, observed, record) else AwaitImage()
    return ReplaceRoot(wanted.stop_timeout_s)


def _replace_stale(wanted: SetEntry, observed: Observed) -> Step:
    """On it the VE must not come up again, not even while its image is being fetched."""
    if observed.image_held or not is_of_image(wanted):
        return ReplaceRoot(0)
    return Stop(0) if observed.running else AwaitImage()


def _comes_up_again(wanted: SetEntry, observed: Observed, record: VERecord) -> bool:
    """It ran, and ended by itself, or by a restart: what is being fetched for it is no reason to keep it down."""
    down = observed.root and not observed.running
    shall_run = wanted.action in (Action.RUN, Action.FREEZE)
    return down and shall_run and (record.up or wanted.restart_seq > record.restart_seq)


def _halt(wanted: SetEntry, observed: Observed) -> Step:
    if observed.running:
        return Stop(wanted.stop_timeout_s)
    record = observed.record
    if record is None:
        return Confirm()
    step = _replace(wanted, observed, record)
    if step is None and _is_lost(observed, record):
        return Nothing(ROOT_LOST)
    if step is None and not observed.root and not is_of_image(wanted):
        step = _make_root(wanted, observed)  # now: its source may not be there at the first start
    return step or _down(wanted, observed, record, "Stopped")


def _down(wanted: SetEntry, observed: Observed, record: VERecord, reason: str) -> Step:
    """Of a VE that does not run, and shall not."""
    if observed.root and wanted.spec.disk_bytes != record.limits.disk_bytes:
        return LimitDisk(wanted.spec.disk_bytes)
    off = record.off and not is_off(wanted, record)
    settled = is_confirmed(wanted, record) and not record.up and not off
    return Nothing(reason) if settled else Confirm()


def _keep(wanted: SetEntry, observed: Observed) -> Step:
    if observed.running:
        return Stop(wanted.stop_timeout_s)
    record = observed.record
    if record is not None and record.kept:
        return Nothing("Kept")
    if observed.root or observed.remains:
        return Keep()
    return Nothing("Gone") if record is None else Remove(root=False)


def _remove(observed: Observed, *, timeout_s: float, root: bool) -> Step:
    if observed.running:
        return Stop(timeout_s)
    something = observed.root or observed.remains
    if observed.record is not None or (root and something):
        return Remove(root=root)
    return Nothing("Gone")


def stops(wanted: SetEntry, record: VERecord) -> bool:
    """Carrying it out ends a VE that runs, though perhaps only for a moment."""
    match wanted.action:
        case Action.RUN | Action.FREEZE:
            newer_root = wants_root(wanted, record)
            return newer_root or wanted.restart_seq > record.restart_seq
        case _:
            return not is_stale(wanted, record)


def runs_on(wanted: SetEntry, record: VERecord, *, image_held: bool) -> bool:
    """Its newer root waits for its image, and nothing else that is asked ends it meanwhile."""
    shall_run = wanted.action in (Action.RUN, Action.FREEZE)
    waits = wanted.root.seq > record.root_seq and is_of_image(wanted) and not image_held
    waits = waits and not is_root_stale(wanted, record)
    return shall_run and waits and wanted.restart_seq <= record.restart_seq


def is_of_image(wanted: SetEntry) -> bool:
    """Its root is made of its image, not of a snapshot or of another VE."""
    return not wanted.root.from_uid and not wanted.root.snapshot


def is_confirmed(wanted: SetEntry, record: VERecord) -> bool:
    """Nothing newer is asked than what the record says was carried out."""
    return (
        wanted.generation == record.generation
        and wanted.placement_generation == record.placement_generation
        and wanted.restart_seq <= record.restart_seq
        and not record.kept
        and wanted == record.entry
    )
