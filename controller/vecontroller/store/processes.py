"""A process that may or may not be our child: waited for and ended through its pidfd, so never mistaken for another."""

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path


class Living:
    """Holds a pidfd until the end of the process is seen, or `forget`."""

    def __init__(
        self, pid: int, pidfd: int, process: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._process = process

    @classmethod
    def child(cls, process: "subprocess.Popen[bytes]") -> "Living":
        """Ours: it is reaped at its end. (asyncio's own subprocess would kill it when it is forgotten.)"""
        return cls(process.pid, os.pidfd_open(process.pid), process)

    def command(self) -> list[str]:
        """The argument list; empty when it has ended."""
        with suppress(OSError):
            data = Path(f"/proc/{self.pid}/cmdline").read_bytes()
            return [part.decode(errors="replace") for part in data.split(b"\0")[:-1]]
        return []

    async def ended(self) -> None:
        """Waits for its end. May be awaited by several, and cancelled."""
        if self._pidfd < 0:
            return
        loop = asyncio.get_running_loop()
        seen = asyncio.Event()
        watched = os.dup(self._pidfd)
        loop.add_reader(watched, seen.set)
        try:
            await seen.wait()
        finally:
            loop.remove_reader(watched)
            os.close(watched)
        if self._process is not None:
            self._process.poll()

    async def end(self, within_s: float) -> None:
        """SIGTERM, then SIGKILL after `within_s` seconds."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(within_s):
                await self.ended()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self.ended()
        self.forget()

    def forget(self) -> None:
        """Releases the pidfd; the process goes on."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)


def find_living(stat_file: Path) -> Living | None:
    """The process whose /proc/<pid>/stat was saved in the file, if it is still the same one."""
    saved = _identity(stat_file)
    if saved is None:
        return None
    pid, started = saved
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    if _identity(Path(f"/proc/{pid}/stat")) == (pid, started):
        return Living(pid, pidfd)
    os.close(pidfd)
    return None


def _identity(stat_file: Path) -> tuple[int, int] | None:
    """Process id and start time (clock ticks since boot), from the text of a stat file."""
    try:
        head, _, tail = stat_file.read_text().rpartition(")")
        return int(head.split()[0]), int(tail.split()[19])
    except (OSError, ValueError, IndexError):
        return None
