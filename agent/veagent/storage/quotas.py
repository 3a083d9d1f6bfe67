"""Who pays for which bytes: btrfs' quota groups, one for each VE that holds its root and its snapshots together.

Every subvolume N has a group `0/N` by itself. The limit of a VE sits one level up, on a group `1/X` that its root, its
snapshots and all that its guest made inside have joined. X comes from the VE's uid, not from a subvolume: roots are replaced,
and what a root wrote stays with the VE as long as one of its snapshots holds it.

*Simple quotas* (Linux 6.7; used where the kernel has them) charge an extent to the subvolume that wrote it, for as long as
anybody holds it. Measured on 6.18:
 - A root or snapshot costs 16 KiB when made; nobody but the image's own group pays for the image, also after its deletion.
 - Bytes that only a snapshot still holds stay on the group `0/N` of the root that wrote them, also after that root was
   dropped and cleaned away. Such a group stays a member and can't be removed (EBUSY) until it is empty: so the sum is right,
   however often a root is replaced by a snapshot of its snapshot. The kernel never removes it: `stale` finds it.
 - A clone pays for what it writes itself. Bytes that it alone holds, because their writer overwrote them, stay on the writer's
   bill. When the writer is deleted, `1/X` stays until btrfs has cleaned up; then those of its groups that still have bytes
   join the clone's (`origins`, `hand_over`). Without a clone `dissolve` takes all out of `1/X` at once.
 - A subvolume that is made inside a VE joins the groups of the one around it, unless its maker hands over a list of groups of
   its own (flag QGROUP_INHERIT, open to everybody): so VEs may not make any (`ve.seccomp`).

*Full qgroups* (older kernels, or found on an existing btrfs) count all that the members refer to, the image included, each
byte once. A subvolume that shares anything makes the counts wrong when it joins: they are read anew then (`recount`), and until
that ends a limit may be passed.
"""

import errno
import fcntl
import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from veagent.storage import btrfs
from veagent.storage.btrfs import Range, limit_group, opened_folder, search

_QUOTA_CTL = 0xC010_9428
_QGROUP_ASSIGN = 0x4018_9429
_QGROUP_CREATE = 0x4010_942A
_QUOTA_RESCAN = 0x4040_942C
_ENABLE, _ENABLE_SIMPLE = 1, 4
_QUOTA_TREE = 8
_STATUS, _INFO, _LIMIT, _RELATION = 240, 242, 244, 246
_ON, _RESCANNING, _WRONG, _SIMPLE = 1, 2, 4, 8
_MAX_REFERENCED = 1
_NO_LIMIT = (1 << 64) - 1
_FIRST_SUBVOLUME = 256
_LEVEL_ONE = 1 << 48
_OF_A_VE = 1 << 47
_TO_DELETE_BYTES = 64 << 20
"""What btrfs may want to reserve for a deletion."""
_NUMBER = _LEVEL_ONE - 1


class QuotaMode(Enum):
    """How the file system counts: by who wrote (SIMPLE) or by what a subvolume refers to (FULL)."""

    SIMPLE = "squota"
    FULL = "qgroup"


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """Bytes as of the last commit (at most 30 s ago). `limit_bytes` is 0 for no limit."""

    used_bytes: int
    limit_bytes: int


def group_of(uid: str) -> int:
    """A VE's group: 47 bits of its uid's hash, above all numbers that subvolumes will ever have."""
    number = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:6]) >> 1
    return _LEVEL_ONE | _OF_A_VE | number


def quota_mode(path: Path) -> QuotaMode | None:
    """None when quotas are off."""
    flags = _status(path)
    if not flags & _ON:
        return None
    return QuotaMode.SIMPLE if flags & _SIMPLE else QuotaMode.FULL


def _status(path: Path) -> int:
    with opened_folder(path) as fd, suppress(FileNotFoundError):
        for _, data in search(fd, _QUOTA_TREE, Range.of(0, _STATUS)):
            return int(struct.unpack_from("=QQQ", data)[2])
    return 0


def enable_quotas(path: Path) -> QuotaMode:
    """Turns quotas on, simple ones where the kernel has them; leaves them as they are when they are on."""
    found = quota_mode(path)
    if found is not None:
        return found
    with opened_folder(path) as fd:
        try:
            _quota_control(fd, _ENABLE_SIMPLE)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY}:
                raise
            _quota_control(fd, _ENABLE)
            return QuotaMode.FULL
    return QuotaMode.SIMPLE


def _quota_control(fd: int, command: int) -> None:
    fcntl.ioctl(fd, _QUOTA_CTL, struct.pack("=QQ", command, 0))


def make_group(path: Path, group: int) -> None:
    """Nothing when it is there."""
    with opened_folder(path) as fd, suppress(FileExistsError):
        fcntl.ioctl(fd, _QGROUP_CREATE, struct.pack("=QQ", 1, group))


def join(path: Path, subvolume: int, group: int) -> None:
    """Makes the subvolume's bytes count for the group; again: nothing."""
    with opened_folder(path) as fd, suppress(FileExistsError):
        fcntl.ioctl(fd, _QGROUP_ASSIGN, struct.pack("=QQQ", 1, subvolume, group))


def _leave(path: Path, subvolume: int, group: int) -> None:
    with opened_folder(path) as fd, suppress(FileNotFoundError):
        fcntl.ioctl(fd, _QGROUP_ASSIGN, struct.pack("=QQQ", 0, subvolume, group))


def remove_group(path: Path, group: int) -> bool:
    """False while it has members or bytes: those of a deleted subvolume leave after the cleaner has been there."""
    with opened_folder(path) as fd:
        try:
            fcntl.ioctl(fd, _QGROUP_CREATE, struct.pack("=QQ", 0, group))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return True
            if error.errno in {errno.EBUSY, errno.EOPNOTSUPP}:
                return False
            raise
    return True


def dissolve(path: Path, group: int) -> bool:
    """Takes every member out and removes the group. False: try again later."""
    for subvolume in members(path, group):
        _leave(path, subvolume, group)
    return remove_group(path, group)


def hand_over(path: Path, group: int, heir: int) -> None:
    """What others hold of a deleted VE's bytes goes to its heir's bill, once btrfs has cleaned up the rest."""
    alive, groups = btrfs.subvolumes(path), group_usage(path)
    if heir not in groups:
        return
    for subvolume in members(path, group):
        if subvolume in alive:
            continue
        if subvolume in groups and groups[subvolume].used_bytes:
            join(path, subvolume, heir)
        _leave(path, subvolume, group)


def is_of_a_ve(group: int) -> bool:
    return bool(group & _LEVEL_ONE and group & _OF_A_VE)


def members(path: Path, group: int) -> list[int]:
    """Subvolumes that count for the group, also deleted ones that left bytes to others."""
    with opened_folder(path) as fd:
        found = search(fd, _QUOTA_TREE, Range.of(group, _RELATION))
        return [key.offset for key, _ in found if key.offset < _LEVEL_ONE]


def all_members(path: Path) -> dict[int, set[int]]:
    """Every group one level up with its members, in one search."""
    found: dict[int, set[int]] = {}
    with opened_folder(path) as fd:
        for key, _ in search(fd, _QUOTA_TREE, Range.all(_RELATION)):
            found.setdefault(key.offset, set()).add(key.objectid)
    return found


def group_usage(path: Path) -> dict[int, GroupUsage]:
    """Every group of the file system by number, in one search (some microseconds a group)."""
    used: dict[int, int] = {}
    limits: dict[int, int] = {}
    with opened_folder(path) as fd:
        for key, data in search(fd, _QUOTA_TREE, Range.of(0, _INFO, _LIMIT)):
            if key.type == _INFO:
                used[key.offset] = struct.unpack_from("=QQ", data)[1]
            elif key.type == _LIMIT:
                flags, most = struct.unpack_from("=QQ", data)
                limits[key.offset] = most if flags & _MAX_REFERENCED and most != _NO_LIMIT else 0
    return {group: GroupUsage(count, limits.get(group, 0)) for group, count in used.items()}


def recount(path: Path) -> None:
    """Starts the reading anew of wrong counts of full qgroups; nothing when they are right or it is under way."""
    flags = _status(path)
    if not flags & _WRONG or flags & _SIMPLE:
        return
    with opened_folder(path) as fd:
        try:
            fcntl.ioctl(fd, _QUOTA_RESCAN, bytes(64))
        except OSError as error:
            if error.errno not in {errno.EINPROGRESS, errno.EBUSY}:
                raise


def stale(path: Path, uids: Callable[[], Iterable[str]]) -> list[int]:
    """Groups that nothing has any more: of subvolumes that are gone, and of VEs that are not among `uids`.

    `uids` is asked after the groups: of a VE that is made meanwhile there is a root before there is a group.
    """
    groups = group_usage(path)
    alive = btrfs.subvolumes(path)
    ours = {group_of(uid) for uid in uids()}
    return [group for group in groups if _is_stale(group, alive, ours)]


def _is_stale(group: int, alive: set[int], ours: set[int]) -> bool:
    if is_of_a_ve(group):
        return group not in ours
    return _FIRST_SUBVOLUME <= group < _LEVEL_ONE and group not in alive


def take_over(
    path: Path, uid: str, subvolume: int, groups: Mapping[int, GroupUsage], mode: QuotaMode
) -> None:
    """Moves a VE from the group of its root, as it was once (`1/<root>`, or `0/<root>` with full qgroups), to its own."""
    group = group_of(uid)
    former = _LEVEL_ONE | subvolume if mode is QuotaMode.SIMPLE else subvolume
    if former not in groups or (mode is QuotaMode.FULL and not groups[former].limit_bytes):
        return
    make_group(path, group)
    limit_group(path, group, groups[former].limit_bytes or None)
    if mode is QuotaMode.FULL:
        join(path, subvolume, group)
        limit_group(path, subvolume, None)
        return
    for member in members(path, former):
        join(path, member, group)
        _leave(path, member, former)
    remove_group(path, former)


def remove_tree(parent: Path, name: str) -> None:
    """`btrfs.delete_subvolume`, also at the limit."""
    try:
        btrfs.delete_subvolume(parent, name)
    except OSError as error:
        if error.errno != errno.EDQUOT:
            raise
        with _raised(parent, btrfs.subvolume_id(parent / name)):
            btrfs.delete_subvolume(parent, name)


@contextmanager
def _raised(path: Path, subvolume: int) -> Iterator[None]:
    """With a little above the limits that hold for the subvolume; so much a death in here leaves, until they are set again."""
    with opened_folder(path) as fd:
        above = [k.offset for k, _ in search(fd, _QUOTA_TREE, Range.of(subvolume, _RELATION))]
    groups = group_usage(path)
    limits = {g: groups[g].limit_bytes for g in (subvolume, *above) if g in groups}
    limits = {group: limit for group, limit in limits.items() if limit}
    for group, limit in limits.items():
        limit_group(path, group, max(limit, groups[group].used_bytes) + _TO_DELETE_BYTES)
    try:
        yield
    finally:
        for group, limit in limits.items():
            if group != subvolume:
                limit_group(path, group, limit)
