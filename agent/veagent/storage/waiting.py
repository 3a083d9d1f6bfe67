"""An ioctl that lets other threads run while it waits.

`fcntl.ioctl` holds Python's lock when its argument has more than 1,024 bytes. btrfs' largest ones do and wait for the
disk: meanwhile the whole agent would stand still.
"""

import ctypes
import os

_LIBRARY = ctypes.CDLL(None, use_errno=True)


def ioctl(fd: int, request: int, args: bytearray) -> None:
    """The kernel may change `args`. OSError as it gave it."""
    buffer = (ctypes.c_char * len(args)).from_buffer(args)
    if _LIBRARY.ioctl(fd, ctypes.c_ulong(request), buffer) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
