"""The root file systems of VEs: writable snapshots of images, with a limit."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from veagent.ports import DiskUsage, RootSource
from veagent.storage import beneath, btrfs
from veagent.storage.failure import doing
from veagent.storage.images import image_folder
from veagent.storage.pool import BtrfsPool
from veagent.storage.threads import to_end
from veapi.clock import Clock, SystemClock
from veapi.errors import InvalidInput, NotFound
from veapi.model import Uid

log = structlog.get_logger()
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PARTIAL = "."
_USAGE_CACHED_S = 2.0


def check_uid(uid: str) -> Uid:
    """InvalidInput unless it is a lower-case UUID: it becomes a part of paths."""
    if _UID.fullmatch(uid) is None:
        raise InvalidInput(
            f"uid {uid[:64]!r} is no lower-case UUID", hint="a uid is given by the controller"
        )
    return Uid(uid)


class BtrfsRoots:
    """Implements `ports.Roots`.

    A root is built as `ve/.<uid>` and renamed when it is complete. A partial one is taken up again by the next
    `create`, never thrown away: after a power loss it may be a root whose rename was lost, with a VE's data in it.
    """

    def __init__(self, pool: BtrfsPool, *, clock: Clock | None = None) -> None:
        self._pool = pool
        self._clock = clock or SystemClock()
        self._groups: dict[Uid, int] = {}
        self._usage: dict[Uid, DiskUsage] = {}
        self._usage_until = 0.0

    async def setup(self) -> None:
        await self._pool.setup()
        with doing("reading the roots of the pool"):
            self._groups = await to_end(self._read_groups)

    async def create(self, uid: Uid, source: RootSource, disk_bytes: int, hostname: str) -> Path:
        """See the port. A root that is there already keeps its content; its limit is set again."""
        check_uid(uid)
        origin = image_folder(self._pool.images, source.image) / "root"
        with doing(f"creating the root of VE {uid}"):
            self._groups[uid] = await to_end(self._create, uid, origin, disk_bytes, hostname)
        self._usage_until = 0.0
        return self.path(uid)

    def path(self, uid: Uid) -> Path:
        return self._pool.roots / check_uid(uid)

    async def exists(self, uid: Uid) -> bool:
        """Whether the root is complete."""
        return btrfs.is_subvolume(self.path(uid))

    async def all(self) -> Sequence[Uid]:
        """Every VE of which something is here, also those whose root is not complete."""
        with doing("reading the roots of the pool"):
            return sorted({uid for uid, _ in self._found()})

    async def limit(self, uid: Uid, disk_bytes: int) -> None:
        """NotFound without a root. A limit below what is used is taken: writes then fail until files are deleted."""
        root = self._present(uid)
        if root is None:
            raise NotFound(f"VE {uid} has no root here", hint="it is created with its first start")
        with doing(f"limiting the disk of VE {uid}"):
            self._groups[uid] = await to_end(self._limit, root, disk_bytes)
        self._usage_until = 0.0

    async def delete(self, uid: Uid) -> None:
        """See the port. Subvolumes that users made inside go too. The space returns within 30 s."""
        check_uid(uid)
        with doing(f"deleting the root of VE {uid}"):
            await to_end(self._delete, uid)
        self._groups.pop(uid, None)
        self._usage.pop(uid, None)

    def usage(self) -> Mapping[Uid, DiskUsage]:
        """As of the last commit of the file system, which is at most 30 s ago; read at most every 2 s."""
        now = self._clock.boot()
        if now >= self._usage_until:
            self._usage = self._read_usage()
            self._usage_until = now + _USAGE_CACHED_S
        return self._usage

    def capacity_bytes(self) -> int:
        with doing("reading the size of the pool"):
            return self._pool.capacity_bytes()

    def _present(self, uid: Uid) -> Path | None:
        for root in (self.path(uid), self._partial(uid)):
            if btrfs.is_subvolume(root):
                return root
        return None

    def _partial(self, uid: Uid) -> Path:
        return self._pool.roots / f"{_PARTIAL}{check_uid(uid)}"

    def _found(self) -> list[tuple[Uid, Path]]:
        with os.scandir(self._pool.roots) as entries:
            found = [(entry.name.removeprefix(_PARTIAL), Path(entry.path)) for entry in entries]
        return [(Uid(name), path) for name, path in found if _UID.fullmatch(name)]

    def _read_groups(self) -> dict[Uid, int]:
        mode = self._pool.mode
        return {uid: btrfs.group_of(btrfs.subvolume_id(path), mode) for uid, path in self._found()}

    def _read_usage(self) -> dict[Uid, DiskUsage]:
        with doing("reading the use of the pool"):
            groups = btrfs.group_usage(self._pool.base)
        return {
            uid: DiskUsage(found.used_bytes, found.limit_bytes)
            for uid, group in self._groups.items()
            if (found := groups.get(group)) is not None
        }

    def _create(self, uid: Uid, source: Path, disk_bytes: int, hostname: str) -> int:
        root = self.path(uid)
        if btrfs.is_subvolume(root):
            return self._limit(root, disk_bytes)
        partial = self._partial(uid)
        if not btrfs.is_subvolume(partial):
            _snapshot(source, partial)
        group = self._limit(partial, disk_bytes)
        with beneath.opened_root(partial) as fd:
            beneath.write_file(fd, "etc", "hostname", f"{hostname}\n".encode())
        partial.rename(root)
        return group

    def _limit(self, root: Path, disk_bytes: int) -> int:
        number = btrfs.subvolume_id(root)
        group = btrfs.make_group(self._pool.base, number, self._pool.mode)
        btrfs.limit_group(self._pool.base, group, disk_bytes or None)
        return group

    def _delete(self, uid: Uid) -> None:
        for root in (self.path(uid), self._partial(uid)):
            if not btrfs.is_subvolume(root):
                continue
            group = btrfs.group_of(btrfs.subvolume_id(root), self._pool.mode)
            self._lift(group)
            btrfs.delete_subvolume(root.parent, root.name)
            self._pool.retire(group)
        self._pool.remove_retired()

    def _lift(self, group: int) -> None:
        try:
            btrfs.limit_group(self._pool.base, group, None)
        except FileNotFoundError:
            return  # died before the group was made


def _snapshot(source: Path, root: Path) -> None:
    try:
        btrfs.snapshot(source, root.parent, root.name)
    except FileNotFoundError:
        raise NotFound(
            f"image sha256:{source.parent.name} is not held by this host",
            hint="`vectl image list` shows which hosts hold it; import it again when none does",
        ) from None
