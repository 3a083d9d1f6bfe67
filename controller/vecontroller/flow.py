"""One direction of a stream: a queue that is bounded in bytes, and that can be ended from either side."""

import asyncio
from collections import deque
from typing import Generic, Protocol, TypeVar

from veapi.errors import Unavailable, VerackError


class Sized(Protocol):
    """A protobuf message."""

    def ByteSize(self) -> int: ...  # noqa: N802


M = TypeVar("M", bound=Sized)


class Flow(Generic[M]):
    """For one sender and one receiver. A message that is larger than the limit passes alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held: deque[M] = deque()
        self._held_bytes = 0
        self._ended = False
        self._error: VerackError | None = None
        self._changed = asyncio.Event()

    async def put(self, message: M) -> None:
        """Waits while it is full. Unavailable when it has ended."""
        while not self._ended and self._held_bytes >= self._limit_bytes:
            await self._change()
        if self._ended:
            raise self._error or Unavailable("the stream has ended")
        self._held.append(message)
        self._held_bytes += message.ByteSize()
        self._changed.set()

    async def get(self) -> M | None:
        """The next message; None after the last one, or the error with which it was ended."""
        while not self._held and not self._ended:
            await self._change()
        if self._held:
            message = self._held.popleft()
            self._held_bytes -= message.ByteSize()
            self._changed.set()
            return message
        if self._error is not None:
            raise self._error
        return None

    def end(self, error: VerackError | None = None) -> None:
        """No more will come; what is held can still be had. The first end counts."""
        if not self._ended:
            self._ended, self._error = True, error
            self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
