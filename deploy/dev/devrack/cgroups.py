"""The rack's cgroups: what everything of it can be found by, also after a crash of this script."""

import os
import signal
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """Mount points of the cgroup hierarchies: one on v2, many on v1."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        if tail.split()[0] in {"cgroup", "cgroup2"} and head.split()[4].startswith(str(ROOT)):
            points.append(Path(head.split()[4]))
    return points


def tracker() -> Path:
    """The hierarchy in which the rack's daemons are kept together."""
    if (ROOT / "cgroup.controllers").exists():
        return ROOT
    return ROOT / "pids"


def processes(group: str) -> set[int]:
    """Ids of all processes in the group or below it, in any hierarchy."""
    found: set[int] = set()
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / group):
            try:
                found.update(
                    int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split()
                )
            except OSError:
                continue
    return found - {os.getpid()}


def thaw(group: str) -> None:
    """Frozen processes don't die."""
    for folder, _, _ in os.walk(ROOT / "freezer" / group):
        try:
            (Path(folder) / "freezer.state").write_text("THAWED")
        except OSError:
            continue


def kill(group: str, *, within_s: float = 15) -> None:
    """Kills all of the group's processes, again and again until none is left; TimeoutError else."""
    deadline = time.monotonic() + within_s
    while pids := processes(group):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes that do not die: {sorted(pids)}")
        thaw(group)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


def remove(group: str) -> None:
    """Removes the empty group with all below it, in every hierarchy."""
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / group, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                continue
        parent = (hierarchy / group).parent
        if parent != hierarchy:
            try:
                parent.rmdir()
            except OSError:
                continue


def leftovers(group: str) -> list[str]:
    return [str(h / group) for h in hierarchies() if (h / group).exists()]
