"""The block device that VEs' roots are on: limits of disk traffic name it by its number."""

import os
from dataclasses import dataclass
from pathlib import Path

_SYS = Path("/sys/dev/block")
_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Disk:
    """`number` as "7:1". `weights`: its scheduler divides it by weights."""

    number: str
    weights: bool = False


def disk_of(device: Path) -> Disk | None:
    """Of a device file, e.g. /dev/loop1 (its own number counts, not that of the disk below); None when it is none."""
    try:
        number = device.stat().st_rdev
    except OSError:
        return None
    text = f"{os.major(number)}:{os.minor(number)}"
    return Disk(text, weights=_has_weights(text)) if number else None


def disk_below(folder: Path) -> Disk | None:
    """Of the file system that holds the folder; None when it is on no block device, or on several."""
    return disk_of(Path(_source(str(folder))))


def _source(folder: str) -> str:
    """What is mounted where the folder is: by the longest mount point above it, and of equals by the last one."""
    found = ("", "")
    for line in _MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        point, source = before.split()[4], after.split()[1]
        inside = point in {"/", folder} or folder.startswith(f"{point}/")
        if inside and len(point) >= len(found[0]):
            found = (point, source)
    return found[1]


def _has_weights(number: str) -> bool:
    """A partition's scheduler is that of its disk."""
    folder = (_SYS / number).resolve()
    for queue in (folder / "queue", folder.parent / "queue"):
        try:
            return "[bfq]" in (queue / "scheduler").read_text()
        except OSError:
            continue
    return False
