"""Bytes in and out of a child's descriptors without blocking, and without more than a fixed amount in memory.

asyncio's own subprocess pipes are not used: with them `Process.wait()` waits for the pipes too, which survivors of the
command may hold for ever.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

from veagent.ports import Stream

PIECE_BYTES = 64 * 1024
HELD_BYTES = 256 * 1024
_LAST_BYTES = 1 << 20


class Output:
    """Reads descriptors (that it owns) as they have something, while at most `HELD_BYTES` wait for the consumer."""

    def __init__(self, sources: dict[int, Stream]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sources = dict(sources)
        self._pieces: deque[tuple[Stream, bytes]] = deque()
        self._held = 0
        self._paused = False
        self._finished = False
        self._wake = asyncio.Event()
        self.seen_bytes = 0
        for fd in self._sources:
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._readable, fd)

    async def pieces(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while True:
            while self._pieces:
                stream, data = self._pieces.popleft()
                self._held -= len(data)
                self._resume()
                yield stream, data
            if self._finished:
                return
            self._wake.clear()
            await self._wake.wait()

    def finish(self) -> None:
        """The command has ended: takes what it left in the pipes, then closes them whoever else holds their ends."""
        for fd in tuple(self._sources):
            self._loop.remove_reader(fd)
            taken = 0
            while fd in self._sources and taken < _LAST_BYTES and (size := self._take(fd)) > 0:
                taken += size
            self._close(fd)
        self._finished = True
        self._wake.set()

    def say(self, stream: Stream, data: bytes) -> None:
        """Adds a piece of our own."""
        self._add(stream, data)

    def _readable(self, fd: int) -> None:
        self._take(fd)
        if self._held >= HELD_BYTES and not self._paused:
            self._paused = True
            for source in self._sources:
                self._loop.remove_reader(source)

    def _resume(self) -> None:
        if self._paused and self._held < HELD_BYTES and not self._finished:
            self._paused = False
            for source in self._sources:
                self._loop.add_reader(source, self._readable, source)

    def _take(self, fd: int) -> int:
        """One read; at the end of the file the descriptor is closed. A pty's end is EIO."""
        try:
            data = os.read(fd, PIECE_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if data:
            self._add(self._sources[fd], data)
        else:
            self._close(fd)
        return len(data)

    def _add(self, stream: Stream, data: bytes) -> None:
        self._pieces.append((stream, data))
        self._held += len(data)
        self.seen_bytes += len(data)
        self._wake.set()

    def _close(self, fd: int) -> None:
        if self._sources.pop(fd, None) is not None:
            self._loop.remove_reader(fd)
            os.close(fd)


class Input:
    """Writes a descriptor (that it owns). What a command does not want to read any more is dropped."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._writable: asyncio.Future[None] | None = None
        os.set_blocking(fd, False)

    async def write(self, data: bytes) -> None:
        async with self._lock:
            rest = memoryview(data)
            while rest and self._fd >= 0:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    await self._until_writable()
                except OSError:
                    self.close()

    def close(self) -> None:
        """Ends the command's input; releases who waits to write."""
        if self._fd < 0:
            return
        self._loop.remove_writer(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._release()

    async def _until_writable(self) -> None:
        self._writable = self._loop.create_future()
        self._loop.add_writer(self._fd, self._release)
        try:
            await self._writable
        finally:
            if self._fd >= 0:
                self._loop.remove_writer(self._fd)

    def _release(self) -> None:
        if self._writable is not None and not self._writable.done():
            with suppress(asyncio.InvalidStateError):
                self._writable.set_result(None)
