"""One dialled-back stream, as frames."""

import asyncio
from typing import TYPE_CHECKING

from veapi.errors import Unavailable
from veapi.v1 import session_pb2

if TYPE_CHECKING:
    import grpc.aio

    Call = grpc.aio.StreamStreamCall[session_pb2.RelayUp, session_pb2.RelayDown]

WRITE_LIMIT_S = 600.0
END_LIMIT_S = 10.0


class Pipe:
    """Frames up and down. A write waits while the reader is slow, for 10 minutes at most."""

    def __init__(self, call: "Call") -> None:
        self._call = call
        self._lock = asyncio.Lock()

    async def send(self, frame: session_pb2.RelayUp) -> None:
        """Raises AioRpcError when the other side is gone."""
        try:
            async with asyncio.timeout(WRITE_LIMIT_S), self._lock:
                await self._call.write(frame)
        except TimeoutError:
            raise Unavailable("the reader of this stream takes nothing") from None

    async def receive(self) -> session_pb2.RelayDown | None:
        """None: the other side sends no more, or is gone."""
        frame = await self._call.read()
        return frame if isinstance(frame, session_pb2.RelayDown) else None

    async def finish(self) -> None:
        """All was sent: waits until the other side has taken it and ends the call."""
        await self._call.done_writing()
        async with asyncio.timeout(END_LIMIT_S):
            while await self.receive() is not None:
                pass
