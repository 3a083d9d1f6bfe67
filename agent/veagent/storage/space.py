"""How much of a btrfs is used, and by what; and making it as large as its device. By ioctl; blocks shortly.

`statvfs` knows one number of free bytes. btrfs hands its device out in chunks, to data or to metadata: when all is handed
out and the metadata are full, nothing can be created though gigabytes are free. So both are looked at.
"""

import fcntl
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from veagent.storage import devices, waiting
from veagent.storage.btrfs import opened_folder

_RESIZE = 0x5000_9403
_SPACE_INFO = 0xC010_9414
_DEV_INFO = 0xD000_941E
_FIRST_DEVICE = 1
_LEAST_GROWTH_BYTES = 1 << 20
_SLOTS = 64
_METADATA_BYTES = 128 << 20
_METADATA_SHARE = 16
_LEAST_SIZE_BYTES = 512 << 20
_METADATA, _RESERVE = 1 << 2, 1 << 49
_TWO_COPIES = 1 << 4 | 1 << 5 | 1 << 6  # RAID1, DUP, RAID10


@dataclass(frozen=True, slots=True)
class Space:
    """`free_bytes` is what data may still take; `metadata_free_bytes` what names, owners and snapshots may take."""

    size_bytes: int
    free_bytes: int
    metadata_free_bytes: int


@dataclass(frozen=True, slots=True)
class Chunks:
    """What was handed out to one use, in bytes of content. `copies`: how often each byte lies on the device."""

    kind: int
    total_bytes: int
    used_bytes: int
    copies: int


def space(path: Path) -> Space:
    """Two system calls: some microseconds."""
    found = os.statvfs(path)
    size = found.f_blocks * found.f_frsize
    free = found.f_bavail * found.f_frsize
    return Space(size, free, metadata_free(size, _chunks(path)))


def metadata_free(size_bytes: int, chunks: Iterable[Chunks]) -> int:
    """What their chunks have left, and what is handed out to nobody yet.

    Less what the kernel keeps to be able to delete when all else is full: that is no room for us.
    """
    total = used = kept = handed_out = 0
    copies = 1
    for found in chunks:
        if found.kind & _RESERVE:
            kept += found.total_bytes
            continue
        handed_out += found.total_bytes * found.copies
        if found.kind & _METADATA:
            total, used, copies = found.total_bytes, found.used_bytes, found.copies
    return max(0, total - used - kept + max(0, size_bytes - handed_out) // copies)


def short_of_metadata(path: Path) -> bool:
    """Whether a pool should get its first real chunk for metadata now: with `btrfs balance start -m`, some 10 ms.

    mkfs makes one of 8 MiB, and data take the rest of the device chunk by chunk. Near the end writes then fail now and
    again though there is room (seen at 392 MiB of 512, and at 5.4 of 6 GiB). An early chunk of usual size prevents that.
    """
    found = os.statvfs(path)
    size = found.f_blocks * found.f_frsize
    chunks = _chunks(path)
    metadata = sum(c.total_bytes for c in chunks if c.kind & _METADATA)
    handed_out = sum(c.total_bytes * c.copies for c in chunks if not c.kind & _RESERVE)
    small = metadata < min(_METADATA_BYTES, size // _METADATA_SHARE)
    return small and size >= _LEAST_SIZE_BYTES and size - handed_out > size // 2


def _chunks(path: Path) -> list[Chunks]:
    args = bytearray(16 + 24 * _SLOTS)
    struct.pack_into("=QQ", args, 0, _SLOTS, 0)
    with opened_folder(path) as fd:
        fcntl.ioctl(fd, _SPACE_INFO, args)
    count = min(int(struct.unpack_from("=QQ", args)[1]), _SLOTS)
    slots = (struct.unpack_from("=QQQ", args, 16 + 24 * slot) for slot in range(count))
    return [
        Chunks(kind, total, used, 2 if kind & _TWO_COPIES else 1) for kind, total, used in slots
    ]


def grow(place: Path, device: str) -> bool:
    """Makes a btrfs of one device as large as that; while it is in use. False: it is already."""
    if devices.block_bytes(device) - _device_bytes(place) < _LEAST_GROWTH_BYTES:
        return False
    args = bytearray(4096)
    args[8:11] = b"max"
    with opened_folder(place) as fd:
        waiting.ioctl(fd, _RESIZE, args)
    return True


def _device_bytes(place: Path) -> int:
    """What btrfs uses of its first device."""
    args = bytearray(4096)
    struct.pack_into("=Q", args, 0, _FIRST_DEVICE)
    with opened_folder(place) as fd:
        fcntl.ioctl(fd, _DEV_INFO, args)
    return int(struct.unpack_from("=Q", args, 32)[0])
