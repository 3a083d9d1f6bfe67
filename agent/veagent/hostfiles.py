"""Where the files of a real host's VEs are: what the programs that enter a VE must be told."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from veagent.ports import Instance
from veagent.storage import btrfs
from veagent.storage.failure import doing
from veagent.storage.pool import BtrfsPool, remove_workspace
from veagent.storage.roots import check_uid
from veagent.storage.snapshots import Shelf
from veagent.storage.threads import to_end
from veapi.errors import NotFound
from veapi.model import Uid


@dataclass(frozen=True, slots=True)
class Place:
    """A VE to enter. `init_pid` and `cgroups` (files to write a pid to) only of one that runs."""

    uid: Uid
    root: Path
    id_base: int
    init_pid: int = 0
    cgroups: tuple[str, ...] = ()


class VEFiles(Protocol):
    """What `files` needs of its host."""

    def place(self, uid: Uid, instance: Instance | None, id_base: int) -> Place:
        """NotFound when it has no root here yet."""
        ...

    def frozen_copy(self, uid: Uid, tag: str) -> AbstractAsyncContextManager[Path]:
        """A snapshot of its root, or of its snapshot `tag`, for as long as it is needed."""
        ...


class HostFiles:
    """Implements VEFiles on a btrfs pool. `guest` makes a VE's cgroup for us, and gives its files."""

    def __init__(self, pool: BtrfsPool, guest: Callable[[Uid], tuple[str, ...]]) -> None:
        self._pool = pool
        self._guest = guest
        self._shelf = Shelf(pool)

    def place(self, uid: Uid, instance: Instance | None, id_base: int) -> Place:
        root = self._root(uid)
        if instance is None:
            return Place(uid, root, id_base)
        return Place(uid, root, id_base, instance.init_pid, self._guest(uid))

    @asynccontextmanager
    async def frozen_copy(self, uid: Uid, tag: str) -> AsyncIterator[Path]:
        """Below `tmp/`: what a death leaves of it is swept at the next start."""
        source = self._shelf.find(check_uid(uid), tag) if tag else self._root(uid)
        folder = self._pool.tmp / f"export-{secrets.token_hex(8)}"
        try:
            with doing(f"taking a snapshot of VE {uid}"):
                folder.mkdir(mode=0o700)
                await to_end(_snapshot, source, folder)
            yield folder / "root"
        finally:
            with doing(f"removing a snapshot of VE {uid}"):
                await to_end(remove_workspace, folder)

    def _root(self, uid: Uid) -> Path:
        root = self._pool.roots / check_uid(uid)
        if not btrfs.is_subvolume(root):
            raise NotFound(f"VE {uid} has no root here", hint="it is created with its first start")
        return root


def _snapshot(source: Path, folder: Path) -> None:
    btrfs.snapshot(source, folder, "root", read_only=True)
