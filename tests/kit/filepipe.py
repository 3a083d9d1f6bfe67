"""A stream of a person to `veagent.files`, without gRPC."""

import asyncio
from collections.abc import Iterable

from veapi.errors import Unavailable
from veapi.v1 import session_pb2


class FilePipe:
    """`sent`: frames that go down, then `end` unless `cut`. `data`: all chunks that came up."""

    def __init__(self, sent: Iterable[bytes] = (), *, cut: bool = False) -> None:
        self.gone = asyncio.Event()
        self.data = b""
        self.done = session_pb2.RelayUp()
        self._frames = [session_pb2.RelayDown(chunk=chunk) for chunk in sent]
        if not cut:
            self._frames.append(session_pb2.RelayDown(end=True))

    async def receive(self) -> session_pb2.RelayDown | None:
        return self._frames.pop(0) if self._frames else None

    async def send(self, frame: session_pb2.RelayUp) -> None:
        if self.gone.is_set():
            raise Unavailable("gone")
        if frame.WhichOneof("frame") == "chunk":
            self.data += frame.chunk
        elif frame.WhichOneof("frame") != "push_received_bytes":
            self.done = frame
