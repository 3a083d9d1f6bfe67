"""The controller's end of one host's session: what goes down to the agent, in which order.

The host's set is never queued: a change only marks it, and what is sent is built at the moment of sending, so a slow agent
skips what became old meanwhile. One set is under way at a time; the next one waits for its acknowledgement.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec
import structlog

from veapi import codec
from veapi.clock import Clock
from veapi.errors import Conflict, Unavailable, VerackError
from veapi.model import HostName, HostSet, Order
from veapi.v1 import session_pb2

log = structlog.get_logger()
ACK_WITHIN_S = 10.0
QUEUE_LIMIT = 1024
"""Messages other than sets that may wait for a slow agent: acknowledgements, tickets."""


class HostSession:
    """From Hello to the end of the stream. `build` gives the host's set as the view is now."""

    def __init__(self, host: HostName, build: Callable[[], HostSet], clock: Clock) -> None:
        self.host = host
        self._build = build
        self._clock = clock
        self._queue: deque[session_pb2.SessionDown] = deque()
        self._changed = asyncio.Event()
        self._set_due = True
        self._sent: HostSet | None = None
        self._sent_at = 0.0
        self._acked = True
        self._ended: VerackError | None = None

    def tell(self, message: session_pb2.SessionDown) -> None:
        """Queues a message; an agent that lets too many pile up loses its session."""
        if len(self._queue) >= QUEUE_LIMIT:
            self.end(Unavailable("the agent does not read its messages", hint="look at its log"))
        else:
            self._queue.append(message)
            self._changed.set()

    def set_may_have_changed(self) -> None:
        self._set_due = True
        self._changed.set()

    def set_acked(self, order: Order) -> None:
        """The agent has this set, or a newer one, on its disk."""
        if self._sent is not None and order >= self._sent.order:
            if order > self._sent.order:
                self._holds_newer(order, self._sent.order)
            self._acked = True
            self._changed.set()

    def _holds_newer(self, held: Order, ours: Order) -> None:
        """No leader of this store made what it holds: the host takes nothing from us, and that must not pass in silence."""
        log.error(
            "host holds a newer set than ours and ignores ours",
            host=self.host,
            held=str(held),
            ours=str(ours),
            hint="was etcd set back to an older state? VEs run on as they are; see docs/operations/disaster.md",
        )

    @property
    def ended(self) -> bool:
        """Replaced by a newer one, or failed: what still comes in on it does not count."""
        return self._ended is not None

    def end(self, error: VerackError) -> None:
        """The stream ends with this error; the first one counts."""
        self._ended = self._ended or error
        self._changed.set()

    async def outgoing(self) -> AsyncIterator[session_pb2.SessionDown]:
        """What to send, for ever; raises the error that the session was ended with."""
        while True:
            self._changed.clear()
            while self._queue:
                yield self._queue.popleft()
            if self._ended is not None:
                raise self._ended
            due = self._next_set()
            if due is not None:
                yield session_pb2.SessionDown(set=codec.host_set_out(due))
            elif not self._changed.is_set():
                await self._wait()

    def _next_set(self) -> HostSet | None:
        """The set as it is now, when it is due, differs from the last one and that one is not under way."""
        late = self._clock.boot() - self._sent_at >= ACK_WITHIN_S
        if not self._set_due or not (self._acked or late):
            return None
        if not self._acked:
            log.warning("set not acknowledged", host=self.host, seconds=ACK_WITHIN_S)
        self._set_due = False
        fresh = self._build()
        if self._sent is not None and _same_wishes(self._sent, fresh):
            return None
        self._sent, self._sent_at, self._acked = fresh, self._clock.boot(), False
        return fresh

    async def _wait(self) -> None:
        """Until something changed, or the acknowledgement that a due set waits for is late."""
        waits_for_ack = self._set_due and not self._acked
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACK_WITHIN_S if waits_for_ack else None):
                await self._changed.wait()


def _same_wishes(sent: HostSet, fresh: HostSet) -> bool:
    return msgspec.structs.replace(fresh, order=sent.order) == sent


class Roster:
    """The live session of each host."""

    def __init__(self) -> None:
        self._sessions: dict[HostName, HostSession] = {}

    def join(self, session: HostSession) -> None:
        """An older session of the same host ends: its agent has dialled anew, or is a second one."""
        older = self._sessions.get(session.host)
        self._sessions[session.host] = session
        if older is not None:
            log.info("session replaced", host=session.host)
            older.end(
                Conflict(
                    f"a newer session of host {session.host} has replaced this one",
                    hint="only one veagent may run with this host's certificate",
                )
            )

    def leave(self, session: HostSession) -> None:
        if self._sessions.get(session.host) is session:
            del self._sessions[session.host]

    def tell(self, host: HostName, message: session_pb2.SessionDown) -> bool:
        """False when the host has no session."""
        session = self._sessions.get(host)
        if session is not None:
            session.tell(message)
        return session is not None

    def of(self, hosts: frozenset[HostName]) -> list[HostSession]:
        return [self._sessions[host] for host in hosts if host in self._sessions]

    def all(self) -> list[HostSession]:
        return list(self._sessions.values())
