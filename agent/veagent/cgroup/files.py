"""The door to the cgroup file systems. Tests put a made-up kernel in its place."""

import errno
import os
from contextlib import suppress

VANISHED = frozenset((errno.ENOENT, errno.ENODEV))
"""What a file of a folder that goes meanwhile gives: the second once it was open."""


class Files:
    """Reads and writes of cgroup files, by absolute path. They raise OSError as the kernel gives it."""

    def mkdir(self, path: str) -> None:
        """Makes one folder; fine when it is there."""
        with suppress(FileExistsError):
            os.mkdir(path, 0o755)  # noqa: PTH102 - pathlib costs more than the system call

    def rmdir(self, path: str) -> None:
        os.rmdir(path)  # noqa: PTH106 - as above

    def read(self, path: str) -> str:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pieces = []
            while piece := os.read(fd, 1 << 16):
                pieces.append(piece)
        finally:
            os.close(fd)
        return b"".join(pieces).decode()

    def write(self, path: str, value: str) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)

    def folders(self, path: str) -> list[str]:
        """Paths of the folders right below; empty when `path` is not there."""
        try:
            with os.scandir(path) as entries:
                return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            if error.errno in VANISHED:
                return []
            raise

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)
