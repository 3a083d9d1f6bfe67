"""A VE's status as its host reports it: pure, from what the worker knows."""

from dataclasses import dataclass

from veagent.events import clock_time
from veagent.reconcile import AwaitImage, CreateRoot, Remove, Start, Step, Stop, is_off
from veagent.record import VERecord
from veapi.model import Action, SetEntry, Uid, VEReport, VEState, VEStatus

AWAITS_IMAGE = "ImageFetching"


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


@dataclass(frozen=True, slots=True)
class Sight:
    """All that a worker knows of its VE. `step`: what it does now, or would if it need not wait."""

    uid: Uid
    host: str
    wanted: SetEntry | None
    record: VERecord | None
    root: bool
    running: Running | None
    step: Step
    trouble: Trouble | None
    image_trouble: str

    @property
    def gone(self) -> bool:
        """Nothing that the set asked to remove is left."""
        if self.wanted is None or self.record is not None or self.running is not None:
            return False
        match self.wanted.action:
            case Action.PURGE:
                return not self.root
            case Action.RELEASE:
                return True
            case _:
                return False


def report_of(sight: Sight) -> VEReport:
    known = sight.wanted or sight.record
    return VEReport(
        uid=sight.uid,
        name=known.name if known else "",
        project=known.project if known else "",
        status=status_of(sight),
        gone=sight.gone,
        orphan=sight.wanted is None,
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
        observed_generation=_generation(sight, state),
        placement_generation=_placement_generation(sight),
        observed_restart_seq=record.restart_seq if record else 0,
        events=record.events if record else (),
    )


def _state(sight: Sight) -> tuple[VEState, str, str]:
    removing = sight.wanted is not None and sight.wanted.action in (Action.PURGE, Action.RELEASE)
    if removing and not sight.gone:
        return VEState.DELETING, *_why(sight, "")
    if sight.running is not None:
        reason = "Stopping" if isinstance(sight.step, Stop) else ""
        return VEState.RUNNING, *_why(sight, reason)
    return _down_state(sight)


def _down_state(sight: Sight) -> tuple[VEState, str, str]:
    if sight.trouble is not None:
        return VEState.FAILED, *_why(sight, "")
    match sight.step:
        case AwaitImage():
            return _awaiting_image(sight)
        case CreateRoot() | Start():
            return VEState.CREATING, "Starting", ""
        case Remove():
            return VEState.DELETING, "", ""
        case _:
            return VEState.STOPPED, *_why_stopped(sight)


def _awaiting_image(sight: Sight) -> tuple[VEState, str, str]:
    digest = sight.wanted.image_digest if sight.wanted else ""
    message = sight.image_trouble or f"fetching image {digest[:19]} from another host"
    return VEState.CREATING, AWAITS_IMAGE, message


def _why(sight: Sight, reason: str) -> tuple[str, str]:
    if sight.trouble is not None:
        return sight.trouble.reason, sight.trouble.sentence()
    return reason, ""


def _why_stopped(sight: Sight) -> tuple[str, str]:
    record = sight.record
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


def _generation(sight: Sight, state: VEState) -> int:
    """A failure is told of the generation that failed, so that who waits for it learns of it."""
    if state is VEState.FAILED and sight.wanted is not None:
        return sight.wanted.generation
    return sight.record.generation if sight.record else 0


def _placement_generation(sight: Sight) -> int:
    if sight.wanted is not None:
        return sight.wanted.placement_generation
    return sight.record.placement_generation if sight.record else 0
