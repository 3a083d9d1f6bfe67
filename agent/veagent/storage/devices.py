"""Block devices and mounts of a pool. A backing file never gets a second loop device: two would corrupt it."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from veapi.errors import Conflict, InvalidInput, Unavailable
from veapi.process import run
from veapi.units import format_size

log = structlog.get_logger()
_MKFS_TIMEOUT_S = 120.0
_MOUNT_TIMEOUT_S = 120.0
_PROGRAMS = {
    "mkfs.btrfs": "btrfs-progs",
    "btrfs": "btrfs-progs",
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
    return await probe(device)


async def probe(path: Path) -> str:
    """What a device or file holds (`btrfs`, `ext4`, `gpt` ...); empty when that is not known."""
    found = await run(["blkid", "-p", "-o", "export", str(path)], check=False)
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


async def check_file(path: Path, size_bytes: int) -> None:
    """Conflict unless the file can be the pool: a plain one with btrfs in it, and not larger than is asked for."""
    if not path.is_file():  # noqa: ASYNC240 - once, at setup
        raise Conflict(
            f"pool.path: {path} is no plain file", hint="name a file, or use another [pool] kind"
        )
    found = await probe(path)
    if found != "btrfs":
        raise Conflict(
            f"pool.path: {path} holds {found or 'no btrfs'} and not a pool; it is left as it is",
            hint="name another file in [pool] path; or move this one away, and a new one is made",
        )
    there = path.stat().st_size  # noqa: ASYNC240
    if there > size_bytes:
        raise Conflict(
            f"pool.size is {format_size(size_bytes)}, less than the pool {path} has ({format_size(there)}):"
            " a pool does not shrink",
            hint=f'set [pool] size to "{there}" or more; for a smaller one move its VEs away and begin anew',
        )


async def grow_file(path: Path, device: str, size_bytes: int) -> None:
    """Makes the file as large as that, if it is smaller, and its loop device as large as the file."""
    if path.stat().st_size < size_bytes:  # noqa: ASYNC240 - once, at setup
        os.truncate(path, size_bytes)
    await run(["losetup", "--set-capacity", device])


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
    _make_place(place)
    # Root of a VE is root on this disk: devices here mean nothing, and nobody but root may enter (see pool).
    argv = ["mount", "-t", "btrfs", "-o", "noatime,nodev", device, str(place)]
    done = await run(argv, timeout_s=_MOUNT_TIMEOUT_S, check=False)
    if done.code != 0:
        words = done.stderr.decode(errors="replace").strip()
        raise Unavailable(
            f"can't mount the pool {device} at {place}: {words}",
            hint="if it holds no btrfs, move it away and it is made anew; else see `dmesg` and `btrfs check`",
        )


def block_bytes(device: str) -> int:
    """Size of a block device."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def _make_place(place: Path) -> None:
    """Conflict when the mount would hide something."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        hidden = next(place.iterdir(), None)
    except (FileExistsError, NotADirectoryError):
        raise Conflict(
            f"pool.mount: {place} is no folder", hint="name a folder in [pool] mount"
        ) from None
    if hidden is not None:
        raise Conflict(
            f"pool.mount: {place} is not empty (there is {hidden.name[:64]!r}), and the pool would hide it",
            hint="move what is there away, or set another [pool] mount",
        )


async def give_metadata_room(place: Path) -> None:
    """See `space.short_of_metadata`. Without it the pool works too: a failure is logged alone."""
    argv = ["btrfs", "balance", "start", "-m", str(place)]
    done = await run(argv, timeout_s=_MOUNT_TIMEOUT_S, check=False)
    if done.code != 0:
        log.warning("pool got no room for metadata", error=done.stderr.decode(errors="replace"))


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


def write_durably(path: Path, content: bytes) -> None:
    """Replaces the file; it is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)
