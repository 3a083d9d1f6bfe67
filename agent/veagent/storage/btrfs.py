"""btrfs by its ioctls: no process, no parsing, microseconds instead of milliseconds. Quotas are in `quotas`.

All functions block (a snapshot commits a transaction): call them in a thread. They raise OSError as the kernel gave it;
`failure.doing` makes it an error for users.
"""

import fcntl
import os
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from veagent.storage import waiting

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
_QGROUP_LIMIT = _ior(43, 48)
_GET_SUBVOL_INFO = _ior(60, 504)
_SNAP_DESTROY_V2 = _iow(63, 4096)

_READ_ONLY = 1 << 1
_BY_ID = 1 << 4
_MAX_REFERENCED = 1
_NO_LIMIT = (1 << 64) - 1
_MAX_U64 = (1 << 64) - 1
_ROOT_TREE = 1
_ROOT_DIRECTORY_INODE = 256
_FIRST_SUBVOLUME = 256
_ROOT_ITEM, _ROOT_REF, _EXTENT_DATA = 132, 156, 108
_FIRST_INODE = 256
_INLINE = 0
_WRITTEN_ITEMS = 200_000
_SEARCH_BUFFER_BYTES = 64 << 10
_SEARCH_ROUNDS = 100_000
NAME_LIMIT_BYTES = 255


@contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """A descriptor of the folder itself, never of what a symlink names."""
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
    with opened_folder(parent) as fd:
        waiting.ioctl(fd, _SUBVOL_CREATE_V2, _volume_args(name))


def snapshot(source: Path, parent: Path, name: str, *, read_only: bool = False) -> None:
    """A snapshot of `source` as parent/name; on disk when this returns. Subvolumes inside are not in it."""
    flags = _READ_ONLY if read_only else 0
    with opened_folder(source) as origin, opened_folder(parent) as fd:
        waiting.ioctl(fd, _SNAP_CREATE_V2, _volume_args(name, fd=origin, flags=flags))


def set_read_only(subvolume: Path) -> None:
    with opened_folder(subvolume) as fd:
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
    with opened_folder(path) as fd:
        fcntl.ioctl(fd, _INO_LOOKUP, args)
    return int(struct.unpack_from("=Q", args)[0])


def delete_subvolume(parent: Path, name: str) -> None:
    """Deletes parent/name and every subvolume inside it, deepest first, by number: no path inside is ever followed.

    Near the limit the kernel refuses to delete what lies inside (EDQUOT): `quotas.remove_tree` lifts it for that.
    """
    top = subvolume_id(parent / name)
    with opened_folder(parent) as fd:
        for number in reversed(_with_descendants(fd, top)):
            _delete_by_id(fd, number)


def _with_descendants(fd: int, top: int) -> list[int]:
    """`top`, then all below it; each after its parent."""
    found = [top]
    for number in found:
        found.extend(key.offset for key, _ in search(fd, _ROOT_TREE, Range.of(number, _ROOT_REF)))
    return found


def _delete_by_id(fd: int, number: int) -> None:
    args = bytearray(4096)
    struct.pack_into("=qQQ", args, 0, 0, 0, _BY_ID)
    struct.pack_into("=Q", args, 56, number)
    waiting.ioctl(fd, _SNAP_DESTROY_V2, args)


def sync(path: Path) -> None:
    """All written data of the whole file system, and then a commit."""
    with opened_folder(path) as fd:
        fcntl.ioctl(fd, _SYNC)


def file_system_id(path: Path) -> str:
    """The UUID that mkfs gave it. OSError ENOTTY when this is no btrfs."""
    info = bytearray(1024)
    with opened_folder(path) as fd:
        fcntl.ioctl(fd, _FS_INFO, info)
    return str(uuid.UUID(bytes=bytes(info[16:32])))


def limit_group(path: Path, group: int, limit_bytes: int | None) -> None:
    """Writes above the limit get EDQUOT; a limit below what is used is accepted. None lifts it."""
    value = _NO_LIMIT if limit_bytes is None else limit_bytes
    with opened_folder(path) as fd:
        args = struct.pack("=6Q", group, _MAX_REFERENCED, value, 0, 0, 0)
        fcntl.ioctl(fd, _QGROUP_LIMIT, args)


def subvolumes(path: Path) -> set[int]:
    """Numbers of all subvolumes of the file system, also of those that are deleted but not yet cleaned away."""
    with opened_folder(path) as fd:
        return {key.objectid for key, _ in search(fd, _ROOT_TREE, Range.all(_ROOT_ITEM))}


@dataclass(frozen=True, slots=True)
class Generations:
    """`now`: of the subvolume's last change; `made`: of its making."""

    now: int
    made: int


def generations(subvolume: Path) -> Generations:
    info = bytearray(504)
    with opened_folder(subvolume) as fd:
        fcntl.ioctl(fd, _GET_SUBVOL_INFO, info)
    return Generations(
        now=struct.unpack_from("=Q", info, 280)[0], made=struct.unpack_from("=Q", info, 352)[0]
    )


def written_since(subvolume: Path, generation: int) -> int:
    """Bytes of the files in it that were written after that generation; 0 when looking would take too long.

    The kernel skips all parts of the tree that are older, so the work grows with what was written alone.
    """
    number, total = subvolume_id(subvolume), 0
    with opened_folder(subvolume) as fd:
        wanted = Range(_FIRST_INODE, _MAX_U64, 0, 255, since=generation + 1)
        for count, (key, data) in enumerate(search(fd, number, wanted)):
            if count >= _WRITTEN_ITEMS:
                return 0
            if key.type == _EXTENT_DATA:
                total += _extent_bytes(data, generation)
    return total


def _extent_bytes(data: bytes, generation: int) -> int:
    made, size = struct.unpack_from("=QQ", data)
    if made <= generation:
        return 0
    if data[20] == _INLINE:
        return int(size)
    block, _, _, length = struct.unpack_from("=QQQQ", data, 21)
    return int(length) if block else 0


@dataclass(frozen=True, slots=True)
class Key:
    objectid: int
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class Range:
    """Objects and types to look for; `since`: only in leaves that were changed in that generation or later."""

    first: int
    last: int
    first_type: int
    last_type: int
    since: int = 0

    @classmethod
    def of(cls, objectid: int, first_type: int, last_type: int | None = None) -> "Range":
        """One object."""
        return cls(objectid, objectid, first_type, last_type or first_type)

    @classmethod
    def all(cls, kind: int) -> "Range":
        """Every subvolume."""
        return cls(_FIRST_SUBVOLUME, (1 << 48) - 1, kind, kind)


def search(fd: int, tree: int, wanted: Range) -> Iterator[tuple[Key, bytes]]:
    """Items of a tree, in order. OSError ENOENT when there is no such tree."""
    at = Key(wanted.first, wanted.first_type, 0)
    for _ in range(_SEARCH_ROUNDS):
        items = _search_once(fd, tree, at, wanted)
        for key, data in items:
            if wanted.first_type <= key.type <= wanted.last_type:
                yield key, data
        if not items or items[-1][0] == Key(wanted.last, wanted.last_type, _MAX_U64):
            return
        at = _after(items[-1][0])


def _after(key: Key) -> Key:
    if key.offset < _MAX_U64:
        return Key(key.objectid, key.type, key.offset + 1)
    return Key(key.objectid, key.type + 1, 0)  # a type is never the largest that fits


def _search_once(fd: int, tree: int, at: Key, wanted: Range) -> list[tuple[Key, bytes]]:
    """At most a buffer of items from `at` on; the kernel compares (object, type, offset) as one number."""
    args = bytearray(112 + _SEARCH_BUFFER_BYTES)
    head = (tree, at.objectid, wanted.last, at.offset, _MAX_U64, wanted.since, _MAX_U64)
    struct.pack_into("=7Q", args, 0, *head)
    struct.pack_into("=3I", args, 56, at.type, wanted.last_type, 0xFFFFFFFF)
    struct.pack_into("=Q", args, 104, _SEARCH_BUFFER_BYTES)
    waiting.ioctl(fd, _TREE_SEARCH_V2, args)
    return _parse_items(args, count=struct.unpack_from("=I", args, 64)[0])


def _parse_items(buffer: bytearray, *, count: int) -> list[tuple[Key, bytes]]:
    found = []
    at = 112
    for _ in range(count):
        _, objectid, offset, kind, length = struct.unpack_from("=QQQII", buffer, at)
        at += 32
        found.append((Key(objectid, kind, offset), bytes(buffer[at : at + length])))
        at += length
    return found
