"""What vefence kills, on this machine's own cgroups: all of a VE however it hides, and nothing else."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from kit.rack import until
from vefence import groups
from vefence.groups import FS, Groups

ROOT = f"verack-t{os.getpid()}v"
UID = "4b1b8a8e-0000-4000-8000-000000000001"
LONG = "n" * 200
DEPTH = 25
"""Deeper than any path reaches: 25 names of 200 characters."""


def tops() -> list[Path]:
    if (FS / "cgroup.controllers").exists():
        return [FS]
    return [FS / name for name in ("freezer", "pids", "memory")]


def deeper(top: Path, depth: int) -> int:
    """Makes folders within each other; the last one's descriptor."""
    top.mkdir(parents=True, exist_ok=True)
    fd = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        with suppress(FileExistsError):
            os.mkdir(LONG, dir_fd=fd)
        below = os.open(LONG, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


def put(fd: int, pid: int) -> None:
    procs = os.open("cgroup.procs", os.O_WRONLY, dir_fd=fd)
    os.write(procs, str(pid).encode())
    os.close(procs)
    os.close(fd)


def removed(folder: Path) -> bool:
    """All of it, deepest first: `find` needs no long paths."""
    find = ["find", str(folder), "-depth", "-type", "d", "-execdir", "rmdir", "{}", ";"]
    subprocess.run(find, check=False, capture_output=True)
    return not folder.exists()


@pytest.fixture
def sleepers(host_can_run_ves: None) -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [subprocess.Popen(["sleep", "600"]) for _ in range(4)]
    yield processes
    Groups().kill(ROOT, UID)
    for process in processes:
        process.kill()
        process.wait()
    for top in tops():
        until(partial(removed, top / ROOT), within_s=10, what="cgroups are removed")


@pytest.mark.parametrize("depth", [0, DEPTH])
def test_monitor_and_all_processes_are_killed_and_nobody_else(sleepers, depth: int) -> None:
    monitor, inside, frozen, other = sleepers
    for top in tops():
        put(deeper(top / ROOT / "mon" / UID, 0), monitor.pid)
        put(deeper(top / ROOT / "ve" / UID, depth), inside.pid)
        put(deeper(top / ROOT / "ve" / UID / "ct", 0), frozen.pid)
        put(deeper(top / ROOT / "ve" / "other", 0), other.pid)
    name, word = ("cgroup.freeze", "1") if len(tops()) == 1 else ("freezer.state", "FROZEN")
    (tops()[0] / ROOT / "ve" / UID / "ct" / name).write_text(word)
    killer = Groups()
    assert killer.alive(ROOT, UID)
    killer.kill(ROOT, UID)
    for process in (monitor, inside, frozen):
        assert process.wait(5) == -signal.SIGKILL
    assert not killer.alive(ROOT, UID)
    assert other.poll() is None
    assert killer.killed >= 1


def test_a_number_that_left_the_group_before_the_shot_is_not_shot(sleepers, monkeypatch) -> None:
    """As when it was given to another process meanwhile."""
    inside, stranger, *_ = sleepers
    for top in tops():
        put(deeper(top / ROOT / "ve" / UID, 0), inside.pid)
    real, looks = groups._pids, []

    def first_look_lies(fd: int) -> list[int]:
        looks.append(fd)
        return [*real(fd), stranger.pid] if len(looks) % 2 else real(fd)

    monkeypatch.setattr(groups, "_pids", first_look_lies)
    Groups().kill(ROOT, UID)
    monkeypatch.undo()
    if len(tops()) > 1:
        assert inside.wait(5) == -signal.SIGKILL
    assert stranger.poll() is None


def test_a_zombie_and_an_empty_group_are_not_alive(sleepers) -> None:
    process = sleepers[0]
    assert not Groups().alive(ROOT, UID)
    for top in tops():
        put(deeper(top / ROOT / "ve" / UID, 0), process.pid)
    process.send_signal(signal.SIGKILL)
    until(lambda: not Groups().alive(ROOT, UID), within_s=5, what="a zombie does not count")
