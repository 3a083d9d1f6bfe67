"""A watch that loses nothing and repeats nothing, over broken connections, frozen members and restarts of etcd.

The naive way resumes from the revision in the header of the last response. That is the store's revision, not what was
delivered: cut during a catch-up, it skips thousands of events without an error. Here the next revision wanted is always
one more than the last one *delivered*. `fragment` stays off, as etcd then sends a revision whole; with it a catch-up
takes time quadratic in its size. Silence is no proof of life: after `idle_s` the member is asked for its progress (the
answer counts as a sign of life only: in 3.4 it may run ahead of the events), after as long again the next member is used.
When much was missed, a fresh list is faster than the events: etcd gives about 10,000 of them a second.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import structlog

from veapi.errors import Unavailable
from veapi.etcd import kv_pb2, rpc_pb2
from vecontroller.store.endpoints import (
    METADATA,
    Endpoint,
    Endpoints,
    Outcome,
    RpcError,
    WatchCall,
    outcome_of,
    words_of,
)
from vecontroller.store.port import (
    Batch,
    Compacted,
    Regressed,
    StoreEvent,
    StoreItem,
    TooFarBehind,
)

log = structlog.get_logger()


class _Cut(Exception):
    """The stream ended or gave no sign of life; it is opened again."""


@dataclass(frozen=True, slots=True)
class WatchTiming:
    """`idle_s`: silence before a sign of life is asked for, and again before the member is left.

    Where a controller leads, its beat is an event each 0.5 s.
    """

    idle_s: float = 1.5
    first_backoff_s: float = 0.05
    last_backoff_s: float = 2.0
    gap_revisions: int = 5_000


class EtcdWatch:
    """One watch. `head` gives the store's revision by a linearizable read."""

    def __init__(
        self,
        endpoints: Endpoints,
        prefix: str,
        head: Callable[[], Awaitable[int]],
        *,
        timing: WatchTiming,
    ) -> None:
        self._endpoints = endpoints
        self._prefix = prefix.encode()
        self._head = head
        self._timing = timing
        self._backoff_s = timing.first_backoff_s

    async def batches(self, after_revision: int) -> AsyncIterator[Batch]:
        """Every event after `after_revision`, for ever. Compacted (or one of its kinds) when that can't be."""
        wanted = after_revision + 1
        while True:
            endpoint = self._endpoints.current
            try:
                async for batch in self._stream(endpoint, wanted):
                    wanted = batch.revision + 1
                    yield batch
            except _Cut as cut:
                self._endpoints.failed(endpoint)
                log.info("watch cut", endpoint=endpoint.target, why=str(cut), wanted=wanted)
                await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(self._backoff_s * (0.5 + random.random()))  # noqa: S311 - jitter
        self._backoff_s = min(self._backoff_s * 2, self._timing.last_backoff_s)

    async def _stream(self, endpoint: Endpoint, wanted: int) -> AsyncIterator[Batch]:
        """The events of one connection, from the revision `wanted` on. Raises _Cut at its end."""
        call: WatchCall = endpoint.watch.Watch(metadata=METADATA)
        try:
            await self._create(call, wanted)
            while True:
                response = await self._next(call)
                await self._judge(response, wanted)
                events = [event for event in response.events if event.kv.mod_revision >= wanted]
                if events:
                    wanted = events[-1].kv.mod_revision + 1
                    yield Batch(revision=wanted - 1, events=tuple(map(_event, events)))
        except RpcError as error:
            raise _broken(error) from None
        except asyncio.InvalidStateError:  # a write to a call that ended meanwhile
            raise _Cut("the stream ended") from None
        finally:
            call.cancel()

    async def _create(self, call: WatchCall, wanted: int) -> None:
        # One revision earlier: from exactly the revision at which history begins, older etcds leave
        # out what was deleted at it, without a word (etcd #19179). So they say that it is gone.
        request = rpc_pb2.WatchCreateRequest(
            key=self._prefix,
            range_end=self._prefix[:-1] + bytes([self._prefix[-1] + 1]),
            start_revision=max(1, wanted - 1),
            fragment=False,
        )
        await self._send(call, rpc_pb2.WatchRequest(create_request=request))

    async def _send(self, call: WatchCall, request: rpc_pb2.WatchRequest) -> None:
        try:
            async with asyncio.timeout(self._timing.idle_s):
                await call.write(request)
        except TimeoutError:
            raise _Cut("nothing can be sent") from None

    async def _next(self, call: WatchCall) -> rpc_pb2.WatchResponse:
        """The next response; _Cut when there is none, not even to a request for progress."""
        reading = asyncio.ensure_future(call.read())
        try:
            done, _ = await asyncio.wait((reading,), timeout=self._timing.idle_s)
            if not done:
                progress = rpc_pb2.WatchProgressRequest()
                await self._send(call, rpc_pb2.WatchRequest(progress_request=progress))
                done, _ = await asyncio.wait((reading,), timeout=self._timing.idle_s)
            if not done:
                raise _Cut("no sign of life")
            response = reading.result()
        finally:
            reading.cancel()
        if not isinstance(response, rpc_pb2.WatchResponse):
            raise _Cut("the stream ended")
        return response

    async def _judge(self, response: rpc_pb2.WatchResponse, wanted: int) -> None:
        """Raises when the stream can't go on, or should not."""
        self._endpoints.check(response.header)
        if response.compact_revision:
            raise Compacted(f"revision {wanted} is gone; the oldest is {response.compact_revision}")
        if response.canceled:
            raise _Cut(response.cancel_reason or "cancelled by the server")
        if response.created:
            await self._compare_heads(response.header.revision, wanted)
        else:
            self._backoff_s = self._timing.first_backoff_s

    async def _compare_heads(self, head: int, wanted: int) -> None:
        if head - wanted > self._timing.gap_revisions:
            raise TooFarBehind(f"{head - wanted} revisions were missed")
        # A member may lag behind the others, so its word alone proves nothing.
        if head < wanted - 1 and await self._sure_head() < wanted - 1:
            raise Regressed(f"the store is at {head} again, after {wanted - 1} was delivered")

    async def _sure_head(self) -> int:
        try:
            return await self._head()
        except Unavailable as error:
            raise _Cut(error.message) from None


def _broken(error: RpcError) -> Exception:
    if outcome_of(error) is Outcome.TOO_LARGE:
        return TooFarBehind(f"the events are too large: {words_of(error)}")
    return _Cut(words_of(error))


def _event(event: kv_pb2.Event) -> StoreEvent:
    key = event.kv.key.decode(errors="replace")
    if event.type == kv_pb2.Event.DELETE:
        return StoreEvent(key=key, revision=event.kv.mod_revision, item=None)
    item = StoreItem(
        key=key,
        value=event.kv.value,
        mod_revision=event.kv.mod_revision,
        create_revision=event.kv.create_revision,
    )
    return StoreEvent(key=key, revision=event.kv.mod_revision, item=item)
