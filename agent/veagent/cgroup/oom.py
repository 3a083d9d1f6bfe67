"""What becomes readable when the kernel has ended a process for want of memory: an eventfd on v1, an inotify on v2."""

import ctypes
import os
from contextlib import suppress
from typing import Protocol

_IN_MODIFY = 0x2


class OomNotice(Protocol):
    """For a selector: once readable, `take`, and look at the counts. `close` when done."""

    def fileno(self) -> int: ...

    def take(self) -> None:
        """Makes it unreadable until the next time."""
        ...

    def close(self) -> None: ...


class EventNotice:
    """v1: the kernel counts an eventfd up each time the group runs into its limit and kills, and when the group goes."""

    def __init__(self, folder: str) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            _register(folder, self._fd)
        except BaseException:
            os.close(self._fd)
            raise

    def fileno(self) -> int:
        return self._fd

    def take(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class FileNotice:
    """v2: memory.events is modified when one of its counts changes, also by groups below."""

    def __init__(self, folder: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        path = f"{folder}/memory.events"
        self._fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self._fd < 0:
            raise _last_error(path)
        if libc.inotify_add_watch(self._fd, path.encode(), _IN_MODIFY) < 0:
            error = _last_error(path)
            os.close(self._fd)
            raise error

    def fileno(self) -> int:
        return self._fd

    def take(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._fd, 1 << 14):
                pass

    def close(self) -> None:
        os.close(self._fd)


def _register(folder: str, event: int) -> None:
    """By the kernel's rule: number of the eventfd, then that of the open file to watch."""
    watched = os.open(f"{folder}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
    try:
        control = os.open(f"{folder}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(control, f"{event} {watched}".encode())
        finally:
            os.close(control)
    finally:
        os.close(watched)


def _last_error(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)
