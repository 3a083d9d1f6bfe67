"""btrfs by its ioctls: no process, no parsing, microseconds instead of milliseconds.

All functions block (a snapshot commits a transaction): call them in a thread. They raise OSError as the kernel gave it;
`failure.doing` makes it an error for users.

Limits. With *simple quotas* (Linux 6.7) each extent is charged to the subvolume that wrote it, so a VE pays for what it
wrote and not for its image. A subvolume that a user makes inside a VE would have a counter of its own and so escape the
VE's limit; therefore the limit sits one level up, on group `1/<id>`, which such subvolumes join by themselves. With
full qgroups (older kernels) the limit sits on `0/<id>` and counts all that the root refers to, image included.
"""

import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_MAGIC = 0x94


def _io(number: int) -> int:
    return (_MAGIC << 8) | number


def _iow(number: int, size: int) -> int:
    return (1 << 30) | (size << 16) | _io(number)


def _ior(number: int, size: int) -> int:
    return (2 << 30) | (size << 16) | _io(number)


def _iowr(number: int, size: int) -> int:
    return (3 << 30) | (size << 16) | _io(number)


_SYNC = _io(8)
_TREE_SEARCH_V2 = _iowr(17, 112)
_INO_LOOKUP = _iowr(18, 4096)
_SNAP_CREATE_V2 = _iow(23, 4096)
_SUBVOL_CREATE_V2 = _iow(24, 4096)
_SUBVOL_SETFLAGS = _iow(26, 8)
_FS_INFO = _ior(31, 1024)
_QUOTA_CTL = _iowr(40, 16)
_QGROUP_ASSIGN = _iow(41, 24)
_QGROUP_CREATE = _iow(42, 16)
_QGROUP_LIMIT = _ior(43, 48)
_SNAP_DESTROY_V2 = _iow(63, 4096)

_READ_ONLY = 1 << 1
_BY_ID = 1 << 4
_QUOTA_ENABLE, _QUOTA_ENABLE_SIMPLE = 1, 4
_MAX_REFERENCED = 1
_NO_LIMIT = (1 << 64) - 1
_MAX_U64 = (1 << 64) - 1
_ROOT_TREE, _QUOTA_TREE = 1, 8
_ROOT_DIRECTORY_INODE = 256
_FIRST_SUBVOLUME = 256
_ROOT_ITEM, _ROOT_REF = 132, 156
_QGROUP_STATUS, _QGROUP_INFO, _QGROUP_LIMIT_ITEM = 240, 242, 244
_STATUS_ON, _STATUS_SIMPLE = 1, 8
_SEARCH_BUFFER_BYTES = 64 << 10
_SEARCH_ROUNDS = 100_000
NAME_LIMIT_BYTES = 255


class QuotaMode(Enum):
    """How the file system counts: by who wrote (SIMPLE) or by what a subvolume refers to (FULL)."""

    SIMPLE = "squota"
    FULL = "qgroup"


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """Bytes as of the last commit (at most 30 s ago). `limit_bytes` is 0 for no limit."""

    used_bytes: int
    limit_bytes: int


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _volume_args(name: str, *, fd: int = 0, flags: int = 0) -> bytearray:
    raw = os.fsencode(name)
    assert 0 < len(raw) <= NAME_LIMIT_BYTES
    assert b"/" not in raw
    args = bytearray(4096)
    struct.pack_into("=qQQ", args, 0, fd, 0, flags)
    args[56 : 56 + len(raw)] = raw
    return args


def create_subvolume(parent: Path, name: str) -> None:
    with _directory(parent) as fd:
        fcntl.ioctl(fd, _SUBVOL_CREATE_V2, _volume_args(name))


def snapshot(source: Path, parent: Path, name: str) -> None:
    """A writable snapshot of `source` as parent/name; on disk when this returns."""
    with _directory(source) as origin, _directory(parent) as fd:
        fcntl.ioctl(fd, _SNAP_CREATE_V2, _volume_args(name, fd=origin))


def set_read_only(subvolume: Path) -> None:
    with _directory(subvolume) as fd:
        fcntl.ioctl(fd, _SUBVOL_SETFLAGS, struct.pack("=Q", _READ_ONLY))


def is_subvolume(path: Path) -> bool:
    """False also when nothing is there, and for a symlink."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return found.st_ino == _ROOT_DIRECTORY_INODE


def subvolume_id(path: Path) -> int:
    """Number of the subvolume that `path` lies in; never used twice in a file system."""
    args = bytearray(4096)
    struct.pack_into("=QQ", args, 0, 0, _ROOT_DIRECTORY_INODE)
    with _directory(path) as fd:
        fcntl.ioctl(fd, _INO_LOOKUP, args)
    return int(struct.unpack_from("=Q", args)[0])


def delete_subvolume(parent: Path, name: str) -> None:
    """Deletes parent/name and every subvolume inside it, deepest first, by number: no path inside is ever followed.

    The caller has lifted its limit: near the limit the kernel refuses to delete what lies inside (EDQUOT).
    """
    top = subvolume_id(parent / name)
    with _directory(parent) as fd:
        for number in reversed(_with_descendants(fd, top)):
            _delete_by_id(fd, number)


def _with_descendants(fd: int, top: int) -> list[int]:
    """`top`, then all below it; each after its parent."""
    found = [top]
    for number in found:
        found.extend(key.offset for key, _ in _search(fd, _ROOT_TREE, number, _ROOT_REF, _ROOT_REF))
    return found


def _delete_by_id(fd: int, number: int) -> None:
    args = bytearray(4096)
    struct.pack_into("=qQQ", args, 0, 0, 0, _BY_ID)
    struct.pack_into("=Q", args, 56, number)
    fcntl.ioctl(fd, _SNAP_DESTROY_V2, args)


def sync(path: Path) -> None:
    """All written data of the whole file system, and then a commit."""
    with _directory(path) as fd:
        fcntl.ioctl(fd, _SYNC)


def file_system_id(path: Path) -> str:
    """The UUID that mkfs gave it. OSError ENOTTY when this is no btrfs."""
    info = bytearray(1024)
    with _directory(path) as fd:
        fcntl.ioctl(fd, _FS_INFO, info)
    return str(uuid.UUID(bytes=bytes(info[16:32])))


def quota_mode(path: Path) -> QuotaMode | None:
    """None when quotas are off."""
    with _directory(path) as fd:
        try:
            items = list(_search(fd, _QUOTA_TREE, 0, _QGROUP_STATUS, _QGROUP_STATUS))
        except FileNotFoundError:
            return None
    for _, data in items:
        flags = struct.unpack_from("=QQQ", data)[2]
        if flags & _STATUS_ON:
            return QuotaMode.SIMPLE if flags & _STATUS_SIMPLE else QuotaMode.FULL
    return None


def enable_quotas(path: Path) -> QuotaMode:
    """Turns quotas on, simple ones where the kernel has them; leaves them as they are when they are on."""
    found = quota_mode(path)
    if found is not None:
        return found
    with _directory(path) as fd:
        try:
            _quota_control(fd, _QUOTA_ENABLE_SIMPLE)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY}:
                raise
            _quota_control(fd, _QUOTA_ENABLE)
            return QuotaMode.FULL
    return QuotaMode.SIMPLE


def _quota_control(fd: int, command: int) -> None:
    fcntl.ioctl(fd, _QUOTA_CTL, struct.pack("=QQ", command, 0))


def group_of(subvolume: int, mode: QuotaMode) -> int:
    """The qgroup that carries the limit of a VE's root."""
    return (1 << 48) | subvolume if mode is QuotaMode.SIMPLE else subvolume


def make_group(path: Path, subvolume: int, mode: QuotaMode) -> int:
    """The group for a root's limit, made and joined; again: nothing. Gives its number."""
    group = group_of(subvolume, mode)
    if mode is QuotaMode.SIMPLE:
        with _directory(path) as fd:
            _unless_there(fd, _QGROUP_CREATE, struct.pack("=QQ", 1, group))
            _unless_there(fd, _QGROUP_ASSIGN, struct.pack("=QQQ", 1, subvolume, group))
    return group


def _unless_there(fd: int, request: int, args: bytes) -> None:
    try:
        fcntl.ioctl(fd, request, args)
    except FileExistsError:
        return


def limit_group(path: Path, group: int, limit_bytes: int | None) -> None:
    """Writes above the limit get EDQUOT; a limit below what is used is accepted. None lifts it."""
    value = _NO_LIMIT if limit_bytes is None else limit_bytes
    with _directory(path) as fd:
        args = struct.pack("=6Q", group, _MAX_REFERENCED, value, 0, 0, 0)
        fcntl.ioctl(fd, _QGROUP_LIMIT, args)


def remove_group(path: Path, group: int) -> bool:
    """False while it has members: a deleted subvolume leaves only after the cleaner has been there."""
    with _directory(path) as fd:
        try:
            fcntl.ioctl(fd, _QGROUP_CREATE, struct.pack("=QQ", 0, group))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return True
            if error.errno in {errno.EBUSY, errno.EOPNOTSUPP}:
                return False
            raise
    return True


def group_usage(path: Path) -> dict[int, GroupUsage]:
    """Every qgroup of the file system by number, in one search (some microseconds a group)."""
    used: dict[int, int] = {}
    limits: dict[int, int] = {}
    with _directory(path) as fd:
        for key, data in _search(fd, _QUOTA_TREE, 0, _QGROUP_INFO, _QGROUP_LIMIT_ITEM):
            if key.type == _QGROUP_INFO:
                used[key.offset] = struct.unpack_from("=QQ", data)[1]
            elif key.type == _QGROUP_LIMIT_ITEM:
                flags, most = struct.unpack_from("=QQ", data)
                limits[key.offset] = most if flags & _MAX_REFERENCED and most != _NO_LIMIT else 0
    return {group: GroupUsage(count, limits.get(group, 0)) for group, count in used.items()}


def stale_groups(path: Path) -> list[int]:
    """Groups of subvolumes that no longer exist: older kernels, and deaths half-way, leave them."""
    groups = group_usage(path)
    with _directory(path) as fd:
        alive = {key.objectid for key, _ in _search(fd, _ROOT_TREE, None, _ROOT_ITEM, _ROOT_ITEM)}
    numbers = ((group, group & ((1 << 48) - 1)) for group in groups)
    return [g for g, number in numbers if number >= _FIRST_SUBVOLUME and number not in alive]


@dataclass(frozen=True, slots=True)
class _Key:
    objectid: int
    type: int
    offset: int


def _search(
    fd: int, tree: int, objectid: int | None, first_type: int, last_type: int
) -> Iterator[tuple[_Key, bytes]]:
    """Items of a tree with that object (None: every subvolume) and type, in order."""
    least = _FIRST_SUBVOLUME if objectid is None else objectid
    most = (1 << 48) - 1 if objectid is None else objectid
    at = _Key(least, first_type, 0)
    for _ in range(_SEARCH_ROUNDS):
        items = _search_once(fd, tree, at, (most, last_type))
        for key, data in items:
            if first_type <= key.type <= last_type:
                yield key, data
        if not items or items[-1][0].offset == _MAX_U64:
            return
        last = items[-1][0]
        at = _Key(last.objectid, last.type, last.offset + 1)


def _search_once(fd: int, tree: int, at: _Key, last: tuple[int, int]) -> list[tuple[_Key, bytes]]:
    """At most a buffer of items from `at` on; the kernel compares (object, type, offset) as one number."""
    most, last_type = last
    args = bytearray(112 + _SEARCH_BUFFER_BYTES)
    struct.pack_into("=7Q", args, 0, tree, at.objectid, most, at.offset, _MAX_U64, 0, _MAX_U64)
    struct.pack_into("=3I", args, 56, at.type, last_type, 0xFFFFFFFF)
    struct.pack_into("=Q", args, 104, _SEARCH_BUFFER_BYTES)
    fcntl.ioctl(fd, _TREE_SEARCH_V2, args)
    return _parse_items(args, count=struct.unpack_from("=I", args, 64)[0])


def _parse_items(buffer: bytearray, *, count: int) -> list[tuple[_Key, bytes]]:
    found = []
    at = 112
    for _ in range(count):
        _, objectid, offset, kind, length = struct.unpack_from("=QQQII", buffer, at)
        at += 32
        found.append((_Key(objectid, kind, offset), bytes(buffer[at : at + length])))
        at += length
    return found
