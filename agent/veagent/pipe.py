"""One dialled-back stream, as frames.

A read of a gRPC stream must never be cancelled: that cancels the whole call, with what was written and not yet sent. So
one task reads, into a queue that is short enough for the stream's own backpressure to work.
"""

import asyncio
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

    def __init__(self, call: "Call") -> None:
        self._call = call
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
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def send(self, frame: session_pb2.RelayUp) -> None:
        """Raises AioRpcError or Unavailable when the other side is gone."""
        async with self._lock:
            await write(self._call, frame, timeout_s=WRITE_LIMIT_S)

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
                await self._frames.put(frame)
        await self._frames.put(None)
