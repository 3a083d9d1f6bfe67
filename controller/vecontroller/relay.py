"""Streams between a person and a host: the controller asks the agent to dial back, and splices.

A ticket is 128 random bits, for one host, one use and 60 s, kept in memory only. Each direction holds at most 1 MiB, then
its sender waits. A host has at most 64 streams at once, so that streams never crowd out its session.

An agent whose command does not take its stdin reads no more, and would not see that the person has gone: the end of a
stream comes after all that waits in it. So it may dial a second time with the ticket of its open stream, and gets a
stream that says nothing and ends with the first.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import structlog

from veapi.clock import Clock
from veapi.codec import to_timestamp
from veapi.errors import Denied, Unavailable, VerackError
from veapi.model import HostName
from veapi.v1 import session_pb2
from vecontroller.flow import Flow

log = structlog.get_logger()
BUFFER_BYTES = 1 << 20
DIAL_BACK_WITHIN_S = 5.0
TICKET_LIFE_S = 60.0
RELAYS_PER_HOST = 64

Tell = Callable[[HostName, session_pb2.SessionDown], bool]
"""Sends a message down a host's session; False when it has none."""


class RelayPipe:
    """The person's end of a stream to a host. Whoever opened it closes it."""

    def __init__(self, host: HostName, released: Callable[[], None]) -> None:
        self.host = host
        self._released = released
        self.up: Flow[session_pb2.RelayUp] = Flow(BUFFER_BYTES)
        self.down: Flow[session_pb2.RelayDown] = Flow(BUFFER_BYTES)
        self.attached = asyncio.Event()
        self.closed = asyncio.Event()
        self.watched = False
        self._open = True

    async def send(self, message: session_pb2.RelayDown) -> None:
        """Waits while the host is slower than we are. Unavailable when the stream has ended."""
        await self.down.put(message)

    async def receive(self) -> session_pb2.RelayUp | None:
        """None when the host has ended the stream. Unavailable when it broke."""
        return await self.up.get()

    def close(self, error: VerackError | None = None) -> None:
        """Ends both directions; what is on its way to the host still goes. Again: nothing."""
        self.up.end(error)
        self.down.end()
        if self._open:
            self._open = False
            self.closed.set()
            self._released()


class Relays:
    """All streams of this controller, those that wait for their host included."""

    def __init__(self, tell: Tell, clock: Clock, *, new_ticket: Callable[[], bytes]) -> None:
        self._tell = tell
        self._clock = clock
        self._new_ticket = new_ticket
        self._waiting: dict[bytes, RelayPipe] = {}
        self._attached: dict[bytes, RelayPipe] = {}
        self._open: Counter[HostName] = Counter()

    def open_count(self) -> int:
        """Streams that are open or being opened, over all hosts."""
        return self._open.total()

    async def open(self, host: HostName, first: session_pb2.RelayDown) -> RelayPipe:
        """A stream to the host that begins with `first`. Unavailable when it does not dial back within 5 s."""
        ticket = self._new_ticket()
        pipe = self._new_pipe(host, ticket)
        self._waiting[ticket] = pipe
        try:
            self._ask(host, ticket)
            await pipe.send(first)
            async with asyncio.timeout(DIAL_BACK_WITHIN_S):
                await pipe.attached.wait()
        except TimeoutError:
            pipe.close()
            raise Unavailable(
                f"host {host} did not open the stream within {DIAL_BACK_WITHIN_S:g} s",
                hint=f"look at `vectl host show {host}`, and at the log of its veagent",
            ) from None
        except BaseException:
            pipe.close()
            raise
        finally:
            self._waiting.pop(ticket, None)
        return pipe

    async def serve(
        self, host: HostName, requests: AsyncIterator[session_pb2.RelayUp]
    ) -> AsyncGenerator[session_pb2.RelayDown, None]:
        """The host's end: what goes down to it. Denied for a ticket that is not this host's, or too old.

        With that of its open stream: nothing, until that one is over.
        """
        try:
            async with asyncio.timeout(DIAL_BACK_WITHIN_S):
                first = await anext(requests, None)
        except TimeoutError:
            first = None
        ticket = first.ticket if first is not None else b""
        if self._may_watch(host, ticket):
            await _until_closed(self._attached[ticket])
            return
        pipe = self._redeem(host, ticket)
        reading = asyncio.ensure_future(_pump(requests, pipe))
        try:
            while (message := await pipe.down.get()) is not None:
                yield message
        finally:
            reading.cancel()
            pipe.close(_BROKEN)
            await asyncio.gather(reading, return_exceptions=True)

    def _new_pipe(self, host: HostName, ticket: bytes) -> RelayPipe:
        if self._open[host] >= RELAYS_PER_HOST:
            raise Unavailable(
                f"host {host} has {RELAYS_PER_HOST} streams open, which is the limit",
                hint="end some exec or logs sessions, then try again",
            )
        self._open[host] += 1
        return RelayPipe(host, lambda: self._release(host, ticket))

    def _release(self, host: HostName, ticket: bytes) -> None:
        self._attached.pop(ticket, None)
        self._open[host] -= 1
        if not self._open[host]:
            del self._open[host]

    def _ask(self, host: HostName, ticket: bytes) -> None:
        dial_back = session_pb2.DialBack(
            ticket=ticket, expires_at=to_timestamp(self._clock.wall() + TICKET_LIFE_S)
        )
        if not self._tell(host, session_pb2.SessionDown(dial_back=dial_back)):
            raise Unavailable(
                f"host {host} is not connected", hint="look at `vectl host list`, then try again"
            )

    def _may_watch(self, host: HostName, ticket: bytes) -> bool:
        """Its own stream is open, and has nobody who watches it."""
        pipe = self._attached.get(ticket)
        return pipe is not None and pipe.host == host and not pipe.watched

    def _redeem(self, host: HostName, ticket: bytes) -> RelayPipe:
        pipe = self._waiting.get(ticket)
        if pipe is None or pipe.host != host:
            log.warning("relay with a bad ticket", host=host)
            raise Denied("this ticket is not valid", hint="tickets are for one host and one use")
        self._attached[ticket] = self._waiting.pop(ticket)
        pipe.attached.set()
        return pipe


async def _until_closed(pipe: RelayPipe) -> None:
    pipe.watched = True
    try:
        await pipe.closed.wait()
    finally:
        pipe.watched = False


_BROKEN = Unavailable("the stream to the host broke", hint="try again")


async def _pump(requests: AsyncIterator[session_pb2.RelayUp], pipe: RelayPipe) -> None:
    """What comes up from the host, until it ends it; then nothing goes down either."""
    try:
        async for message in requests:
            await pipe.up.put(message)
        pipe.close()
    except Unavailable:
        pass  # the person has gone
    finally:
        pipe.close(_BROKEN)
