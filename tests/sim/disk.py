"""Files in memory that forget, as disks do, what was not synced when the power went.

`DiskPath` is as much of pathlib.Path as the agent's ledger and its fakes use; `DiskOs` stands in for `os` where the ledger
opens and syncs files. A process that is killed in the middle of its work leaves what it had done (`budget`).
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any, Self
from unittest.mock import patch

from veagent import sealed


class Died(BaseException):
    """The process is gone: no clean-up of the code under test may go on."""


class Inode:
    """`durable`: what a power loss leaves of it; None: it was never synced."""

    __slots__ = ("content", "durable")

    def __init__(self) -> None:
        self.content = b""
        self.durable: bytes | None = None


Folder = dict[str, Inode]


class Disk:
    """`synced`: each write is durable at once. `failing`: writes raise it. `budget`: writes until the process dies."""

    def __init__(self, *, synced: bool = False) -> None:
        self.synced = synced
        self.failing: int | None = None
        self.budget: int | None = None
        self.folders: dict[str, Folder] = {"": {}}
        self._durable: dict[str, Folder] = {}
        self.syncs = 0

    def root(self) -> "DiskPath":
        return DiskPath(self, "")

    def step(self) -> None:
        """Before each change."""
        if self.budget is not None:
            if self.budget <= 0:
                raise Died
            self.budget -= 1
        if self.failing is not None:
            raise OSError(self.failing, os.strerror(self.failing))

    def sync_file(self, inode: Inode) -> None:
        self.step()
        self.syncs += 1
        inode.durable = inode.content

    def sync_folder(self, path: str) -> None:
        self.step()
        self._durable[path] = dict(self.folders.get(path, {}))

    def lose_power(self, rng: Random) -> None:
        """What was not synced is there, partly there, or not there."""
        if self.synced:
            return
        for path, folder in self.folders.items():
            durable = self._durable.get(path, {})
            if folder != durable and rng.random() < 0.5:
                self.folders[path] = dict(durable)
        for folder in self.folders.values():
            for inode in folder.values():
                self._forget(inode, rng)
        self._durable = {path: dict(folder) for path, folder in self.folders.items()}

    def _forget(self, inode: Inode, rng: Random) -> None:
        before = inode.durable or b""
        if inode.content != before:
            if inode.content.startswith(before) and rng.random() < 0.5:
                inode.content = inode.content[: rng.randint(len(before), len(inode.content))]
            else:
                inode.content = before
        inode.durable = inode.content


class DiskPath:
    """pathlib.Path, as far as it is used."""

    __slots__ = ("disk", "path")

    def __init__(self, disk: Disk, path: str) -> None:
        self.disk = disk
        self.path = path

    def __truediv__(self, name: str) -> "DiskPath":
        return DiskPath(self.disk, f"{self.path}/{name}")

    def __str__(self) -> str:
        return self.path

    def __lt__(self, other: "DiskPath") -> bool:
        return self.path < other.path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DiskPath) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> "DiskPath":
        return DiskPath(self.disk, self.path.rpartition("/")[0])

    @property
    def suffix(self) -> str:
        _, dot, end = self.name.rpartition(".")
        return dot + end if dot else ""

    def with_name(self, name: str) -> "DiskPath":
        return self.parent / name

    def with_suffix(self, suffix: str) -> "DiskPath":
        name = self.name
        return self.parent / (name[: len(name) - len(self.suffix)] + suffix)

    def _folder(self) -> Folder:
        found = self.disk.folders.get(self.path.rpartition("/")[0])
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "No such folder", self.path)
        return found

    def inode(self) -> Inode:
        found = self._folder().get(self.name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "No such file", self.path)
        return found

    def exists(self) -> bool:
        with suppress(FileNotFoundError):
            return self.path in self.disk.folders or self.name in self._folder()
        return False

    def mkdir(self, mode: int = 0o777, *, parents: bool = False, exist_ok: bool = False) -> None:
        if self.path in self.disk.folders:
            if not exist_ok:
                raise FileExistsError(self.path)
            return
        self.disk.step()
        self.disk.folders[self.path] = {}

    def iterdir(self) -> Iterator["DiskPath"]:
        return self.glob("*")

    def glob(self, pattern: str) -> Iterator["DiskPath"]:
        """`*` or `*.suffix`."""
        assert pattern.startswith("*")
        prefix, folders = self.path + "/", self.disk.folders
        names = list(folders.get(self.path, ()))
        names += [
            path[len(prefix) :]
            for path in folders
            if path.startswith(prefix) and "/" not in path[len(prefix) :]
        ]
        return iter([self / name for name in names if name.endswith(pattern[1:])])

    def read_bytes(self) -> bytes:
        return self.inode().content

    def read_text(self) -> str:
        return self.inode().content.decode()

    def write_bytes(self, content: bytes) -> None:
        inode = self.make()
        self.disk.step()
        inode.content = content
        if self.disk.synced:
            inode.durable = content

    def write_text(self, content: str) -> None:
        self.write_bytes(content.encode())

    def make(self) -> Inode:
        self.disk.step()
        return self._folder().setdefault(self.name, Inode())

    def rename(self, target: "DiskPath") -> None:
        inode = self.inode()
        self.disk.step()
        target._folder()[target.name] = inode
        del self._folder()[self.name]

    def unlink(self, *, missing_ok: bool = False) -> None:
        self.disk.step()
        try:
            self.inode()
        except FileNotFoundError:
            if not missing_ok:
                raise
        else:
            del self._folder()[self.name]

    def rmdir(self) -> None:
        self.disk.step()
        if self.disk.folders[self.path]:
            raise OSError(errno.ENOTEMPTY, "Folder not empty", self.path)
        del self.disk.folders[self.path]


class _File:
    """An open file, or folder."""

    def __init__(self, path: DiskPath, flags: int) -> None:
        self.disk = path.disk
        self.folder = path.path if flags & os.O_DIRECTORY else None
        self.inode: Inode | None = None
        if self.folder is None:
            self.inode = path.make() if flags & os.O_CREAT else path.inode()
            if flags & os.O_TRUNC:
                self.disk.step()
                self.inode.content = b""

    def write(self, content: bytes) -> None:
        assert self.inode is not None
        for part in (content[: len(content) // 2], content[len(content) // 2 :]):
            self.disk.step()
            self.inode.content += part

    def flush(self) -> None:
        """Nothing is buffered."""

    def sync(self) -> None:
        if self.inode is None:
            assert self.folder is not None
            self.disk.sync_folder(self.folder)
        else:
            self.disk.sync_file(self.inode)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is buffered."""


class DiskOs:
    """`os` for those who open a DiskPath. Whatever else is asked is the real one's."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        if not isinstance(path, DiskPath):
            return os.open(path, flags, mode)
        number = 1 << 20 | len(self._files)
        self._files[number] = _File(path, flags)
        return number

    def fdopen(self, fd: int, mode: str) -> Any:
        return self._files[fd] if fd in self._files else os.fdopen(fd, mode)

    def fsync(self, fd: int) -> None:
        if fd in self._files:
            self._files[fd].sync()
        else:
            os.fsync(fd)

    def close(self, fd: int) -> None:
        if fd not in self._files:
            os.close(fd)


@contextmanager
def disks() -> Iterator[None]:
    """Meanwhile ledgers can be on simulated disks."""
    with patch.object(sealed, "os", DiskOs()):
        yield
