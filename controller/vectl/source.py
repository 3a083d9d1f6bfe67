"""Where the bytes of an image come from: a file as it is, or a folder through `tar`."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from veapi.errors import InvalidInput, RemoteFailed

CHUNK_BYTES = 1 << 20
# The same folder gives the same bytes: sorted, numeric ids, no times of access or of change, no process id in names.
TAR = (
    "tar",
    "--create",
    "--sort=name",
    "--numeric-owner",
    "--format=posix",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
    "--xattrs",
    "--xattrs-include=security.capability",
    "--one-file-system",
)


def open_source(path: Path) -> tuple[AsyncIterator[bytes], int]:
    """Chunks of at most 1 MiB, and how many bytes will come (0: not known). InvalidInput when it can't be read."""
    if path.is_dir():
        return _folder(path), 0
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InvalidInput(
            f"can't read {path}: {error.strerror}", hint="give a tarball or a folder"
        ) from None
    if not path.is_file() or not os.access(path, os.R_OK):
        raise InvalidInput(
            f"can't read {path}: no file of yours", hint="give a tarball or a folder"
        )
    if not size:
        raise InvalidInput(f"{path} is empty", hint="give a root file system as tar, gz, xz or zst")
    return _file(path), size


async def _file(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            yield data


async def _folder(path: Path) -> AsyncIterator[bytes]:
    """A failed tar raises RemoteFailed, so that no half image is taken for a whole one."""
    process = await asyncio.create_subprocess_exec(
        *TAR,
        f"--directory={path}",
        ".",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        limit=CHUNK_BYTES,
    )
    assert process.stdout is not None
    try:
        while data := await process.stdout.read(CHUNK_BYTES):
            yield data
        if await process.wait() != 0:
            raise RemoteFailed(
                f"tar could not read all of {path}",
                hint="see what it said above; run vectl as the owner of the files",
            )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
