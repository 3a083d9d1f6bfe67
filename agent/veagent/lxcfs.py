"""lxcfs gives VEs a /proc that shows their own limits. When it dies, every VE gets ENOTCONN there until we act.

A restarted lxcfs is a new file system, with another device number; the VEs still hold mounts of the dead one. So the
number is compared: the one mounted here against those in each VE's mount table. Only tables are read for that, never
the files of lxcfs (a hung FUSE server hangs whoever touches it) nor of a VE (whose paths are the VE's own word).
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from veapi.errors import VerackError
from veapi.process import run

log = structlog.get_logger()
FILES = (
    *(
        f"proc/{name}"
        for name in (
            "cpuinfo",
            "diskstats",
            "loadavg",
            "meminfo",
            "slabinfo",
            "stat",
            "swaps",
            "uptime",
        )
    ),
    "sys/devices/system/cpu",
)
"""What is mounted over a VE's own, relative to lxcfs and to the VE's root."""

CHECK_EVERY_S = 1.0
CHECK_ALL_EVERY = 30
ANSWER_WITHIN_S = 2.0
MISSES_LIMIT = 2
FRESH_S = 1.0
REBIND_TIMEOUT_S = 20.0
_LOOKS_AFTER_CHANGE = 3
_HELPER = Path(__file__).parent / "runtime" / "rebind.py"


class Liveness:
    """Whether lxcfs answers. It is asked from a thread: a read from a hung FUSE server does not come back.

    On a busy machine an answer may be late. So all who ask together wait for one answer, and one that is missed once
    counts as the last one did; only after `MISSES_LIMIT` in a row nothing is offered, and then nobody waits any more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answer: asyncio.Future[tuple[str, ...]] | None = None
        self._asking: asyncio.Task[tuple[str, ...]] | None = None
        self._last: tuple[str, ...] = ()
        self._misses = 0
        self._answers = True

    async def offered(self) -> tuple[str, ...]:
        """Those of `FILES` that it has; none when it does not answer. Takes at most `ANSWER_WITHIN_S`.

        At most one thread ever hangs.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="lxcfs-asking")
        return await asyncio.shield(self._asking)

    async def _ask(self) -> tuple[str, ...]:
        answer = self._answer
        if answer is None or answer.done():
            answer = self._answer = self._begin()
        elif self._misses >= MISSES_LIMIT:
            return ()
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                found = await asyncio.shield(answer)
        except TimeoutError:
            self._misses += 1
            found = self._last if self._misses < MISSES_LIMIT else ()
        else:
            self._misses, self._last = 0, found
        self._tell(answers=bool(found))
        return found

    def _begin(self) -> asyncio.Future[tuple[str, ...]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[str, ...]] = loop.create_future()

        def settle(value: tuple[str, ...]) -> None:
            if not answer.done():
                answer.set_result(value)

        def ask() -> None:
            value = _offered(self._path)
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, value)

        threading.Thread(target=ask, name="lxcfs-probe", daemon=True).start()
        return answer

    def _tell(self, *, answers: bool) -> None:
        """Once for each change."""
        if answers is self._answers:
            return
        self._answers = answers
        if answers:
            log.info("lxcfs answers again", path=str(self._path))
        else:
            log.warning("lxcfs does not answer", path=str(self._path), misses=self._misses)


def _offered(path: Path) -> tuple[str, ...]:
    try:
        if not (path / "proc/uptime").read_bytes():
            return ()
        return tuple(name for name in FILES if (path / name).exists() and Path("/", name).exists())
    except OSError:
        return ()


def mounted(mountinfo: str, path: str) -> str | None:
    """Device (`major:minor`) of the FUSE mount that is on top at `path`; None when there is none."""
    device = None
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        fields = head.split()
        if len(fields) > 4 and fields[4] == path:
            device = fields[2] if tail.startswith("fuse") else None
    return device


def stale(mountinfo: str, device: str, files: Iterable[str]) -> tuple[str, ...]:
    """Those of `files` that a VE with this mount table does not have from the lxcfs with this device."""
    return tuple(name for name in files if mounted(mountinfo, f"/{name}") != device)


@dataclass(frozen=True, slots=True)
class _Broken:
    pid: int
    mount_namespace: int
    files: tuple[str, ...]


class LxcfsWatch:
    """Mounts lxcfs' files in running VEs again after lxcfs was restarted. `instances` gives the VEs' init pids."""

    def __init__(self, path: Path, instances: Callable[[], Iterable[int]]) -> None:
        self._path = path
        self._instances = instances
        self._liveness = Liveness(path)
        self._device: str | None = None
        self._looks_left = 0
        self._ticks = 0

    async def run(self) -> None:
        """For ever; looks each second, and at all VEs when lxcfs has changed and twice a minute."""
        while True:
            try:
                await self._tick()
            except (VerackError, OSError) as error:
                log.warning("lxcfs could not be mounted again", error=str(error))
                self._looks_left = _LOOKS_AFTER_CHANGE
            await asyncio.sleep(CHECK_EVERY_S)

    async def rebind(self) -> int:
        """Mounts what is missing or dead in all VEs; gives how many it was in."""
        device = _device_here(self._path)
        files = await self._liveness.offered() if device is not None else ()
        if device is None or not files:
            return 0
        broken = [found for pid in self._instances() if (found := _broken(pid, device, files))]
        if broken:
            await run(_helper_argv(self._path, broken), timeout_s=REBIND_TIMEOUT_S)
            log.info("lxcfs mounted again", ves=len(broken))
        return len(broken)

    async def _tick(self) -> None:
        device = _device_here(self._path)
        if device != self._device:
            log.info("lxcfs changed", device=device, before=self._device)
            self._device, self._looks_left = device, _LOOKS_AFTER_CHANGE
        self._ticks += 1
        if device is not None and (self._looks_left > 0 or self._ticks % CHECK_ALL_EVERY == 0):
            self._looks_left -= 1
            await self.rebind()


def _device_here(path: Path) -> str | None:
    return mounted(Path("/proc/self/mountinfo").read_text(), str(path))


def _broken(pid: int, device: str, offered: Iterable[str]) -> _Broken | None:
    try:
        files = stale(Path(f"/proc/{pid}/mountinfo").read_text(), device, offered)
        namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino  # noqa: PTH116 - follows the magic link
    except OSError:
        return None
    if not files or namespace == os.stat("/proc/self/ns/mnt").st_ino:  # noqa: PTH116
        return None
    return _Broken(pid, namespace, files)


def _helper_argv(path: Path, broken: Iterable[_Broken]) -> list[str]:
    words = [f"{ve.pid}:{ve.mount_namespace}:{','.join(ve.files)}" for ve in broken]
    return [sys.executable, "-I", str(_HELPER), str(path), *words]
