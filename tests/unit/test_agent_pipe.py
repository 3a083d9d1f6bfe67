"""A stream to a person: who is cancelled while he sends does not end it for those who still have something to say."""

import asyncio
from collections.abc import Callable

import pytest

from veagent.pipe import Pipe
from veapi.v1 import session_pb2


class Call:
    """As gRPC's: a write or read that is cancelled ends the whole call."""

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.over = False
        self.written: list[session_pb2.RelayUp] = []

    async def write(self, frame: session_pb2.RelayUp) -> None:
        if self.over:
            raise asyncio.InvalidStateError
        try:
            await self.room.wait()
        except asyncio.CancelledError:
            self.over = True
            raise
        self.written.append(frame)

    async def read(self) -> None:
        await asyncio.Event().wait()

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        del callback

    def cancel(self) -> None:
        self.over = True


async def test_a_cancelled_send_is_let_end_and_the_failure_follows_it() -> None:
    call = Call()
    async with Pipe(call, asyncio.Event().wait) as pipe:  # type: ignore[arg-type]
        progress = asyncio.create_task(pipe.send(session_pb2.RelayUp(push_received_bytes=7)))
        await asyncio.sleep(0)
        progress.cancel()
        await asyncio.sleep(0)
        call.room.set()
        with pytest.raises(asyncio.CancelledError):
            await progress
        await pipe.send(session_pb2.RelayUp(end=True))
    assert [frame.WhichOneof("frame") for frame in call.written] == ["push_received_bytes", "end"]
