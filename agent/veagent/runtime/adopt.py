"""Finds what runs, whoever started it: the kernel's process table is the truth, our memory is not."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from veagent.pidfd import Held
from veagent.runtime import procs
from veagent.runtime.instance import LxcInstance
from veapi.clock import Clock
from veapi.model import Uid


@dataclass(frozen=True, slots=True)
class Scan:
    """Pids by VE: of monitors, and of lxc-start programs that have not become monitors yet."""

    monitors: dict[Uid, int]
    starting: dict[Uid, int]


def scan(lxc_path: Path) -> Scan:
    """All processes of ours: about 10 ms for 300 VEs."""
    found = Scan({}, {})
    for pid in procs.all_pids():
        line = _trusted_line(pid, lxc_path)
        if uid := procs.monitored(line, lxc_path):
            found.monitors[Uid(uid)] = pid
        elif uid := procs.starting(line, lxc_path):
            found.starting[Uid(uid)] = pid
    return found


def hold(uid: Uid, monitor_pid: int, lxc_path: Path, clock: Clock) -> LxcInstance | None:
    """The VE of this monitor; None when it has no init (yet, or any more)."""
    monitor = _held(monitor_pid)
    if monitor is None:
        return None
    init_pid = procs.init_below(monitor_pid)
    init = _held(init_pid) if init_pid is not None else None
    with suppress(ProcessLookupError):
        if init is not None and _right(uid, monitor, init, lxc_path):
            started_at = _started_at(uid, init.pid, lxc_path, clock)
            return LxcInstance(uid, monitor, init, started_at)
    monitor.close()
    if init is not None:
        init.close()
    return None


def hold_monitor(uid: Uid, lxc_path: Path) -> Held | None:
    """Whatever still works for a VE: its monitor, or the lxc-start that will become it."""
    found = scan(lxc_path)
    pid = found.monitors.get(uid) or found.starting.get(uid)
    held = _held(pid) if pid is not None else None
    if held is None:
        return None
    line = _trusted_line(held.pid, lxc_path)
    if uid in {procs.monitored(line, lxc_path), procs.starting(line, lxc_path)}:
        return held
    held.close()
    return None


def _started_at(uid: Uid, init_pid: int, lxc_path: Path, clock: Clock) -> float:
    """Noted when it is first seen: two clocks are never read in the same moment, and an adopted VE keeps its time."""
    ticks = procs.start_ticks(init_pid)
    note = lxc_path / uid / "started"
    with suppress(OSError, ValueError):
        pid, kept_ticks, at = note.read_text().split()
        if (int(pid), int(kept_ticks)) == (init_pid, ticks):
            return float(at)
    started_at = procs.started_at(init_pid, clock)
    with suppress(OSError):
        note.write_text(f"{init_pid} {ticks} {started_at!r}")
    return started_at


def _trusted_line(pid: int, lxc_path: Path) -> str:
    """Its command line, when it is a process of the host's root: those of VEs can call themselves what they like.

    What they call themselves is not even read: it may be megabytes, of thousands of processes.
    """
    if procs.owner(pid) != 0:
        return ""
    line = procs.cmdline(pid)
    return line if str(lxc_path) in line and procs.owner(pid) == 0 else ""


def _held(pid: int) -> Held | None:
    try:
        return Held(pid)
    except ProcessLookupError:
        return None


def _right(uid: Uid, monitor: Held, init: Held, lxc_path: Path) -> bool:
    """Checked after both are held: these numbers can't be given to others any more without our seeing an end."""
    return (
        procs.monitored(_trusted_line(monitor.pid, lxc_path), lxc_path) == uid
        and procs.parent(init.pid) == monitor.pid
        and monitor.alive()
        and init.alive()
    )
