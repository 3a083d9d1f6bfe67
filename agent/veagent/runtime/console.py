"""The console of a VE, to type at and to read.

`lxc-console` is not used. It makes the VE's monitor copy the console to a second pty; when nobody reads that one (a person
on a slow line, a killed client while much is printed) the monitor blocks in a write for ever, and does not see its VE end any more.
Here what is typed goes into the console's own pty, whose master we get from the monitor by pidfd_getfd(2), and what is
printed is read from the console's log, which the monitor writes in any case.
"""

import asyncio
import ctypes
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

from veagent.consolelog import read_console
from veagent.consolemarks import ConsoleMarks
from veagent.ports import Instance, Stream
from veagent.runtime.pump import Input
from veapi.clock import Clock
from veapi.errors import Conflict, RemoteFailed
from veapi.model import Uid

_SYS_PIDFD_GETFD = 438
_MASTER = "/ptmx"
_libc = ctypes.CDLL(None, use_errno=True)


class Consoles:
    """The consoles of one runtime: who is at which, and the times of what they print."""

    def __init__(self, clock: Clock) -> None:
        self.marks = ConsoleMarks(clock)
        self._held: set[Uid] = set()

    def attach(
        self, instance: Instance, log_path: Path, monitor_pid: int | None, size: tuple[int, int]
    ) -> "LxcConsole":
        """`size`: columns and rows. Conflict when it does not run, or somebody is there already."""
        uid = instance.uid
        if monitor_pid is None:
            raise Conflict(f"VE {uid} does not run", hint="start it first")
        if uid in self._held:
            raise Conflict(f"somebody is at the console of VE {uid}", hint="try again later")
        console = LxcConsole(
            instance, log_path, console_master(monitor_pid), size, lambda: self._held.discard(uid)
        )
        self._held.add(uid)
        return console


class LxcConsole:
    """Implements `ports.ExecProcess`. `output` begins with the last lines; it ends with the VE, with code 0, or with `close`."""

    def __init__(
        self,
        instance: Instance,
        log_path: Path,
        master: int,
        size: tuple[int, int],
        closed: Callable[[], None],
    ) -> None:
        self._log_path = log_path
        self._master = master
        self._rows = size[1]
        self._input = Input(master)
        self._ended = asyncio.Event()
        self._closed = closed
        self._waiting = asyncio.create_task(self._until_ended(instance))
        self.resize(*size)

    async def write(self, data: bytes) -> None:
        await self._input.write(data)

    async def close_stdin(self) -> None:
        """Nothing: a console's input has no end."""

    def resize(self, columns: int, rows: int) -> None:
        limited = [max(1, min(value, 65_535)) for value in (rows, columns)]
        with suppress(OSError):
            if self._master >= 0:
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("=HHHH", *limited, 0, 0))

    def signal(self, number: int) -> None:
        """Nothing: what is typed is what a console knows."""

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        pieces = read_console(
            self._log_path, tail=max(1, self._rows - 1), follow=True, until=self._ended
        )
        async for piece in pieces:
            yield Stream.STDOUT, piece

    async def exit_code(self) -> int:
        await self._ended.wait()
        return 0

    async def close(self) -> None:
        self._ended.set()
        self._waiting.cancel()
        if self._master >= 0:
            with suppress(OSError):
                os.set_blocking(self._master, True)  # the monitor's end of it is the same file
            self._master = -1
            self._input.close()
            self._closed()
        await asyncio.gather(self._waiting, return_exceptions=True)

    async def _until_ended(self, instance: Instance) -> None:
        await instance.ended()
        self._ended.set()


def console_master(monitor_pid: int) -> int:
    """A descriptor of ours of the console's pty. RemoteFailed when the monitor has none, or is gone."""
    try:
        pidfd = os.pidfd_open(monitor_pid)
        try:
            return _getfd(pidfd, _master_number(monitor_pid))
        finally:
            os.close(pidfd)
    except OSError as error:
        raise RemoteFailed(
            f"the VE's console can't be reached: {error.strerror}",
            hint="restart the VE; `vectl logs` still shows what it prints",
        ) from None


def _master_number(monitor_pid: int) -> int:
    folder = Path(f"/proc/{monitor_pid}/fd")
    numbers = sorted(int(entry.name) for entry in folder.iterdir())
    for number in numbers:
        with suppress(FileNotFoundError):
            if str((folder / str(number)).readlink()).endswith(_MASTER):
                return number
    raise FileNotFoundError(2, "it has no pty")


def _getfd(pidfd: int, number: int) -> int:
    found = _libc.syscall(
        *(ctypes.c_long(_SYS_PIDFD_GETFD), ctypes.c_int(pidfd), ctypes.c_int(number)),
        ctypes.c_uint(0),
    )
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(found)
