"""The cgroups of one agent's VEs, whatever the version of the tree."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import structlog

from veagent.cgroup import v1, v2
from veagent.cgroup.disk import Disk
from veagent.cgroup.files import VANISHED, Files
from veagent.cgroup.layout import CONTAINER, Layout
from veagent.cgroup.oom import OomNotice
from veagent.cgroup.usage import Usage
from veagent.pidfd import Held
from veapi.errors import InvalidInput, NotFound, RemoteFailed, TimedOut
from veapi.model import Limits, Uid

log = structlog.get_logger()
FS = "/sys/fs/cgroup"
_SWEEP_PAUSE_S = 0.01
_GUEST = "guest"
_GUEST_COUNTED = ("memory", "blkio", "cpu", "cpuacct")
_LONG_PATH = 3800
"""A path of more characters may have folders below that the kernel takes no path of (4096 bytes, names of 255)."""
_MOST_PARTS = 64
"""Parts of that length in the deepest tree that is removed; each takes a file descriptor."""
_HELD_AT_ONCE = 256
"""Processes that are held and then killed together; each takes a file descriptor."""


class Cgroups:
    """All below `root` (as "verack/h1") is this agent's. Errors are VerackError; calls are quick and don't block, but `limit`.

    `disk`: that of the VEs' roots, as it is now.
    """

    def __init__(
        self,
        root: str,
        *,
        fs: str = FS,
        files: Files | None = None,
        disk: Callable[[], Disk | None] = lambda: None,
    ) -> None:
        if not root or root != root.strip("/") or ".." in root.split("/"):
            raise InvalidInput(
                f"cgroup root {root!r} is not usable",
                hint='give a relative path such as "verack/h1"',
            )
        self.root = root
        self._files = files or Files()
        self._fs = fs
        self._disk = disk
        self._layout = _layout(fs, self._files)
        self._oom = _OomCounter()

    @property
    def version(self) -> int:
        return self._layout.version

    def setup(self) -> None:
        """Makes the parents of all VEs; RemoteFailed when the kernel refuses."""
        for name in ("ve", "mon"):
            group = f"{self.root}/{name}"
            with _refused(f"make cgroup {group}"):
                self._layout.prepare(group)
        with _refused(f"guard devices of {self.root}/ve"):
            self._layout.guard_devices(f"{self.root}/ve")

    def container(self, uid: Uid) -> str:
        """LXC's own folder of a VE, as it wants it: without the mount point."""
        return f"{self._ve(uid)}/{CONTAINER}"

    def monitor(self, uid: Uid) -> str:
        return f"{self.root}/mon/{uid}"

    def guest(self, uid: Uid) -> tuple[str, ...]:
        """Makes a folder for who works in the VE from outside; files to write a pid to. What it does counts as the VE's.

        Beside LXC's own folder, which the VE may have divided; and not in the freezer, which nobody could be killed in.
        """
        self._must_exist(uid)
        group = f"{self._ve(uid)}/{_GUEST}"
        tops = self._layout.tops()
        if self.version == 1:
            tops = tuple(top for top in tops if os.path.basename(top) in _GUEST_COUNTED)  # noqa: PTH119
        with _refused(f"make cgroup {group}"):
            for top in tops:
                self._files.mkdir(f"{top}/{group}")
        return tuple(f"{top}/{group}/cgroup.procs" for top in tops)

    def pivot(self) -> str:
        """Where monitors go to be able to remove their own folders."""
        return f"{self.root}/pivot"

    def create(self, uid: Uid, limits: Limits, *, cpus: str = "") -> None:
        """Makes the VE's folders and sets its limits. A failure leaves folders: `remove` them."""
        with _refused(f"make cgroup {self._ve(uid)}"):
            self._layout.create(self._ve(uid), limits, self._disk())
            if cpus:
                self._layout.pin(self._ve(uid), cpus)

    def holdable(self, limits: Limits) -> Limits:
        """Without those that this host can't hold a VE to."""
        return self._layout.holdable(limits, self._disk())

    def limit(self, uid: Uid, limits: Limits) -> None:
        """Live. Conflict when memory in use does not fit; what was set before then stays. Blocks while memory is taken back."""
        self._must_exist(uid)
        with _refused(f"limit cgroup {self._ve(uid)}"):
            self._layout.limit(self._ve(uid), limits, self._disk())

    def pin(self, uid: Uid, cpus: str) -> None:
        """Live. `cpus` as the kernel writes lists of processors."""
        self._must_exist(uid)
        with _refused(f"pin cgroup {self._ve(uid)} to processors {cpus}"):
            self._layout.pin(self._ve(uid), cpus)

    async def freeze(self, uid: Uid, *, timeout_s: float = 5.0) -> None:
        """Returns when all of it stands still. TimedOut when something in it does not: then it runs on."""
        self._must_exist(uid)
        with _refused(f"freeze cgroup {self._ve(uid)}"):
            self._layout.freeze(self._ve(uid))
        for _ in range(int(timeout_s / _SWEEP_PAUSE_S)):
            if self._layout.still(self._ve(uid)):
                return
            await asyncio.sleep(_SWEEP_PAUSE_S)
        self.thaw(uid)
        raise TimedOut(
            f"VE {uid} did not freeze within {timeout_s:g} s",
            hint="a process of it may wait for a disk (state D); try again later",
        )

    def suspended(self, uid: Uid) -> bool:
        """Whether `freeze` is in force."""
        return self._layout.suspended(self._ve(uid))

    def oom_notice(self, uid: Uid) -> OomNotice:
        """Becomes readable when the kernel has ended a process of the VE. NotFound when it does not run."""
        try:
            return self._layout.oom_notice(self._ve(uid))
        except OSError:
            raise NotFound(f"VE {uid} has no cgroup", hint="it does not run") from None

    def oom_kills(self, uid: Uid) -> int:
        """How many processes of it the kernel has ended for want of memory, since the VE is known."""
        self.note_oom(uid)
        return self._oom.total(uid)

    def usage(self, uid: Uid) -> Usage:
        """About ten small reads. NotFound when the VE does not run."""
        self.note_oom(uid)
        try:
            return self._layout.usage(self._ve(uid), self._oom.total(uid))
        except OSError as error:
            if error.errno not in VANISHED:
                raise
            raise NotFound(f"VE {uid} has no cgroup", hint="it does not run") from None

    def note_oom(self, uid: Uid) -> None:
        """Reads the kills while the folders that counted them are still there."""
        with suppress(OSError):
            found = self._layout.oom_kills(self._ve(uid))
            if found is not None:
                self._oom.saw(uid, found)

    def forget(self, uid: Uid) -> None:
        """Drops the count of kills, the only thing kept over restarts."""
        self._oom.forget(uid)

    def monitor_pid(self, uid: Uid) -> int | None:
        pids = self._pids(self._layout.processes(self.monitor(uid)))
        return pids[0] if pids else None

    def processes(self, uid: Uid) -> set[int]:
        """Everything inside the VE, in its systemd's groups too."""
        return {pid for path in self._members(self._ve(uid)) for pid in self._pids(path)}

    def frozen(self, uid: Uid) -> bool:
        return self._layout.frozen(self.container(uid))

    def thaw(self, uid: Uid) -> None:
        for group in (self._ve(uid), self.container(uid)):
            with suppress(OSError):
                self._layout.thaw(group)

    def kill(self, uid: Uid) -> None:
        """Kills all inside the VE, then thaws what it froze itself: on v1 not even SIGKILL ends what is frozen."""
        for top in self._layout.tops():
            self._kill(f"{top}/{self._ve(uid)}")
        self._walk(f"{self._layout.freezer}/{self._ve(uid)}", self._layout.thaw_folder)

    def present(self) -> set[Uid]:
        """VEs that have folders, whether they run or not."""
        return {
            Uid(os.path.basename(path))  # noqa: PTH119 - strings all along
            for top in self._layout.tops()
            for name in ("ve", "mon")
            for path in self._files.folders(f"{top}/{self.root}/{name}")
        }

    def exists(self, uid: Uid) -> bool:
        return any(
            self._files.exists(f"{top}/{group}")
            for top in self._layout.tops()
            for group in (self._ve(uid), self.monitor(uid))
        )

    def remove(self, uid: Uid) -> bool:
        """Removes the VE's and its monitor's folders; False when something still runs in them."""
        self._oom.settle(uid)
        self._layout.forget(self._ve(uid))
        gone = [
            self._remove(f"{top}/{group}")
            for top in self._layout.tops()
            for group in (self.container(uid), self._ve(uid), self.monitor(uid))
        ]
        return all(gone)

    async def sweep(self, uid: Uid, *, timeout_s: float = 10.0) -> None:
        """Kills what is left of a VE, its monitor too, and removes the folders. RemoteFailed when it does not die."""
        for _ in range(int(timeout_s / _SWEEP_PAUSE_S)):
            if self.remove(uid):
                return
            for top in self._layout.tops():
                self._kill(f"{top}/{self.monitor(uid)}")
            self.kill(uid)
            await asyncio.sleep(_SWEEP_PAUSE_S)
        raise RemoteFailed(
            f"what is left of VE {uid} does not go away within {timeout_s:g} s",
            hint=f"processes in its cgroup: {sorted(self.processes(uid))}; look for stuck disks (state D)",
        )

    def remove_root(self) -> None:
        """Removes the parents too, as far as they are empty: for an agent that leaves the machine."""
        for top in self._layout.tops():
            for name in ("ve", "mon", "pivot"):
                self._remove(f"{top}/{self.root}/{name}")
            parts = self.root.split("/")
            for count in range(len(parts), 0, -1):
                with suppress(OSError):
                    self._files.rmdir("/".join((top, *parts[:count])))

    def _ve(self, uid: Uid) -> str:
        return f"{self.root}/ve/{uid}"

    def _must_exist(self, uid: Uid) -> None:
        if not self.exists(uid):
            raise NotFound(f"VE {uid} has no cgroup", hint="it does not run")

    def _remove(self, path: str, *, parts: int = _MOST_PARTS) -> bool:
        """The folder and all below, bottom up; a VE's root decides how deep that is."""
        with suppress(OSError):
            self._files.rmdir(path)
        if not self._files.exists(path):
            return True
        for folder in reversed(self._tree(path)):
            with suppress(OSError):
                if len(folder) > _LONG_PATH and parts > 0:
                    self._remove_beneath(folder, parts - 1)
                self._files.rmdir(folder)
        return not self._files.exists(path)

    def _remove_beneath(self, folder: str, parts: int) -> None:
        """Names what is below by a descriptor, as a path from the top would be too long."""
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for child in self._files.folders(f"/proc/self/fd/{fd}"):
                self._remove(child, parts=parts)
        finally:
            os.close(fd)

    def _tree(self, top: str) -> list[str]:
        """The folder and all below, parents first, as deep as paths reach."""
        paths = [top]
        for path in paths:
            with suppress(OSError):
                paths += self._files.folders(path) if len(path) <= _LONG_PATH else []
        return paths

    def _walk(self, top: str, visit: Callable[[str], None], *, parts: int = _MOST_PARTS) -> None:
        """Visits the folder and all below, parents first, also where a path from the top would be too long."""
        for folder in self._tree(top):
            with suppress(OSError):
                visit(folder)
            with suppress(OSError):
                if len(folder) > _LONG_PATH and parts > 0:
                    self._walk_beneath(folder, visit, parts - 1)

    def _walk_beneath(self, folder: str, visit: Callable[[str], None], parts: int) -> None:
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for child in self._files.folders(f"/proc/self/fd/{fd}"):
                self._walk(child, visit, parts=parts)
        finally:
            os.close(fd)

    def _kill(self, top: str) -> None:
        self._walk(top, self._kill_members)

    def _kill_members(self, folder: str) -> None:
        path = f"{folder}/cgroup.procs"
        pids = self._pids(path)
        for start in range(0, len(pids), _HELD_AT_ONCE):
            self._kill_some(pids[start : start + _HELD_AT_ONCE], path)

    def _kill_some(self, pids: list[int], path: str) -> None:
        """Kills those that are still members once held: a number may be somebody else's by now."""
        with ExitStack() as stack:
            held = []
            for pid in pids:
                with suppress(ProcessLookupError):
                    held.append(stack.enter_context(Held(pid)))
            members = set(self._pids(path)) - {os.getpid()}
            doomed = [each for each in held if each.pid in members]
            if doomed:
                log.info("killing leftover processes", count=len(doomed), cgroup=path)
            for each in doomed:
                each.send(signal.SIGKILL)

    def _members(self, group: str) -> list[str]:
        """Paths of cgroup.procs of the group and of all below."""
        top = self._layout.processes(group).removesuffix("/cgroup.procs")
        return [f"{path}/cgroup.procs" for path in self._tree(top)]

    def _pids(self, path: str) -> list[int]:
        try:
            return [int(word) for word in self._files.read(path).split()]
        except OSError:
            return []


class _OomCounter:
    """Sums up kills by folder; a folder that went keeps what it had counted."""

    def __init__(self) -> None:
        self._settled: dict[Uid, int] = {}
        self._counted: dict[Uid, dict[str, int]] = {}

    def saw(self, uid: Uid, found: dict[str, int]) -> None:
        before = self._counted.get(uid, {})
        went = sum(count for path, count in before.items() if count > found.get(path, 0))
        self._settled[uid] = self._settled.get(uid, 0) + went
        self._counted[uid] = found

    def settle(self, uid: Uid) -> None:
        counted = self._counted.pop(uid, None)
        if counted:
            self._settled[uid] = self._settled.get(uid, 0) + sum(counted.values())

    def total(self, uid: Uid) -> int:
        return self._settled.get(uid, 0) + sum(self._counted.get(uid, {}).values())

    def forget(self, uid: Uid) -> None:
        self._settled.pop(uid, None)
        self._counted.pop(uid, None)


@contextmanager
def _refused(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RemoteFailed(
            f"can't {what}: {error.strerror} ({_shown(error.filename) or 'when writing'})",
            hint="the agent must be root, and its part of /sys/fs/cgroup its own",
        ) from None


def _shown(path: str | None) -> str:
    """As it may be told: a VE names its own folders, in bytes that need not be text."""
    return os.fsencode(path or "").decode(errors="backslashreplace")


def _layout(fs: str, files: Files) -> Layout:
    if files.exists(f"{fs}/cgroup.controllers"):
        found = set(files.read(f"{fs}/cgroup.controllers").split())
        missing = [name for name in v2.NEEDED if name not in found]
        layout: Layout = v2.V2(fs, files)
    else:
        missing = [name for name in v1.NEEDED if not files.exists(f"{fs}/{name}")]
        layout = v1.V1(fs, files)
    if missing:
        raise RemoteFailed(
            f"cgroup controllers are missing below {fs}: {', '.join(missing)}",
            hint="mount cgroup2 there, or enable the controllers on the kernel's command line",
        )
    return layout
