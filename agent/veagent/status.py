"""A VE's status as its host reports it: pure, from what the worker knows."""

from dataclasses import dataclass

from veagent.cgroup import cpulist
from veagent.events import clock_time
from veagent.fence.gate import ARMING, AwaitFence, FenceOff
from veagent.plan import outdated
from veagent.reconcile import (
    ROOT_LOST,
    STALE,
    AwaitImage,
    AwaitRoom,
    CreateRoot,
    Freeze,
    Nothing,
    Remove,
    ReplaceRoot,
    Start,
    Step,
    Stop,
    Thaw,
    is_of_image,
    is_stale,
)
from veagent.record import VERecord, bounds, is_off
from veagent.snapshots import answered_seq
from veagent.standstill import MESSAGE, UNCONFIRMED
from veapi.model import Action, Resources, SetEntry, Uid, VEReport, VEState, VEStatus

AWAITS_IMAGE = "ImageFetching"
POOL_FULL = "PoolFull"
LIMITS_REFUSED = "LimitsRefused"
SOURCE_MISSING = "SourceMissing"
RESTART_NEEDED = "RestartNeeded"
_LOST = (
    "its disk is not on this host any more, and is not made anew by itself: `vectl rebuild` makes one of its image,"
    " `vectl snapshot restore` one of a snapshot"
)
_REFUSALS = (LIMITS_REFUSED, SOURCE_MISSING, POOL_FULL, STALE)
_PASSING = {
    Stop: "Stopping",
    ReplaceRoot: "Rebuilding",
    Freeze: "Freezing",
    Thaw: "Thawing",
    FenceOff: "Fencing",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the last step failed. `until`: boot time of the next try; `until_wall`: the same for people."""

    reason: str
    message: str
    failures: int
    until: float
    until_wall: float

    def sentence(self) -> str:
        return f"{self.message}; next try at {clock_time(self.until_wall)}"


@dataclass(frozen=True, slots=True)
class Running:
    init_pid: int
    started_at: float
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class Sight:
    """All that a worker knows of its VE. `step`: what it does now, or would if it need not wait.

    `root_refused`: why the root is not made anew as asked. `armed`: the policy_generation under which vefence holds it.
    `unconfirmed`: what is wanted is of a restored store that nobody has confirmed.
    """

    uid: Uid
    host: str
    wanted: SetEntry | None
    record: VERecord | None
    root: bool
    running: Running | None
    step: Step
    trouble: Trouble | None
    image_trouble: str
    remains: bool = False
    root_refused: str = ""
    armed: int = 0
    unconfirmed: bool = False

    @property
    def kept(self) -> bool:
        """It is down, and what is of it is kept as the set asks."""
        if self.wanted is None or self.wanted.action is not Action.KEEP or self.unconfirmed:
            return False
        return self.running is None and self.record is not None and self.record.kept

    @property
    def gone(self) -> bool:
        """Nothing that the set asked to remove is left, or of what it asked to keep there is nothing."""
        if self.wanted is None or self.record is not None or self.running is not None:
            return False
        if self.unconfirmed:
            return False
        match self.wanted.action:
            case Action.PURGE | Action.KEEP:
                return not self.root and not self.remains
            case Action.RELEASE:
                return True
            case _:
                return False


def report_of(sight: Sight) -> VEReport:
    known = sight.wanted or sight.record
    orphan = sight.wanted is None
    return VEReport(
        uid=sight.uid,
        name=known.name if known else "",
        project=known.project if known else "",
        status=status_of(sight),
        gone=sight.gone,
        orphan=orphan,
        kept=sight.kept,
        entry=sight.record.entry if orphan and sight.record else None,
    )


def status_of(sight: Sight) -> VEStatus:
    state, reason, message = _state(sight)
    record, running = sight.record, sight.running
    return VEStatus(
        state=state,
        reason=reason,
        message=message,
        host=sight.host,
        addresses=_addresses(sight),
        started_at=running.started_at if running else None,
        init_pid=running.init_pid if running else 0,
        restarts=record.restarts if record else 0,
        observed_generation=_generation(sight, state, reason),
        placement_generation=_placement_generation(sight),
        observed_restart_seq=record.restart_seq if record else 0,
        observed_root_seq=record.root_seq if record else 0,
        events=record.events if record else (),
        oom_kills=record.oom_kills if record else 0,
        cpus=cpulist.render(record.cpus) if record and running else "",
        disk_used_bytes=record.kept_bytes if record and sight.kept else 0,
        snapshots=record.snapshots if record else (),
        observed_snapshot_seq=answered_seq(record, sight.wanted, sight.step) if record else 0,
        in_force=_in_force(record, running=running is not None) if record else Resources(),
        armed_generation=sight.armed,
    )


def _in_force(record: VERecord, *, running: bool) -> Resources:
    """One that is down is only held to its disk."""
    most = bounds(record)
    return most if running else Resources(disk_bytes=most.disk_bytes)


def _state(sight: Sight) -> tuple[VEState, str, str]:
    if sight.unconfirmed and isinstance(sight.step, Nothing):
        return _state_now(sight), *_why_unconfirmed(sight)
    if sight.wanted is not None and is_stale(sight.wanted, sight.record):
        return _state_now(sight), STALE, _why_stale(sight.wanted, sight.record)
    removing = sight.wanted is not None and sight.wanted.action in (Action.PURGE, Action.RELEASE)
    if (removing and not sight.gone) or _is_being_kept(sight):
        return VEState.DELETING, *_why(sight, "")
    if sight.running is not None:
        return _state_now(sight), *_why_running(sight)
    if sight.step == Nothing(ROOT_LOST):
        return VEState.FAILED, ROOT_LOST, _LOST
    return _down_state(sight)


def _why_unconfirmed(sight: Sight) -> tuple[str, str]:
    """Of one that would be started, or stopped, if the store were to be believed."""
    assert sight.wanted is not None
    if sight.record is not None and is_off(sight.wanted, sight.record):
        return _why_stopped(sight)
    shall_run = sight.wanted.action in (Action.RUN, Action.FREEZE)
    return ("", "") if shall_run == (sight.running is not None) else (UNCONFIRMED, MESSAGE)


def _state_now(sight: Sight) -> VEState:
    if sight.running is None:
        return VEState.STOPPED
    return VEState.FROZEN if sight.running.frozen else VEState.RUNNING


def _why_stale(wanted: SetEntry, record: VERecord | None) -> str:
    has = record.placement_generation if record is not None else 0
    return (
        f"not removed: that is asked of stay {wanted.placement_generation}, and this host has stay {has} of it;"
        " was etcd set back to an older backup? Take the deletion back (`vectl undelete`), look, and delete it again"
    )


def _is_being_kept(sight: Sight) -> bool:
    keep = sight.wanted is not None and sight.wanted.action is Action.KEEP
    return keep and not sight.kept and not sight.gone


def _why_running(sight: Sight) -> tuple[str, str]:
    """What goes on, what failed, what was refused, what waits for a restart: the first of these."""
    passing = _PASSING.get(type(sight.step), "")
    if sight.trouble is not None or passing:
        return _why(sight, passing)
    if isinstance(sight.step, AwaitImage | AwaitRoom):
        return _awaiting(sight)
    if sight.root_refused:
        return SOURCE_MISSING, sight.root_refused
    wanted, record = sight.wanted, sight.record
    if wanted is None or record is None or wanted.action not in (Action.RUN, Action.FREEZE):
        return "", ""
    fields = ", ".join(outdated(wanted, record))
    return (RESTART_NEEDED, f"restart it to change: {fields}") if fields else ("", "")


def _down_state(sight: Sight) -> tuple[VEState, str, str]:
    if sight.trouble is not None and sight.trouble.reason != LIMITS_REFUSED:
        return VEState.FAILED, *_why(sight, "")
    match sight.step:
        case AwaitImage() | AwaitRoom() | AwaitFence():
            waits = isinstance(sight.step, AwaitFence) and sight.step.reason == ARMING
            state = VEState.STOPPED if sight.root and not waits else VEState.CREATING
            return state, *_awaiting(sight)
        case CreateRoot() | Start() | ReplaceRoot():
            return VEState.CREATING, "Starting", ""
        case Remove():
            return VEState.DELETING, "", ""
        case _ if _awaits_root(sight):
            return VEState.CREATING, "Starting", ""
        case _:
            return VEState.STOPPED, *_why_stopped(sight)


def _awaits_root(sight: Sight) -> bool:
    """A clone that is not to run has its root made at once: until then its source is needed."""
    wanted = sight.wanted
    if wanted is None or wanted.action is not Action.STOP:
        return False
    return not sight.root and not is_of_image(wanted)


def _awaiting(sight: Sight) -> tuple[str, str]:
    if isinstance(sight.step, AwaitRoom):
        return POOL_FULL, sight.step.reason
    if isinstance(sight.step, AwaitFence):
        return sight.step.reason, sight.step.message
    digest = sight.wanted.image_digest if sight.wanted else ""
    return AWAITS_IMAGE, sight.image_trouble or f"fetching image {digest[:19]} from another host"


def _why(sight: Sight, reason: str) -> tuple[str, str]:
    if sight.trouble is not None:
        return sight.trouble.reason, sight.trouble.sentence()
    return reason, ""


def _why_stopped(sight: Sight) -> tuple[str, str]:
    record = sight.record
    if sight.trouble is not None:
        return _why(sight, "")
    if sight.root_refused:
        return SOURCE_MISSING, sight.root_refused
    if record is None or not record.off:
        return "", ""
    if sight.wanted is None or is_off(sight.wanted, record):
        return "PoweredOff", "its guest switched it off; start it to run it again"
    return "", ""


def _addresses(sight: Sight) -> tuple[str, ...]:
    ip = sight.record.ip if sight.record is not None else ""
    if not ip and sight.wanted is not None:
        ip = sight.wanted.ip
    return (ip,) if ip else ()


def _generation(sight: Sight, state: VEState, reason: str) -> int:
    """A failure or refusal is told of the generation that failed, so that who waits for it learns of it."""
    failed = state is VEState.FAILED or reason in _REFUSALS
    if failed and sight.wanted is not None:
        return sight.wanted.generation
    return sight.record.generation if sight.record else 0


def _placement_generation(sight: Sight) -> int:
    if sight.wanted is not None:
        return sight.wanted.placement_generation
    return sight.record.placement_generation if sight.record else 0
