"""What /proc says of monitors, inits and their children. Everything here may be of the past when it returns."""

import os
from collections.abc import Iterator
from pathlib import Path

from veapi.clock import Clock

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_TITLE = "[lxc monitor] "


def _read(pid: int, name: str) -> bytes:
    """A file of a process, whole: every start reads ten of them, and pathlib costs more than the system calls."""
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, 1 << 14):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def cmdline(pid: int) -> str:
    """Arguments joined by spaces, "" when there is no such process (or it is a kernel thread, or a zombie)."""
    try:
        return _read(pid, "cmdline").rstrip(b"\0").replace(b"\0", b" ").decode()
    except (OSError, UnicodeDecodeError):
        return ""


def monitored(line: str, lxc_path: Path) -> str | None:
    """The VE whose monitor has this command line, when it is one of ours."""
    prefix = f"{_TITLE}{lxc_path} "
    return line.removeprefix(prefix).strip() if line.startswith(prefix) else None


def starting(line: str, lxc_path: Path) -> str | None:
    """The VE that the lxc-start with this command line starts, when it is one of ours."""
    words = line.split(" ")
    if len(words) < 5 or not words[0].endswith("lxc-start") or words[1:3] != ["-P", str(lxc_path)]:
        return None
    return words[4] if words[3] == "-n" else None


def owner(pid: int) -> int | None:
    """The host's user id that it runs as; None when there is no such process."""
    try:
        return os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 - pathlib costs more than the system call
    except OSError:
        return None


def id_base(pid: int) -> int | None:
    """First host id of the VE that the process is in; None when it is in none, or gone."""
    try:
        inside, host, *_ = (int(word) for word in _read(pid, "uid_map").split())
    except (OSError, ValueError):
        return None
    return host if inside == 0 and host > 0 else None


def all_pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208


def children(pid: int) -> list[int]:
    """Direct children of the process' main thread, zombies too."""
    try:
        return [int(word) for word in _read(pid, f"task/{pid}/children").split()]
    except OSError:
        return []


def init_below(monitor: int) -> int | None:
    """The monitor's child that is process 1 of a PID namespace."""
    return next((pid for pid in children(monitor) if _is_init(pid)), None)


def _is_init(pid: int) -> bool:
    try:
        lines = _read(pid, "status").splitlines()
    except OSError:
        return False
    numbers = next((line.split()[1:] for line in lines if line.startswith(b"NSpid:")), [])
    return len(numbers) > 1 and numbers[-1] == b"1"


def heeds(pid: int, number: int) -> bool:
    """Whether the process catches the signal, or takes it in when it likes (blocked). An init that does neither loses it."""
    try:
        lines = _read(pid, "status").splitlines()
    except OSError:
        return False
    fields = (line.split() for line in lines if line.startswith((b"SigBlk:", b"SigCgt:")))
    return any(int(mask, 16) >> (number - 1) & 1 for _, mask in fields)


def stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; empty when there is no such process."""
    try:
        text = _read(pid, "stat")
    except OSError:
        return []
    return text.rpartition(b")")[2].decode().split()


def session(pid: int) -> int:
    """Its session's id as seen from here; 0 when there is no such process."""
    fields = stat_fields(pid)
    return int(fields[3]) if fields else 0


def parent(pid: int) -> int:
    fields = stat_fields(pid)
    return int(fields[1]) if fields else 0


def lives(pid: int) -> bool:
    """False for zombies."""
    fields = stat_fields(pid)
    return bool(fields) and fields[0] not in {"Z", "X"}


def started_at(pid: int, clock: Clock) -> float:
    """Unix seconds, at most 10 ms early: now, less the age that the kernel tells. The same again unless the clock was set.

    /proc/stat has the time of the boot in whole seconds only: by it a process is up to a second older than it is.
    """
    return _booted_at(clock) + start_ticks(pid) / _TICKS_PER_S


def start_ticks(pid: int) -> int:
    """When it began, in clock ticks since the boot: with its pid, the identity of a process. ProcessLookupError: it is gone."""
    fields = stat_fields(pid)
    if not fields:
        raise ProcessLookupError(f"no process {pid}")
    return int(fields[19])


def _booted_at(clock: Clock) -> float:
    """By the closest of three pairs of readings: on a busy machine much time may pass between the two of a pair."""
    pairs = []
    for _ in range(3):
        before, wall, after = clock.boot(), clock.wall(), clock.boot()
        pairs.append((after - before, wall - (before + after) / 2))
    return min(pairs)[1]


def program(pid: int) -> str:
    """Name of the file that it executes, "" when unknown. The VE chooses it: compare it, never open it."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))  # noqa: PTH115, PTH119
    except OSError:
        return ""


def same_program(one: int, other: int) -> bool:
    """Whether both execute the same file; False when one of them is gone."""
    try:
        return os.path.samefile(f"/proc/{one}/exe", f"/proc/{other}/exe")  # noqa: PTH121
    except OSError:
        return False
