"""What the kernel says, as an error that a user can act on."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from veapi.errors import RemoteFailed

_HINTS = {
    errno.ENOSPC: "the pool of this host is full: delete VEs or images, or raise its size in the configuration",
    errno.EDQUOT: "the limit of this VE's disk is reached: raise it, or delete files in the VE",
    errno.EROFS: "the pool became read-only, which btrfs does after an error: see `dmesg` of the host",
    errno.EIO: "the disk under the pool fails: see `dmesg` of the host",
    errno.EPERM: "the agent must run as root",
}


@contextmanager
def doing(what: str) -> Iterator[None]:
    """RemoteFailed "<what>: <reason>" in place of an OSError."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        hint = _HINTS.get(error.errno or 0, "see the log of the agent and `dmesg` of the host")
        raise RemoteFailed(f"{what}: {reason}", hint=hint) from error
