"""Block devices and mounts of a pool. A backing file never gets a second loop device: two would corrupt it."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from veapi.errors import Conflict, InvalidInput, Unavailable
from veapi.process import run

_MKFS_TIMEOUT_S = 120.0
_MOUNT_TIMEOUT_S = 120.0
_PROGRAMS = {
    "mkfs.btrfs": "btrfs-progs",
    "losetup": "mount",
    "mount": "mount",
    "blkid": "util-linux",
    "tar": "tar",
}
_OCTAL = re.compile(r"\\([0-7]{3})")


def need_programs() -> None:
    """Unavailable, with the package's name, when the host lacks one."""
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise Unavailable(
                f"the program {program} is missing on this host", hint=f"apt install {package}"
            )


@contextmanager
def only_one(record: Path) -> Iterator[None]:
    """Keeps two programs from attaching the same file at once; Conflict while another one does."""
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.with_name(f"{record.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                "another program is setting up this pool", hint="does a second veagent run here?"
            ) from None
        yield


@dataclass(frozen=True, slots=True)
class Mounted:
    """What is mounted at a place of this mount namespace."""

    kind: str
    source: str


def parse_mountinfo(lines: Iterable[str], place: Path) -> Mounted | None:
    """The topmost mount at `place`; lines as of proc(5)."""
    found = None
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        if len(fields) > 4 and len(tail) >= 2 and _unescape(fields[4]) == str(place):
            found = Mounted(tail[0], _unescape(tail[1]))
    return found


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def mounted_at(place: Path) -> Mounted | None:
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as lines:
        return parse_mountinfo(lines, place.resolve())


async def make_file(path: Path, size_bytes: int) -> None:
    """A sparse file with btrfs in it, under its name only when it is whole."""
    draft = path.with_name(f"{path.name}.new")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft.unlink(missing_ok=True)
    with draft.open("xb") as file:
        file.truncate(size_bytes)
        os.fchmod(file.fileno(), 0o600)
    # One copy of the metadata: what the file lies on already answers for its blocks.
    await run(["mkfs.btrfs", "-q", "-m", "single", str(draft)], timeout_s=_MKFS_TIMEOUT_S)
    draft.replace(path)
    sync_folder(path.parent)


async def make_on_device(device: Path) -> None:
    """Makes btrfs on an empty device; Conflict when anything is on it."""
    if await signature(device):
        raise Conflict(
            f"{device} is not empty",
            hint=f"the pool takes only an empty device; if nothing on it counts: wipefs -a {device}",
        )
    await run(["mkfs.btrfs", "-q", str(device)], timeout_s=_MKFS_TIMEOUT_S)


async def signature(device: Path) -> str:
    """What is on it (`btrfs`, `ext4`, `gpt` ...); empty for a blank one."""
    if not device.is_block_device():  # noqa: ASYNC240 - a look at /dev does not block
        raise InvalidInput(f"pool.path: {device} is no block device", hint="check [pool] path")
    argv = ["blkid", "-p", "-o", "export", str(device)]
    found = await run(argv, check=False)
    fields = dict(line.split("=", 1) for line in found.stdout.decode().splitlines() if "=" in line)
    return fields.get("TYPE") or fields.get("PTTYPE") or ""


async def loop_device(path: Path) -> str | None:
    """The loop device of that very file (by inode), if it has one."""
    found = await run(["losetup", "-j", str(path), "--output", "NAME", "--noheadings"])
    names = found.stdout.decode().split()
    return names[0] if names else None


async def attach_loop(path: Path) -> str:
    """The file's loop device: the one that it has, else a new one."""
    found = await loop_device(path)
    if found is not None:
        return found
    # Direct I/O spares caching everything twice; not every file system under the file can do it.
    argv = ["losetup", "--find", "--show", str(path)]
    direct = await run([*argv[:1], "--direct-io=on", *argv[1:]], check=False)
    if direct.code == 0:
        return direct.stdout.decode().strip()
    return await loop_device(path) or (await run([*argv[:1], *argv[1:]])).stdout.decode().strip()


async def detach_loop(device: str) -> None:
    await run(["losetup", "--detach", device])


async def grow_file(path: Path, device: str, size_bytes: int) -> bool:
    """Makes the file and its loop device larger; never smaller. True when it changed something."""
    if path.stat().st_size >= size_bytes:  # noqa: ASYNC240 - once, at setup
        return False
    os.truncate(path, size_bytes)
    await run(["losetup", "--set-capacity", device])
    return True


async def mount(device: str, place: Path) -> None:
    """Mounts btrfs there, unless this mount namespace has it there already. Conflict when something else is there."""
    found = mounted_at(place)
    if found is not None:
        if (found.kind, found.source) == ("btrfs", device):
            return
        raise Conflict(
            f"{found.source} ({found.kind}) is mounted at {place}, not the pool {device}",
            hint=f"unmount it, or set another [pool] mount than {place}",
        )
    place.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once, at setup
    # Root of a VE is root on this disk: devices here mean nothing, and nobody but root may enter (see pool).
    argv = ["mount", "-t", "btrfs", "-o", "noatime,nodev", device, str(place)]
    done = await run(argv, timeout_s=_MOUNT_TIMEOUT_S, check=False)
    if done.code != 0:
        words = done.stderr.decode(errors="replace").strip()
        raise Unavailable(
            f"can't mount the pool {device} at {place}: {words}",
            hint="if it holds no btrfs, move it away and it is made anew; else see `dmesg` and `btrfs check`",
        )


async def unmount(place: Path) -> None:
    """Nothing when nothing is mounted there."""
    if mounted_at(place) is not None:
        await run(["umount", str(place)], timeout_s=_MOUNT_TIMEOUT_S)


def sync_folder(path: Path) -> None:
    """Names in the folder survive a power loss."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
