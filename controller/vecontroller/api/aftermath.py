"""What confirming a restored store would do: pure, from the store as it was restored and from what hosts have said since."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from veapi.model import (
    Action,
    HostName,
    Order,
    Placement,
    SetEntry,
    Uid,
    VEReport,
    VEState,
    VEStatus,
)
from vecontroller import decisions, hostset
from vecontroller.view import View

_RUNS = (VEState.RUNNING, VEState.FROZEN)
_HERE = (Action.RUN, Action.FREEZE, Action.STOP)


@dataclass(frozen=True, slots=True)
class Said:
    """What hosts have said: whether they have, and what each has that the store does not have there."""

    heard: Callable[[HostName], bool]
    orphans: Callable[[HostName], Sequence[VEReport]]


@dataclass(slots=True)
class OnHost:
    """VEs as project/name. `stays`: they are there, though the store has them elsewhere; so their placement follows them."""

    host: HostName
    starts: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    removes: list[str] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stray:
    """A VE that is on another host than the store says, and the placement that says so."""

    uid: Uid
    placement: Placement


def hosts_of(view: View) -> list[HostName]:
    """Those that are known, and those that VEs are placed on."""
    placed = {host for host, uids in view.placed_on.items() if uids}
    return sorted({*view.hosts, *placed})


def unplaced(view: View) -> list[str]:
    """VEs that get a host."""
    waiting = (held.value for held in decisions.wanting(view).values())
    return sorted(f"{ve.project}/{ve.name}" for ve in waiting)


def on_host(view: View, host: HostName, said: Said) -> OnHost:
    """What becomes of a host by what it has said."""
    found = OnHost(host)
    strays = {stray.uid: stray.placement.host for stray in strays_of(view, said)}
    for entry in hostset.build(view, host, order=Order()).entries:
        if entry.uid not in strays:
            _sort_in(found, entry, _status(view, entry))
    for report in said.orphans(host):
        stays = strays.get(report.uid) == host
        (found.stays if stays else found.orphans).append(_name(report))
    return found


def _sort_in(found: OnHost, entry: SetEntry, status: VEStatus | None) -> None:
    runs = status is not None and status.state in _RUNS
    match entry.action:
        case Action.PURGE:
            found.removes.append(_name(entry))
        case Action.RUN | Action.FREEZE:
            if status is None or not runs:
                if status is None or status.reason != "PoweredOff":
                    found.starts.append(_name(entry))
            elif _asks_more(entry, status):
                found.restarts.append(_name(entry))
        case _:
            if runs:
                found.stops.append(_name(entry))


def _asks_more(entry: SetEntry, status: VEStatus) -> bool:
    newer_root = entry.root.seq > status.observed_root_seq
    return newer_root or entry.restart_seq > status.observed_restart_seq


def _status(view: View, entry: SetEntry) -> VEStatus | None:
    held = view.statuses.get(entry.uid)
    return held.value if held is not None else None


def _name(what: SetEntry | VEReport) -> str:
    return f"{what.project}/{what.name}" if what.name else what.uid


def strays_of(view: View, said: Said) -> list[Stray]:
    """VEs that were moved since the backup. Started where the store has them, they would run twice, or be what they were before."""
    found: dict[Uid, tuple[bool, int, Stray]] = {}
    for host in hosts_of(view):
        for report in said.orphans(host):
            runs = report.status.state in _RUNS
            if report.uid in view.ves and (runs or _is_newer(view, report, said)):
                stray = Stray(report.uid, _placement(view, host, report))
                rank = (runs, stray.placement.generation, stray)
                found[report.uid] = max(
                    rank, found.get(report.uid, rank), key=lambda each: each[:2]
                )
    return [stray for _runs, _generation, stray in found.values()]


def _is_newer(view: View, report: VEReport, said: Said) -> bool:
    """It is down, as all fenced ones are since the store was lost, but it was to be there later than the store knows."""
    held, last = view.placements.get(report.uid), report.entry
    if held is None or last is None or last.action not in _HERE:
        return False
    there = view.statuses.get(report.uid)
    runs_there = there is not None and there.value.state in _RUNS and said.heard(held.value.host)
    return last.placement_generation > held.value.generation and not runs_there


def _placement(view: View, host: HostName, report: VEReport) -> Placement:
    """No older than what the host knows, so that what is asked of the VE later counts there."""
    held = view.placements.get(report.uid)
    last, known = report.entry, held.value.generation if held is not None else 1
    told = last.placement_generation if last is not None else 0
    return Placement(
        host=host,
        generation=max(known, told, report.status.placement_generation),
        decided_at=0.0,
        message="it was here when the store was restored",
        root_since=last.root_since if last is not None else 0,
    )
