"""Pools on loop files, and images for them. Whatever happens, mount and loop device are gone afterwards."""

import contextlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from veagent.storage.images import BtrfsImages, ImageLimits
from veagent.storage.pool import BtrfsPool, PoolSettings
from veagent.storage.roots import BtrfsRoots
from veapi.clock import Clock
from veapi.model import Uid

ID_BASE = 1_900_000_000
POOL_BYTES = 2 << 30
UID = Uid("7e57aaaa-0000-4000-8000-000000000001")
OTHER_UID = Uid("7e57aaaa-0000-4000-8000-000000000002")
MIB = 1 << 20


@dataclass
class Storage:
    """One process's view of a host's storage; make another on the same folder for a restarted agent."""

    pool: BtrfsPool
    roots: BtrfsRoots
    images: BtrfsImages


def settings(folder: Path) -> PoolSettings:
    return PoolSettings(
        kind="loop", path=folder / "pool.img", size_bytes=POOL_BYTES, mount=folder / "pool"
    )


def make_storage(
    folder: Path, limits: ImageLimits | None = None, clock: Clock | None = None
) -> Storage:
    pool = BtrfsPool(settings(folder), clock=clock)
    images = BtrfsImages(pool, id_base=ID_BASE, limits=limits)
    return Storage(pool, BtrfsRoots(pool, clock=clock), images)


@contextmanager
def storage_folder(folder: Path) -> Iterator[Path]:
    """A folder for a pool; unmounts and detaches at the end, whoever mounted."""
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        release(folder)


def release(folder: Path) -> None:
    image, mount = folder / "pool.img", folder / "pool"
    while subprocess.run(["mountpoint", "-q", mount], check=False).returncode == 0:
        subprocess.run(["umount", "-l", mount], check=True)
    for device in loop_devices(image):
        subprocess.run(["losetup", "-d", device], check=True)


def loop_devices(image: Path) -> list[str]:
    if not image.exists():
        return []
    listed = subprocess.run(
        ["losetup", "-j", image, "-nO", "NAME"], check=True, capture_output=True, text=True
    )
    return listed.stdout.split()


def dies(script: str, *args: object) -> None:
    """Runs a Python script that kills itself half way, with SIGKILL."""
    tests = Path(__file__).resolve().parents[1]
    argv = [sys.executable, "-c", script, *map(str, args)]
    child = subprocess.run(
        argv, check=False, capture_output=True, env={**os.environ, "PYTHONPATH": str(tests)}
    )
    assert child.returncode == -9, child.stderr.decode()


@dataclass(frozen=True)
class Member:
    """One entry of a hand-made tar; `kind` and `target` as of tarfile."""

    name: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    mode: int = 0o644
    uid: int = 0
    device: tuple[int, int] = (1, 3)


def folder(name: str) -> Member:
    return Member(name, kind=tarfile.DIRTYPE, mode=0o755)


def link(name: str, target: str) -> Member:
    return Member(name, kind=tarfile.SYMTYPE, target=target)


INIT = Member("sbin/init", b"#!/bin/sh\n", mode=0o755)
BASE = (folder("etc"), folder("sbin"), INIT)


def tar_of(members: Iterable[Member] = BASE) -> bytes:
    """A tar with exactly these members, also those that no honest program writes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.linkname, info.mode = member.kind, member.target, member.mode
            info.devmajor, info.devminor = member.device
            info.size, info.uid, info.gid = len(member.content), member.uid, member.uid
            tar.addfile(info, io.BytesIO(member.content))
    return out.getvalue()


def pack(content: bytes, *argv: str) -> bytes:
    """`content` through a program, e.g. gzip -c."""
    return subprocess.run(argv, input=content, check=True, capture_output=True).stdout


async def stream(content: bytes, piece_bytes: int = 200_000) -> AsyncIterator[bytes]:
    for at in range(0, len(content), piece_bytes):
        yield content[at : at + piece_bytes]


def everything_below(place: Path) -> set[str]:
    """Names of all that is there, for finding what should not be."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        found = {str(path.relative_to(place)) for path in place.rglob("*")}
    return found
