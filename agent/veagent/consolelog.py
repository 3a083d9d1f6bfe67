"""A VE's console log over a stream: what is kept of it, then what is added.

LXC keeps two files: `console`, and `console.1` with what was before. The bytes are the VE's own, control characters and
all: whoever shows them to a terminal cleans them.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from veagent.consolemarks import offset_since, read_marks, rotated
from veagent.inotify import CREATED, MODIFY, MOVED_HERE, Inotify
from veagent.pipe import Pipe
from veapi.v1 import session_pb2

PIECE_BYTES = 64 << 10
LOOK_AGAIN_S = 2.0
"""Without any event: a folder that is not there yet can't be watched."""
PAUSE_S = 0.02
"""Between two looks at a console that never stops."""
_SCAN_LIMIT_BYTES = 8 << 20
_OPEN_TRIES = 5


async def serve_logs(pipe: Pipe, path: Path, asked: session_pb2.RelayLogs) -> None:
    """All, or the last `tail` lines of what was written `since`; with `follow` also what comes, until the other side ends."""
    since = asked.since.ToNanoseconds() / 1e9 if asked.HasField("since") else 0.0
    pieces = read_console(path, tail=asked.tail, since=since, follow=asked.follow)
    await _send_all(pipe, pieces)
    await pipe.send(session_pb2.RelayUp(end=True))


async def _send_all(pipe: Pipe, pieces: AsyncIterator[bytes]) -> None:
    sender = asyncio.create_task(_send(pipe, pieces))
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


async def read_console(
    path: Path,
    *,
    tail: int = 0,
    since: float = 0.0,
    follow: bool,
    until: asyncio.Event | None = None,
) -> AsyncIterator[bytes]:
    """Pieces of at most 64 KiB, through rotation and truncation. What is rotated away twice before it was read is lost.

    With `follow` for ever, or until `until` is set and all that is there was read.
    """
    until = until or asyncio.Event()
    console = _Console(path)
    try:
        console.open()
        console.skip(tail=tail, since=since)
        with _Changes(path.parent) as changes:
            while True:
                changes.clear()
                last = not follow or until.is_set()
                while piece := console.read():
                    yield piece
                if last:
                    return
                await changes.wait(until)
    finally:
        console.close()


class _Changes:
    """Something may have changed in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._event = asyncio.Event()
        self._inotify = Inotify(lambda _: self._event.set())
        self._watched = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._inotify.close()

    def clear(self) -> None:
        self._event.clear()
        if not self._watched:
            with suppress(OSError):
                self._inotify.add(self._folder, MODIFY | CREATED | MOVED_HERE)
                self._watched = True

    async def wait(self, until: asyncio.Event) -> None:
        """For a change, or for `until`."""
        waits = [asyncio.create_task(event.wait()) for event in (self._event, until)]
        try:
            await asyncio.wait(waits, timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        await asyncio.sleep(PAUSE_S)


class _Console:
    """The files of a log that are still to be read, oldest first; the last one may grow."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: list[BinaryIO] = []
        self._last = 0

    def open(self) -> None:
        """Both, as they belong together."""
        for _ in range(_OPEN_TRIES):
            newer, older = _open(self._path), _open(rotated(self._path))
            if newer is None or older is None or _inode(newer) != _inode(older):
                self._files = [file for file in (older, newer) if file is not None]
                return
            newer.close()  # renamed between
            older.close()

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files = []

    def skip(self, *, tail: int, since: float) -> None:
        marks = read_marks(self._path) if since else []
        for file in self._files:
            found = os.fstat(file.fileno())
            at = offset_since(
                marks,
                inode=found.st_ino,
                size=found.st_size,
                changed_at=found.st_mtime,
                since=since,
            )
            file.seek(at)
        left = tail
        for file in reversed(self._files if tail > 0 else []):
            left = _skip_to_tail(file, left)

    def read(self) -> bytes:
        """The next piece; empty when all that is there was read."""
        while True:
            stale = self._stale()  # asked first: what the old one got last is read
            while self._files:
                if piece := self._files[0].read(PIECE_BYTES):
                    return piece
                if len(self._files) == 1 and not stale:
                    return b""
                self._last = _inode(self._files[0])
                self._files.pop(0).close()
            if not stale or not self._open_later():
                return b""

    def _stale(self) -> bool:
        """Whether another file has the name now than the last one that is open."""
        try:
            there = self._path.stat()
        except OSError:
            return False
        if not self._files:
            return there.st_ino != self._last
        last = self._files[-1]
        if there.st_ino == _inode(last) and there.st_size < last.tell():
            last.seek(0)  # it was cut
        return there.st_ino != _inode(last)

    def _open_later(self) -> bool:
        """What came after the last one that was read."""
        self.open()
        inodes = [_inode(file) for file in self._files]
        known = inodes.index(self._last) + 1 if self._last in inodes else 0
        for file in self._files[:known]:
            file.close()
        self._files = self._files[known:]
        return bool(self._files)


def _skip_to_tail(file: BinaryIO, lines: int) -> int:
    """Goes forward to where the last `lines` lines begin; how many are to be found in the file before."""
    at = file.tell()
    if lines <= 0:
        file.seek(0, os.SEEK_END)
        return 0
    begin, found = tail_offset(file, lines)
    file.seek(max(at, begin))
    return lines - found if begin <= at else 0


def tail_offset(file: BinaryIO, lines: int) -> tuple[int, int]:
    """Where the last `lines` lines begin, and how many there are, looking at the last 8 MiB at most."""
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
                return position + index + 1, lines
            block = block[:index]
    return start, found + 1 if end > start else 0


def _inode(file: BinaryIO | None) -> int:
    return os.fstat(file.fileno()).st_ino if file is not None else 0


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except OSError:
        return None
