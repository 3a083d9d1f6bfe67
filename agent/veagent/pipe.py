"""One dialled-back stream, as frames.

A read of a gRPC stream must never be cancelled: that cancels the whole call, with what was written and not yet sent. So
one task reads, into a queue that is short enough for the stream's own backpressure to work. A write is the same: it is always
let end.

Who reads no more does not see the end either: it comes after all that waits to be read. So when the queue is full, the
end is watched for in another way.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import grpc.aio

from veagent.wire import write
from veapi.v1 import session_pb2

if TYPE_CHECKING:
    Call = grpc.aio.StreamStreamCall[session_pb2.RelayUp, session_pb2.RelayDown]

WRITE_LIMIT_S = 600.0
END_LIMIT_S = 10.0
_FRAMES_AHEAD = 4


class Pipe:
    """Frames up and down. A write waits while the reader is slow, for 10 minutes at most. Use as a context."""

    def __init__(self, call: "Call", until_over: Callable[[], Awaitable[None]]) -> None:
        """`until_over` returns when the other side has ended the stream, whatever waits in it; asked once at most."""
        self._call = call
        self._until_over = until_over
        self._watch: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._frames: asyncio.Queue[session_pb2.RelayDown | None] = asyncio.Queue(_FRAMES_AHEAD)
        self._reader: asyncio.Task[None] | None = None
        self.gone = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._reader = asyncio.create_task(self._read(), name="relay-reader")
        self._call.add_done_callback(lambda _: self.gone.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()
        tasks = [task for task in (self._reader, self._watch) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def send(self, frame: session_pb2.RelayUp) -> None:
        """Raises AioRpcError or Unavailable when the other side is gone.

        Who is cancelled while he sends has sent: a write that is cancelled would end the whole call, and with it the word why.
        """
        async with self._lock:
            writing = asyncio.ensure_future(write(self._call, frame, timeout_s=WRITE_LIMIT_S))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await asyncio.wait([writing], timeout=END_LIMIT_S)
                writing.cancel()
                raise

    async def receive(self) -> session_pb2.RelayDown | None:
        """None: the other side sends no more, or is gone; then nothing more may be received."""
        return await self._frames.get()

    async def finish(self) -> None:
        """All was sent: waits until the other side has taken it and ends the call."""
        with suppress(TimeoutError, asyncio.InvalidStateError):
            await self._call.done_writing()
            async with asyncio.timeout(END_LIMIT_S):
                await self.gone.wait()

    async def _read(self) -> None:
        with suppress(grpc.aio.AioRpcError):
            while isinstance(frame := await self._call.read(), session_pb2.RelayDown):
                if self._frames.full() and self._watch is None:
                    self._watch = asyncio.create_task(self._see_the_end(), name="relay-watch")
                await self._frames.put(frame)
        await self._frames.put(None)

    async def _see_the_end(self) -> None:
        await self._until_over()
        self.gone.set()
