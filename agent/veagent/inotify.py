"""Changes of files as events of the loop, by inotify(7)."""

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

MODIFY, MOVED_SELF, DELETED_SELF = 0x2, 0x800, 0x400
CREATED, MOVED_HERE = 0x100, 0x80
ONESHOT = 0x80000000
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_HEAD = struct.Struct("=iIII")
_READ_BYTES = 64 << 10
_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Calls back with the number of each watch that something happened to, from the loop. Close it."""

    def __init__(self, happened: Callable[[int], None]) -> None:
        self._fd = _checked(_libc.inotify_init1(_NONBLOCK_CLOEXEC), "inotify_init1")
        self._happened = happened
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)

    def add(self, path: Path, mask: int) -> int:
        """The watch's number: the same again for the same file. OSError when it is not there."""
        number = _libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(mask))
        return _checked(number, str(path))

    def remove(self, number: int) -> None:
        """Nothing when it is gone already."""
        _libc.inotify_rm_watch(self._fd, number)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        seen, position = set(), 0
        while position < len(data):
            number, _, _, length = _HEAD.unpack_from(data, position)
            position += _HEAD.size + length
            seen.add(number)
        for number in seen:
            self._happened(number)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return int(result)
