"""RPCs of every kind and end are counted with the code that the client saw."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from kit.eventually import eventually
from veapi.errors import NotFound
from veapi.rpc import abort
from veapi.rpcmetrics import RpcMetrics

SERVICE = "test.Echo"


async def unary(request: bytes, context: Any) -> bytes:
    if request == b"missing":
        await abort(context, NotFound("nothing here"))
    if request == b"bug":
        raise ValueError("bug")
    if request == b"slow":
        await asyncio.Event().wait()
    return request


async def yielding(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield request
    if request == b"slow":
        await asyncio.Event().wait()
    if request == b"missing":
        await abort(context, NotFound("nothing here"))


async def writing(requests: AsyncIterator[bytes], context: Any) -> None:
    async for request in requests:
        await context.write(request)


class Handlers(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return {
            f"/{SERVICE}/Unary": grpc.unary_unary_rpc_method_handler(unary),
            f"/{SERVICE}/Yielding": grpc.unary_stream_rpc_method_handler(yielding),
            f"/{SERVICE}/Writing": grpc.stream_stream_rpc_method_handler(writing),
        }.get(handler_call_details.method)


class Echo:
    def __init__(self, channel: grpc.aio.Channel, registry: CollectorRegistry) -> None:
        self.unary: Any = channel.unary_unary(f"/{SERVICE}/Unary")
        self.yielding: Any = channel.unary_stream(f"/{SERVICE}/Yielding")
        self.writing: Any = channel.stream_stream(f"/{SERVICE}/Writing")
        self.unknown: Any = channel.unary_unary(f"/{SERVICE}/Unknown")
        self.registry = registry

    def handled(self, method: str, code: str) -> float:
        labels = {"grpc_service": SERVICE, "grpc_method": method, "grpc_code": code}
        return self.registry.get_sample_value("verack_grpc_server_handled_total", labels) or 0.0


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    registry = CollectorRegistry()
    server = grpc.aio.server(interceptors=[RpcMetrics(registry)])
    server.add_generic_rpc_handlers((Handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Echo(channel, registry)
    await server.stop(None)


async def until(echo: Echo, method: str, code: str, count: int) -> None:
    await eventually(lambda: echo.handled(method, code) >= count)
    assert echo.handled(method, code) == count


async def test_a_call_that_succeeds_is_ok(echo: Echo) -> None:
    assert await echo.unary(b"x") == b"x"
    await until(echo, "Unary", "OK", 1)
    labels = {"grpc_service": SERVICE, "grpc_method": "Unary"}
    count = echo.registry.get_sample_value("verack_grpc_server_handling_seconds_count", labels)
    assert count == 1


async def test_an_error_of_ours_has_its_code(echo: Echo) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await echo.unary(b"missing")
    await until(echo, "Unary", "NOT_FOUND", 1)


async def test_a_bug_is_unknown(echo: Echo) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await echo.unary(b"bug")
    await until(echo, "Unary", "UNKNOWN", 1)


async def test_a_call_that_the_client_gave_up_is_cancelled(echo: Echo) -> None:
    call = echo.unary(b"slow")
    asyncio.get_running_loop().call_later(0.1, call.cancel)
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(echo, "Unary", "CANCELLED", 1)


async def test_streams_count_when_they_end(echo: Echo) -> None:
    assert [each async for each in echo.yielding(b"x")] == [b"x"]
    await until(echo, "Yielding", "OK", 1)
    stream = echo.yielding(b"slow")
    assert await stream.read() == b"slow"
    assert echo.handled("Yielding", "CANCELLED") == 0
    stream.cancel()
    await until(echo, "Yielding", "CANCELLED", 1)
    with pytest.raises(grpc.aio.AioRpcError):
        [each async for each in echo.yielding(b"missing")]
    await until(echo, "Yielding", "NOT_FOUND", 1)


async def test_a_handler_that_writes_is_counted_as_well(echo: Echo) -> None:
    assert [each async for each in echo.writing(iter([b"a", b"b"]))] == [b"a", b"b"]
    await until(echo, "Writing", "OK", 1)


async def test_methods_that_are_not_there_make_no_series(echo: Echo) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await echo.unknown(b"x")
    assert echo.handled("Unknown", "UNIMPLEMENTED") == 0
