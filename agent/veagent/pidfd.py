"""Processes held by pidfd: a number may be given to another process, a pidfd never is."""

import asyncio
import errno
import fcntl
import os
import select
import signal
import struct
from collections.abc import Callable
from typing import Self

_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, 64 bytes)
_INFO_EXIT = 1 << 3
_INFO = struct.Struct("=QQ11Ii")


class Held:
    """A process, held. Open while the process is known to be the right one, or check afterwards that it was.

    Raises ProcessLookupError when there is no such process. Close it, or use it as a context manager.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def alive(self) -> bool:
        """False once it is a zombie or reaped."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return not poll.poll(0)

    def send(self, number: int) -> bool:
        """Sends the signal; False when the process has ended already, or is held no more."""
        if self._fd < 0:
            return False
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            return False
        return True

    def on_end(self, callback: Callable[[], None]) -> None:
        """Calls back once, from the running event loop, when the process has ended."""
        loop = asyncio.get_running_loop()

        def ended() -> None:
            self._unwatch()
            callback()

        loop.add_reader(self._fd, ended)
        self._loop = loop

    def wait_status(self) -> int | None:
        """As of waitpid(2), once the process was reaped; None before, and where the kernel can't tell (before 6.15)."""
        info = bytearray(_INFO.size)
        struct.pack_into("=Q", info, 0, _INFO_EXIT)
        try:
            fcntl.ioctl(self._fd, _PIDFD_GET_INFO, info)
        except OSError as error:
            if error.errno in {errno.ENOTTY, errno.EINVAL, errno.ESRCH}:
                return None
            raise
        fields = _INFO.unpack(info)
        return int(fields[-1]) if fields[0] & _INFO_EXIT else None

    def close(self) -> None:
        """Lets go of the process, which goes on."""
        self._unwatch()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _unwatch(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        self._loop = None


async def until_ended(held: Held, *, timeout_s: float) -> bool:
    """Waits for the end of a process that nobody else watches; False when it still lives after `timeout_s`."""
    ended = asyncio.Event()
    held.on_end(ended.set)
    try:
        async with asyncio.timeout(timeout_s):
            await ended.wait()
    except TimeoutError:
        return False
    return True
