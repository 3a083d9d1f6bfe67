"""gRPC without gRPC: streams of an agent to a controller, and calls of people, over the simulated network.

Both ends get what grpc.aio would give them: `read`, `write` and `cancel` on one side, a request iterator and a context that
can abort on the other; errors are real AioRpcErrors with the trailing metadata that the server gave.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Self

import grpc
import grpc.aio

from sim.network import Connection, End, Network
from sim.process import Process

CONNECT_LIMIT_S = 3.0
Serve = Callable[[str, AsyncIterator[Any], "Context"], Any]
"""The method's name, requests, context; gives an asynchronous generator of answers."""


class Refused(Exception):
    """The status that a handler ended its call with."""

    def __init__(self, code: grpc.StatusCode, details: str, metadata: Any = ()) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.metadata = tuple(metadata)

    def again(self) -> "Refused":
        """One without the traceback of an earlier raise."""
        return Refused(self.code, self.details, self.metadata)

    def error(self) -> grpc.aio.AioRpcError:
        trailing = grpc.aio.Metadata(*self.metadata)
        return grpc.aio.AioRpcError(self.code, grpc.aio.Metadata(), trailing, self.details)


class Context:
    """grpc.aio.ServicerContext, as far as it is used."""

    def __init__(self, node: str, peer: str) -> None:
        self.node = node
        self._peer = peer

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_subject_alternative_name": [self._peer.encode()]}

    async def abort(self, code: grpc.StatusCode, details: str = "", metadata: Any = ()) -> None:
        raise Refused(code, details, metadata)


_BROKEN = Refused(grpc.StatusCode.UNAVAILABLE, "Socket closed")
_NOT_THERE = Refused(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses")


class Inbox:
    """What came, for one reader; then how it ended."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.ended: Refused | None = None
        self.over = False

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._wake()

    def end(self, refusal: Refused | None) -> None:
        if not self.over:
            self.over, self.ended = True, refusal
            self._wake()

    async def get(self) -> Any:
        """grpc.aio.EOF at the end; raises what it was ended with."""
        while not self._items and not self.over:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._items:
            return self._items.popleft()
        if self.ended is not None:
            raise self.ended.again()
        return grpc.aio.EOF

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def iterate(self) -> AsyncIterator[Any]:
        while (item := await self.get()) is not grpc.aio.EOF:
            yield item


class Channel:
    """Of a client. It connects with its first call."""

    def __init__(self, network: Network, process: Process, node: str, target: str) -> None:
        self._network = network
        self._process = process
        self._node = node
        self._target = target
        self._end: End | None = None
        self._calls: dict[int, Call] = {}
        self._ids = itertools.count(1)
        self._connecting: asyncio.Task[None] | None = None
        self._failed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._failed = True
        if self._end is not None:
            self._end.connection.close(self._end)

    def call(self, method: str) -> "Call":
        if self._connecting is None:
            self._connecting = self._process.spawn(self._connect(), "connect")
        call = Call(self, next(self._ids), method)
        self._calls[call.number] = call
        return call

    async def connected(self) -> None:
        assert self._connecting is not None
        await asyncio.shield(self._connecting)

    def send(self, number: int, kind: str, payload: Any) -> None:
        if self._end is not None:
            self._end.send((number, kind, payload))

    async def _connect(self) -> None:
        network, clock = self._network, self._process.clock
        there, back = (self._node, self._target), (self._target, self._node)
        if network.is_cut(*there) or network.is_cut(*back):
            await clock.sleep(CONNECT_LIMIT_S)
        await clock.sleep(network.delay_s(*there) + network.delay_s(*back))
        if network.is_cut(*there) or network.is_cut(*back) or self._failed:
            self._broke(_NOT_THERE)
            return
        connection = network.connect(self._process, *there)
        if connection is None:
            self._broke(_NOT_THERE)
            return
        self._end = connection.ends[0]
        self._end.received = self._received
        self._end.broke = lambda: self._broke(_BROKEN)

    def _received(self, message: tuple[int, str, Any]) -> None:
        number, kind, payload = message
        call = self._calls.get(number)
        if call is None:
            return
        if kind == "message":
            call.inbox.put(payload)
        else:
            call.inbox.end(payload)

    def _broke(self, refusal: Refused) -> None:
        self._failed = True
        for call in self._calls.values():
            call.inbox.end(refusal)

    @property
    def failed(self) -> bool:
        return self._failed


class Call:
    """grpc.aio.StreamStreamCall."""

    def __init__(self, channel: Channel, number: int, method: str) -> None:
        self.inbox = Inbox()
        self.number = number
        self._channel = channel
        self._method = method
        self._begun = False
        self._cancelled = False

    async def write(self, message: Any) -> None:
        await self._begin()
        if self.inbox.over:
            raise asyncio.InvalidStateError("RPC already finished.")
        self._channel.send(self.number, "message", message)

    async def read(self) -> Any:
        await self._begin()
        try:
            return await self.inbox.get()
        except Refused as refusal:
            raise refusal.error() from None

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._channel.send(self.number, "cancel", None)

    async def _begin(self) -> None:
        await self._channel.connected()
        if not self._begun:
            self._begun = True
            self._channel.send(self.number, "call", self._method)


class AgentStub:
    """session_pb2_grpc.AgentServiceAsyncStub."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def Session(self) -> Call:  # noqa: N802 - the name of the RPC
        return self._channel.call("Session")

    def Heartbeat(self) -> Call:  # noqa: N802
        return self._channel.call("Heartbeat")


class Server:
    """Of one process: serves each call in a task of its own. `peer_of`: the certificate's name of a node."""

    def __init__(
        self,
        network: Network,
        process: Process,
        node: str,
        *,
        serve: Serve,
        peer_of: Callable[[str], str],
    ) -> None:
        self._process = process
        self._serve = serve
        self._peer_of = peer_of
        network.listeners[node] = self._accept
        process.on_death.append(lambda: _stop_listening(network, node, self._accept))

    def _accept(self, connection: Connection) -> None:
        connection.served_by(self._process)
        end = connection.ends[1]
        calls: dict[int, tuple[Inbox, asyncio.Task[None]]] = {}

        def received(message: tuple[int, str, Any]) -> None:
            number, kind, payload = message
            if kind == "call":
                inbox = Inbox()
                work = self._handle(end, number, payload, inbox, connection.nodes[0])
                calls[number] = inbox, self._process.spawn(work, payload)
            elif number in calls and kind == "message":
                calls[number][0].put(payload)
            elif number in calls:
                _cancel(calls.pop(number))

        def broke() -> None:
            for call in list(calls.values()):
                _cancel(call)

        end.received, end.broke = received, broke

    async def _handle(self, end: End, number: int, method: str, inbox: Inbox, node: str) -> None:
        status: Refused | None = None
        try:
            answers = self._serve(method, inbox.iterate(), Context(node, self._peer_of(node)))
            async with aclosing(answers):
                async for answer in answers:
                    end.send((number, "message", answer))
        except Refused as refusal:
            status = refusal
        except asyncio.CancelledError:
            return
        except Exception as error:  # noqa: BLE001 - as grpc does
            status = Refused(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error).__name__}: {error}")
            self._process.loop.errors.append({"message": "handler failed", "exception": error})
        end.send((number, "end", status))


def _cancel(call: tuple[Inbox, "asyncio.Task[None]"]) -> None:
    call[0].end(None)
    call[1].cancel()


def _stop_listening(network: Network, node: str, accept: Any) -> None:
    if network.listeners.get(node) == accept:
        del network.listeners[node]
