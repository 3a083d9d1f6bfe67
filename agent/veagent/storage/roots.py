"""The root file systems of VEs: writable snapshots of images, of snapshots or of other roots, with a limit."""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog

from veagent.ports import NO_IMAGE, DiskUsage, RootImage, RootSource
from veagent.storage import btrfs, devices, identity, quotas
from veagent.storage.failure import doing
from veagent.storage.images import image_folder
from veagent.storage.pool import PARTIAL, BtrfsPool, is_uid, remove_workspace
from veagent.storage.quotas import QuotaMode, group_of
from veagent.storage.snapshots import Meta, Shelf, status_of
from veagent.storage.threads import to_end
from veapi.clock import Clock, SystemClock
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.model import SnapshotStatus, Uid
from veapi.units import format_size

log = structlog.get_logger()
_USAGE_CACHED_S = 2.0
_P = ParamSpec("_P")
_R = TypeVar("_R")


def check_uid(uid: str) -> Uid:
    """InvalidInput unless it is a lower-case UUID: it becomes a part of paths."""
    if not is_uid(uid):
        raise InvalidInput(
            f"uid {uid[:64]!r} is no lower-case UUID", hint="a uid is given by the controller"
        )
    return Uid(uid)


class BtrfsRoots:
    """Implements `ports.Roots`.

    A root is built as `ve/.<uid>` and renamed when it is complete. A partial one is taken up again by the next
    `create`, never thrown away: after a power loss it may be a root whose rename was lost, with a VE's data in it.
    One that goes is renamed into `tmp/` first, so that what is half deleted never looks whole.

    The calls for one VE come one after the other; those for several VEs at once.
    """

    def __init__(self, pool: BtrfsPool, *, clock: Clock | None = None) -> None:
        self._pool = pool
        self._clock = clock or SystemClock()
        self._shelf = Shelf(pool)
        self._usage: dict[Uid, DiskUsage] = {}
        self._usage_until = float("-inf")

    async def setup(self) -> None:
        """Brings the pool up and sweeps what deaths left; what is whole, and partial roots, stay."""
        await self._pool.setup()
        with doing("reading the roots of the pool"):
            await to_end(self._repair)

    async def create(self, uid: Uid, source: RootSource, disk_bytes: int, hostname: str) -> Path:
        """See the port. A root that is there already keeps its content; its limit is set again.

        A full pool refuses only VEs of which nothing is here yet: one whose root is being replaced gets it.
        """
        check_uid(uid)
        what = f"creating the root of VE {uid}"
        await self._do(what, self._create, uid, source, disk_bytes, hostname)
        return self.path(uid)

    async def drop(self, uid: Uid) -> None:
        """See the port. Subvolumes inside go too; the space returns within 30 s, unless snapshots hold it."""
        check_uid(uid)
        await self._do(f"removing the root of VE {uid}", self._drop, uid)
        self._pool.settle_later()

    async def delete(self, uid: Uid) -> None:
        """See the port. What a clone of it holds stays in the pool, and the clone pays for it from then on."""
        check_uid(uid)
        await self._do(f"deleting the disk of VE {uid}", self._delete, uid)
        self._pool.settle_later()

    async def snapshot(
        self, uid: Uid, tag: str, seq: int, image: RootImage = NO_IMAGE
    ) -> SnapshotStatus:
        """See the port. Unavailable when the pool is full. Subvolumes that a guest made inside are not in it."""
        check_uid(uid)
        _check_seq(seq)
        draft = Meta(
            tag=tag,
            seq=seq,
            taken_at=self._clock.wall(),
            image_digest=image.digest,
            image_config=image.config,
        )
        return status_of(
            await self._do(f"taking a snapshot of VE {uid}", self._snapshot, uid, draft)
        )

    async def delete_snapshot(self, uid: Uid, seq: int) -> None:
        """Nothing when it is not there."""
        check_uid(uid)
        _check_seq(seq)
        await self._do(f"deleting a snapshot of VE {uid}", self._shelf.remove, uid, seq)
        self._pool.settle_later()

    async def snapshots(self, uid: Uid) -> Sequence[SnapshotStatus]:
        """See the port; from memory. The size is what was written between the snapshot before it and it."""
        check_uid(uid)
        with doing(f"reading the snapshots of VE {uid}"):
            return await to_end(self._shelf.statuses, uid)

    async def image_of(self, uid: Uid, tag: str) -> RootImage:
        """See the port; from memory."""
        check_uid(uid)
        with doing(f"reading the snapshots of VE {uid}"):
            meta = await to_end(self._shelf.newest, uid, tag)
        return RootImage(meta.image_digest, meta.image_config) if meta else NO_IMAGE

    async def limit(self, uid: Uid, disk_bytes: int) -> None:
        """See the port; 0 is no limit. NotFound when nothing of the VE is here."""
        if not self._is_here(check_uid(uid)):
            raise NotFound(f"VE {uid} has no root here", hint="it is created with its first start")
        await self._do(f"limiting the disk of VE {uid}", self._limit, uid, disk_bytes)

    async def used_bytes(self, uid: Uid) -> int:
        """See the port; as of the last commit of the file system, which is at most 30 s ago. 0: nothing is here."""
        check_uid(uid)
        with doing(f"reading the use of VE {uid}"):
            groups = await to_end(quotas.group_usage, self._pool.base)
        found = groups.get(group_of(uid))
        return found.used_bytes if found else 0

    def refuses(self) -> str:
        """See the port; looked at once a second at most."""
        with doing("reading the room of the pool"):
            return self._pool.refuses()

    def path(self, uid: Uid) -> Path:
        return self._pool.roots / check_uid(uid)

    async def exists(self, uid: Uid) -> bool:
        """Whether the root is complete."""
        return btrfs.is_subvolume(self.path(uid))

    async def all(self) -> Sequence[Uid]:
        """Every VE of which something is here: a root, complete or not, or snapshots without one."""
        with doing("reading the roots of the pool"):
            return [Uid(uid) for uid in self._pool.uids()]

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

    async def _do(
        self, what: str, work: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs
    ) -> _R:
        """A change, in a thread, to its end."""
        self._pool.check_up()
        with doing(what):
            result = await to_end(work, *args, **kwargs)
            await to_end(self._pool.settle)
        self._usage_until = float("-inf")
        return result

    # What blocks.

    def _repair(self) -> None:
        """Puts every root and snapshot into its VE's group; then groups without a VE can go."""
        self._shelf.sweep()
        devices.sync_folder(self._pool.roots)
        base = self._pool.base
        members, groups = quotas.all_members(base), quotas.group_usage(base)
        for uid in map(Uid, self._pool.uids()):
            parts = {btrfs.subvolume_id(path) for path in self._parts(uid)}
            for number in parts:
                quotas.take_over(base, uid, number, groups, self._pool.mode)
            self._join(uid, parts - members.get(group_of(uid), set()))
        self._pool.settle(at_once=True)

    def _join(self, uid: Uid, subvolumes: Iterable[int]) -> None:
        for number in subvolumes:
            quotas.make_group(self._pool.base, group_of(uid))
            quotas.join(self._pool.base, number, group_of(uid))

    def _parts(self, uid: Uid) -> list[Path]:
        snapshots = (self._shelf.root(uid, seq) for seq in self._shelf.metas(uid))
        parts = (self.path(uid), self._partial(uid), *snapshots)
        return [path for path in parts if btrfs.is_subvolume(path)]

    def _partial(self, uid: Uid) -> Path:
        return self._pool.roots / f"{PARTIAL}{check_uid(uid)}"

    def _is_here(self, uid: Uid) -> bool:
        places = (self.path(uid), self._partial(uid), self._shelf.folder(uid))
        return any(place.is_dir() for place in places)

    def _read_usage(self) -> dict[Uid, DiskUsage]:
        with doing("reading the use of the pool"):
            groups = quotas.group_usage(self._pool.base)
            here = [(Uid(uid), groups.get(group_of(uid))) for uid in self._pool.uids()]
        return {uid: DiskUsage(got.used_bytes, got.limit_bytes) for uid, got in here if got}

    def _create(self, uid: Uid, source: RootSource, disk_bytes: int, hostname: str) -> None:
        root, partial = self.path(uid), self._partial(uid)
        if btrfs.is_subvolume(root):
            self._count(uid, root, disk_bytes)
            return
        if not btrfs.is_subvolume(partial):
            if not self._is_here(uid):
                self._pool.check_room()
            self._copy(uid, source, partial)
        # Without the limit, for a moment: snapshots may have it filled, and a restore must work then too.
        self._count(uid, partial, 0)
        identity.give(partial, hostname, cloned=source.from_uid not in {"", uid})
        self._count(uid, partial, disk_bytes)
        partial.rename(root)
        devices.sync_folder(
            root.parent
        )  # who was told that it is whole may rely on it after a power loss

    def _origin(self, uid: Uid, source: RootSource) -> Path:
        """What a root is a copy of. NotFound, with what is there, when it is not."""
        other = Uid(source.from_uid) or uid
        check_uid(other)
        if source.snapshot:
            return self._shelf.find(other, source.snapshot)
        if other != uid:
            return self.path(other)
        return image_folder(self._pool.images, source.image) / "root"

    def _copy(self, uid: Uid, source: RootSource, partial: Path) -> None:
        origin = self._origin(uid, source)
        if not btrfs.is_subvolume(origin):
            raise self._missing(origin)
        if source.from_uid not in {"", uid} and self._pool.mode is QuotaMode.SIMPLE:
            self._pool.origins.note(uid, source.from_uid)
        try:
            btrfs.snapshot(origin, partial.parent, partial.name)
        except FileNotFoundError:
            raise self._missing(origin) from None

    def _missing(self, origin: Path) -> NotFound:
        if origin.is_relative_to(self._pool.images):
            return NotFound(
                f"image sha256:{origin.parent.name} is not held by this host",
                hint="`vectl image list` shows which hosts hold it; import it again when none does",
            )
        return NotFound(
            f"{origin.relative_to(self._pool.base)}, which the root shall be a copy of, is not on this host",
            hint="a VE is cloned on the host that holds it; `vectl list` shows which that is",
        )

    def _count(self, uid: Uid, root: Path, disk_bytes: int) -> None:
        self._join(uid, [btrfs.subvolume_id(root)])
        btrfs.limit_group(self._pool.base, group_of(uid), disk_bytes or None)

    def _snapshot(self, uid: Uid, draft: Meta) -> Meta:
        root = self.path(uid)
        if draft.seq not in self._shelf.metas(uid):
            if not btrfs.is_subvolume(root):
                raise NotFound(
                    f"VE {uid} has no root here", hint="it is created with its first start"
                )
            self._pool.check_room()
        return self._shelf.take(uid, root, draft)

    def _limit(self, uid: Uid, disk_bytes: int) -> None:
        base, group = self._pool.base, group_of(uid)
        if disk_bytes:
            self._check_fits(group, disk_bytes)
        quotas.make_group(base, group)
        btrfs.limit_group(base, group, disk_bytes or None)

    def _check_fits(self, group: int, disk_bytes: int) -> None:
        """Conflict when more is used; growing needs no look, and so never waits for the disk."""
        before = quotas.group_usage(self._pool.base).get(group)
        if before is None or 0 < before.limit_bytes <= disk_bytes:
            return
        btrfs.sync(self._pool.base)
        used = quotas.group_usage(self._pool.base)[group].used_bytes
        if used > disk_bytes:
            raise Conflict(
                f"disk: root and snapshots of the VE hold {format_size(used)}, more than the"
                f" {format_size(disk_bytes)} asked for",
                hint="delete files in the VE or snapshots of it, or ask for more",
            )

    def _drop(self, uid: Uid) -> None:
        self._shelf.reserve(uid)
        for root in (self.path(uid), self._partial(uid)):
            if btrfs.is_subvolume(root):
                self._bury(root)
        if not self._shelf.metas(uid):
            self._disown(uid)
            self._pool.origins.forget(uid)

    def _bury(self, root: Path) -> None:
        grave = self._pool.tmp / f"root-{root.name}-{secrets.token_hex(4)}"
        root.rename(grave)
        remove_workspace(grave)

    def _delete(self, uid: Uid) -> None:
        inherited = self._pool.origins.bequeath(uid) and self._pool.mode is QuotaMode.SIMPLE
        for root in (self.path(uid), self._partial(uid)):
            if btrfs.is_subvolume(root):
                self._bury(root)
        if not inherited:
            self._disown(uid)
            quotas.dissolve(self._pool.base, group_of(uid))
        self._shelf.remove_all(uid)

    def _disown(self, uid: Uid) -> None:
        """Nothing is left to pay for of deleted VEs whose last clone it was."""
        gone = self._pool.origins.only_of(uid).difference(self._pool.uids())
        for source in gone:
            quotas.dissolve(self._pool.base, group_of(source))


def _check_seq(seq: int) -> None:
    if not 0 < seq < 1 << 63:
        raise InvalidInput(
            f"seq: {seq} is not within 1 and 2^63-1", hint="a number is given by the controller"
        )
