"""What to do next with one VE: pure, from what is wanted and what is observed.

A worker asks after every step and every event, and does the one step that it gets. So a death of the agent between
any two steps costs nothing: the next run observes and asks again. What no set names is never touched.
"""

from dataclasses import dataclass
from typing import assert_never

from veagent.record import VERecord
from veapi.model import Action, Resources, SetEntry, Value


class Observed(Value, frozen=True, kw_only=True):
    """One VE as it is. `wait_s`: seconds until a failed step, or a start after quick ends, may be tried again."""

    record: VERecord | None = None
    root: bool = False
    running: bool = False
    image_held: bool = False
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AwaitImage:
    """The host lacks the image; it is being fetched. Nothing blocks: its arrival wakes the worker."""


@dataclass(frozen=True, slots=True)
class CreateRoot:
    """Allocate ids, record them, snapshot the image."""


@dataclass(frozen=True, slots=True)
class Start:
    """Attach to the network and start."""


@dataclass(frozen=True, slots=True)
class Stop:
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Limit:
    """Set cpu, memory and pids of the running VE."""

    limits: Resources


@dataclass(frozen=True, slots=True)
class LimitDisk:
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Confirm:
    """All is as asked: note the generation."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget the VE; with `root` its data too."""

    root: bool


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class Nothing:
    """`reason`: Running, Stopped, PoweredOff, Gone or Orphan."""

    reason: str


Step = (
    AwaitImage | CreateRoot | Start | Stop | Limit | LimitDisk | Confirm | Remove | Wait | Nothing
)


def next_action(wanted: SetEntry | None, observed: Observed) -> Step:
    """The one next step. Absence (`wanted` None) never stops or deletes anything."""
    if wanted is None:
        return Nothing("Orphan")
    step = _wanted_step(wanted, observed)
    if observed.wait_s > 0 and not isinstance(step, Nothing | AwaitImage):
        return Wait(observed.wait_s)
    return step


def _wanted_step(wanted: SetEntry, observed: Observed) -> Step:
    match wanted.action:
        case Action.RUN | Action.FREEZE:
            return _settle(wanted, observed) if observed.running else _bring_up(wanted, observed)
        case Action.STOP | Action.KEEP:
            return _halt(wanted, observed)
        case Action.RELEASE:
            return _remove(observed, timeout_s=wanted.stop_timeout_s, root=False)
        case Action.PURGE:
            return _remove(observed, timeout_s=0, root=True)
        case _:
            assert_never(wanted.action)


def _settle(wanted: SetEntry, observed: Observed) -> Step:
    """Of a VE that runs and shall."""
    record = observed.record
    if record is None:
        return Confirm()
    if wanted.restart_seq > record.restart_seq:
        return Stop(wanted.stop_timeout_s)
    asked = wanted.spec.request
    if asked.disk_bytes != record.limits.disk_bytes:
        return LimitDisk(asked.disk_bytes)
    if asked != record.limits:
        return Limit(asked)
    return Nothing("Running") if is_confirmed(wanted, record) else Confirm()


def _bring_up(wanted: SetEntry, observed: Observed) -> Step:
    record = observed.record
    if record is not None and is_off(wanted, record):
        return Nothing("PoweredOff")
    if not observed.root:
        return CreateRoot() if observed.image_held else AwaitImage()
    if record is not None and wanted.spec.disk_bytes != record.limits.disk_bytes:
        return LimitDisk(wanted.spec.disk_bytes)
    return Start()


def _halt(wanted: SetEntry, observed: Observed) -> Step:
    if observed.running:
        return Stop(wanted.stop_timeout_s)
    record = observed.record
    if record is None:
        return Confirm()
    if observed.root and wanted.spec.disk_bytes != record.limits.disk_bytes:
        return LimitDisk(wanted.spec.disk_bytes)
    settled = is_confirmed(wanted, record) and not record.up and not record.off
    return Nothing("Stopped") if settled else Confirm()


def _remove(observed: Observed, *, timeout_s: float, root: bool) -> Step:
    if observed.running:
        return Stop(timeout_s)
    if observed.record is not None or (root and observed.root):
        return Remove(root=root)
    return Nothing("Gone")


def is_off(wanted: SetEntry, record: VERecord) -> bool:
    """Its guest switched it off, and its user has asked for nothing since."""
    newer = (
        wanted.generation > record.off_generation
        or wanted.restart_seq > record.restart_seq
        or wanted.placement_generation > record.placement_generation
    )
    return record.off and not newer


def is_confirmed(wanted: SetEntry, record: VERecord) -> bool:
    """Nothing newer is asked than what the record says was carried out."""
    return (
        wanted.generation == record.generation
        and wanted.placement_generation == record.placement_generation
        and wanted.restart_seq <= record.restart_seq
        and (wanted.name, wanted.project) == (record.name, record.project)
    )
