"""A VE's console log over a stream: its last lines, then what is added.

The bytes are the VE's own, control characters and all: whoever shows them to a terminal cleans them.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from veagent.pipe import Pipe
from veapi.v1 import session_pb2

PIECE_BYTES = 64 << 10
LOOK_AGAIN_S = 0.2
_SCAN_LIMIT_BYTES = 8 << 20


async def serve_logs(pipe: Pipe, path: Path, asked: session_pb2.RelayLogs) -> None:
    """All or the last `tail` lines; with `follow` also what comes, until the other side ends."""
    await _send_all(pipe, path, tail=asked.tail, follow=asked.follow)
    await pipe.send(session_pb2.RelayUp(end=True))


async def _send_all(pipe: Pipe, path: Path, *, tail: int, follow: bool) -> None:
    sender = asyncio.create_task(_send(pipe, read_console(path, tail=tail, follow=follow)))
    gone = asyncio.create_task(_until_gone(pipe))
    try:
        await asyncio.wait((sender, gone), return_when=asyncio.FIRST_COMPLETED)
        if sender.done():
            await sender
    finally:
        for task in (sender, gone):
            task.cancel()
        await asyncio.gather(sender, gone, return_exceptions=True)


async def _send(pipe: Pipe, pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        await pipe.send(session_pb2.RelayUp(log=piece))


async def _until_gone(pipe: Pipe) -> None:
    while (frame := await pipe.receive()) is not None and frame.WhichOneof("frame") != "end":
        pass


async def read_console(path: Path, *, tail: int, follow: bool) -> AsyncIterator[bytes]:
    """Pieces of at most 64 KiB. Follows the name through rotation and truncation; looks again every 0.2 s."""
    file = _open(path)
    try:
        if file is not None and tail > 0:
            file.seek(tail_offset(file, tail))
        while True:
            stale = file is None or _replaced(
                file, path
            )  # asked first: what the old one got last is read
            while file is not None and (piece := file.read(PIECE_BYTES)):
                yield piece
            if stale and (fresh := _open(path)) is not None:
                file = _exchange(file, fresh)
                continue
            if not follow:
                return
            await asyncio.sleep(LOOK_AGAIN_S)
    finally:
        if file is not None:
            file.close()


def tail_offset(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` lines begin, looking at the last 8 MiB at most."""
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - _SCAN_LIMIT_BYTES)
    position, found = end, 0
    while position > start:
        size = min(PIECE_BYTES, position - start)
        position -= size
        file.seek(position)
        block = file.read(size)
        if position + size == end and block.endswith(b"\n"):
            block = block[:-1]
        while (index := block.rfind(b"\n")) >= 0:
            found += 1
            if found == lines:
                return position + index + 1
            block = block[:index]
    return start


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except OSError:
        return None


def _replaced(file: BinaryIO, path: Path) -> bool:
    """Another file has the name now, or this one was cut."""
    here = os.fstat(file.fileno())
    try:
        there = path.stat()
    except OSError:
        return False
    return there.st_ino != here.st_ino or here.st_size < file.tell()


def _exchange(old: BinaryIO | None, fresh: BinaryIO) -> BinaryIO:
    if old is not None:
        old.close()
    return fresh
