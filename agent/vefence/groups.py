"""The processes of a VE, found and killed by their cgroups.

A number read from cgroup.procs may be another's a moment later. So each process is held by a pidfd, its membership is read
again, and only who is a member still is shot: a pidfd is never given to another.

Folders are opened one within the other: a VE may nest its own deeper than any path reaches.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FS = Path("/sys/fs/cgroup")
_HELD_AT_ONCE = 256
_PROCS = "cgroup.procs"


class Groups:
    """Of all VEs of one host. `fs`: where the cgroup trees are mounted."""

    def __init__(self, fs: Path = FS) -> None:
        self.killed = 0
        self._shot: set[int] = set()
        self._unified = (fs / "cgroup.controllers").exists()
        self._tops = (fs,) if self._unified else tuple(_hierarchies(fs))
        self._freezer = fs if self._unified else fs / "freezer"

    def alive(self, root: str, uid: str) -> bool:
        """Whether any process of the VE or of its monitor lives. One that only waits to be buried does not."""
        return any(self._lives(fd) for top in self._tops for fd in self._all_of(top, root, uid))

    def kill(self, root: str, uid: str) -> None:
        """Its monitor, so that there is no new init; then all else. Frozen first, so that nothing is born meanwhile."""
        self._shot.clear()
        for top in self._tops:
            self._kill_tree(top / root / "mon" / uid)
        ve = f"{root}/ve/{uid}"
        if self._unified:
            self._kill_unified(self._freezer / ve)
            return
        self._freeze(self._freezer / ve)
        try:
            for top in self._tops:
                self._kill_tree(top / ve)
        finally:
            self._thaw(self._freezer / ve)

    def _kill_unified(self, folder: Path) -> None:
        """A kernel before 5.14 has no cgroup.kill. SIGKILL ends what is frozen, too."""
        try:
            if _populated(folder):
                _write(folder / "cgroup.kill", "1")
                self.killed += 1
        except FileNotFoundError:
            self._kill_tree(folder)

    def _freeze(self, folder: Path) -> None:
        """Not waited for: what slips through is killed in the next round, and by the end of its init."""
        with suppress(OSError):
            _write(folder / "freezer.state", "FROZEN")

    def _thaw(self, folder: Path) -> None:
        """The VE's own folders too: on v1 not even SIGKILL ends what is frozen."""
        for fd in _folders(folder):
            with suppress(OSError):
                _write_at(fd, "freezer.state", "THAWED")

    def _kill_tree(self, folder: Path) -> None:
        for fd in _folders(folder):
            pids = _pids(fd)
            for start in range(0, len(pids), _HELD_AT_ONCE):
                self._kill_some(pids[start : start + _HELD_AT_ONCE], fd)

    def _kill_some(self, pids: list[int], fd: int) -> None:
        held = _hold(pids)
        try:
            members = set(_pids(fd)) - {os.getpid()}
            for pid, pidfd in held:
                if pid in members:
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                        self._count(pid)
        finally:
            for _, pidfd in held:
                os.close(pidfd)

    def _count(self, pid: int) -> None:
        """Once, though each hierarchy of v1 names it."""
        self.killed += pid not in self._shot
        self._shot.add(pid)

    def _all_of(self, top: Path, root: str, uid: str) -> Iterator[int]:
        for name in ("mon", "ve"):
            yield from _folders(top / root / name / uid)

    def _lives(self, fd: int) -> bool:
        return any(_lives(pid) for pid in _pids(fd))


def _hierarchies(fs: Path) -> Iterator[Path]:
    """Those of v1, each once: cpu may be a link to cpu,cpuacct."""
    for entry in sorted(fs.iterdir()) if fs.exists() else ():
        if entry.is_dir() and not entry.is_symlink() and (entry / _PROCS).exists():
            yield entry


def _folders(top: Path) -> Iterator[int]:
    """The folder and all below it, parents first, each as a descriptor that is open until the next is asked for."""
    stack: list[tuple[int, Iterator[str]]] = []
    try:
        fd = _open(str(top), None)
        while fd is not None or stack:
            if fd is not None:
                stack.append((fd, iter(_names(fd))))
                yield fd
            fd = _next_below(stack)
    finally:
        for open_fd, _ in stack:
            os.close(open_fd)


def _next_below(stack: list[tuple[int, Iterator[str]]]) -> int | None:
    """The next folder of the deepest one that has any; what is done is closed."""
    parent, names = stack[-1] if stack else (-1, iter(()))
    for name in names:
        fd = _open(name, parent)
        if fd is not None:
            return fd
    if stack:
        stack.pop()
        os.close(parent)
    return None


def _open(name: str, parent: int | None) -> int | None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except OSError:
        return None


def _names(fd: int) -> list[str]:
    try:
        with os.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _pids(folder: int) -> list[int]:
    with suppress(OSError, ValueError):
        return [int(word) for word in _read_at(folder, _PROCS).split()]
    return []


def _hold(pids: list[int]) -> list[tuple[int, int]]:
    held = []
    for pid in pids:
        with suppress(OSError):
            held.append((pid, os.pidfd_open(pid)))
    return held


def _lives(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return text.rpartition(b")")[2].split()[:1] not in ([b"Z"], [b"X"], [])


def _populated(folder: Path) -> bool:
    return b"populated 1" in (folder / "cgroup.events").read_bytes()


def _write(path: Path, value: str) -> None:
    _write_fd(os.open(path, os.O_WRONLY | os.O_CLOEXEC), value)


def _write_at(folder: int, name: str, value: str) -> None:
    _write_fd(os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder), value)


def _write_fd(fd: int, value: str) -> None:
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _read_at(folder: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    pieces = []
    try:
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
    finally:
        os.close(fd)
    return b"".join(pieces)
