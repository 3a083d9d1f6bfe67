"""Counts and times every RPC that a server handles, under the names that gRPC dashboards know, with our prefix.

A stream is handled when it ends, so sessions appear with their whole life. Methods that the server does not have are not
counted: their names come from strangers and would grow without limit.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry, Counter, Histogram

from veapi.series import Family, Kind

HANDLED = Family(
    "verack_grpc_server_handled_total",
    Kind.COUNTER,
    "RPCs that ended, streams too.",
    ("grpc_service", "grpc_method", "grpc_code"),
)
HANDLING = Family(
    "verack_grpc_server_handling_seconds",
    Kind.HISTOGRAM,
    "How long RPCs took from their first to their last byte, in seconds.",
    ("grpc_service", "grpc_method"),
)
FAMILIES = (HANDLED, HANDLING)
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class RpcMetrics(grpc.aio.ServerInterceptor):
    """An interceptor; put it first, so that what the others refuse is counted too."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = HANDLED.name.removesuffix("_total")
        self._handled = Counter(name, HANDLED.help, HANDLED.labels, registry=registry)
        self._handling = Histogram(
            HANDLING.name, HANDLING.help, HANDLING.labels, registry=registry, buckets=_BUCKETS_S
        )

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """See grpc.aio."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        service, _, method = handler_call_details.method.strip("/").rpartition("/")
        return _wrapped(handler, _Meter(self._handled, self._handling, service, method))


class _Meter:
    def __init__(self, handled: Counter, handling: Histogram, service: str, method: str) -> None:
        self._handled = handled
        self._names = (service, method)
        self._handling = handling.labels(service, method)

    @contextmanager
    def handling(self, context: Any) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        except BaseException as error:
            self._ended(begun, _code(context, error))
            raise
        self._ended(begun, _code(context, None))

    def _ended(self, begun: float, code: grpc.StatusCode) -> None:
        self._handling.observe(time.perf_counter() - begun)
        self._handled.labels(*self._names, code.name).inc()


def _wrapped(handler: Any, meter: _Meter) -> Any:
    kind = ("stream" if handler.request_streaming else "unary") + (
        "_stream" if handler.response_streaming else "_unary"
    )
    behaviour = getattr(handler, kind)
    # A stream's handler may yield, or be a coroutine that calls context.write.
    wrap = _yielding if inspect.isasyncgenfunction(behaviour) else _awaited
    return getattr(grpc, f"{kind}_rpc_method_handler")(
        wrap(behaviour, meter),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _awaited(behaviour: Any, meter: _Meter) -> Any:
    async def call(request: Any, context: Any) -> Any:
        with meter.handling(context):
            return await behaviour(request, context)

    return call


def _yielding(behaviour: Any, meter: _Meter) -> Any:
    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        with meter.handling(context):
            async with aclosing(behaviour(request, context)) as answers:
                async for answer in answers:
                    yield answer

    return stream


def _code(context: Any, error: BaseException | None) -> grpc.StatusCode:
    """What the client gets: as set or aborted with; else by the way the handler ended."""
    found = context.code()
    code = _CODES.get(found, grpc.StatusCode.UNKNOWN) if isinstance(found, int) else found
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return grpc.StatusCode.CANCELLED
    if error is not None and code in (None, grpc.StatusCode.OK):
        return grpc.StatusCode.UNKNOWN
    return code or grpc.StatusCode.OK
