"""What stands before every handler: who calls, how errors leave, and how long a reader may stall.

No handler deals with these. An expected error ends the call with its kind and hint; anything else is logged with its
traceback under an id, and the caller gets the id alone.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio
import structlog

from veapi.channel import caller
from veapi.errors import RemoteFailed, TimedOut, VerackError
from vecontroller import incarnation
from vecontroller.api.authz import authorize
from vecontroller.api.standstill import DURING_STANDSTILL
from vecontroller.calls import Context, refuse

log = structlog.get_logger()
STALL_S = 5.0
_LIMITED = frozenset(
    (
        "/veapi.v1.VEService/Watch",
        "/veapi.v1.VEService/WatchEvents",
        "/veapi.v1.GroupService/Watch",
    )
)
"""Streams whose reader must keep up. Of exec and logs a person may stop reading; flow control holds them."""

Request = TypeVar("Request")
Response = TypeVar("Response")
Call: TypeAlias = Callable[..., Any]
"""A servicer's method: its messages are of any type here."""


@dataclass(frozen=True, slots=True)
class _Door:
    """A method, and what is to be known to guard it."""

    method: str
    cluster: str
    leader_address: Callable[[], str]
    stall_s: float
    standstill: Callable[[], bool]

    def unary(self, call: Call) -> Call:
        async def guarded(request: object, context: Context) -> object:
            async with self._passing(context):
                return await call(request, context)

        return guarded

    def streaming(self, call: Call) -> Call:
        """For handlers that are generators, and for those that write by the context."""

        async def guarded(request: object, context: Context) -> None:
            async with self._passing(context):
                answer = call(request, context)
                if isinstance(answer, AsyncGenerator):
                    await self._send(context, answer)
                else:
                    await answer

        return guarded

    @asynccontextmanager
    async def _passing(self, context: Context) -> AsyncIterator[None]:
        """Lets the caller in if its role may; errors from within end the call."""
        try:
            authorize(caller(context, self.cluster), self.method)
            self._check_standstill()
            yield
        except VerackError as error:
            await refuse(context, error, leader=self.leader_address())
        except grpc.aio.BaseError:
            raise
        except Exception as error:  # noqa: BLE001 - the last resort of every handler
            await refuse(context, self._unexpected(error), leader="")

    def _check_standstill(self) -> None:
        if self.method not in DURING_STANDSTILL and self.standstill():
            raise incarnation.refusal()

    def _unexpected(self, error: Exception) -> RemoteFailed:
        number = uuid.uuid4().hex[:12]
        log.error("request failed", method=self.method, id=number, exc_info=error)
        return RemoteFailed(
            "internal error", hint=f"look in the controller's log for id {number}, and report it"
        )

    async def _send(self, context: Context, messages: AsyncGenerator[object, None]) -> None:
        """TimedOut when the reader of a limited stream takes nothing."""
        limit_s = self.stall_s if self.method in _LIMITED else None
        async with aclosing(messages):
            async for message in messages:
                try:
                    async with asyncio.timeout(limit_s):
                        await context.write(message)
                except TimeoutError:
                    raise _stalled(self.stall_s) from None


class GuardInterceptor(grpc.aio.ServerInterceptor):
    """For all services of a controller. `leader_address` gives host:port, for clients of one that does not lead.

    `standstill`: whether what changes anything is refused, as the store was restored and nobody has confirmed it.
    """

    def __init__(
        self,
        cluster: str,
        *,
        leader_address: Callable[[], str] = lambda: "",
        stall_s: float = STALL_S,
        standstill: Callable[[], bool] = lambda: False,
    ) -> None:
        self._cluster = cluster
        self._leader_address = leader_address
        self._stall_s = stall_s
        self._standstill = standstill

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails],
            Awaitable["grpc.RpcMethodHandler[Request, Response] | None"],
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Request, Response] | None":
        handler = await continuation(handler_call_details)
        if handler is None:  # an unknown method: gRPC says so itself
            return None
        door = _Door(
            handler_call_details.method,
            self._cluster,
            self._leader_address,
            self._stall_s,
            self._standstill,
        )
        return _behind(door, handler)


def _behind(
    door: _Door, handler: "grpc.RpcMethodHandler[Request, Response]"
) -> "grpc.RpcMethodHandler[Request, Response]":
    """The same handler, guarded."""
    codecs = (handler.request_deserializer, handler.response_serializer)
    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(door.unary(handler.unary_unary), *codecs)
    if handler.stream_unary is not None:
        return grpc.stream_unary_rpc_method_handler(door.unary(handler.stream_unary), *codecs)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(door.streaming(handler.unary_stream), *codecs)
    assert handler.stream_stream is not None
    return grpc.stream_stream_rpc_method_handler(door.streaming(handler.stream_stream), *codecs)


def _stalled(stall_s: float) -> TimedOut:
    return TimedOut(
        f"the reader took nothing for {stall_s:g} s",
        hint="list again and watch from there, and read faster",
    )
