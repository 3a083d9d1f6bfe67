"""Calls that carry files: push, pull, export."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio

from veapi.errors import RemoteFailed, by_kind
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vectl.context import Context
from vectl.wire import failure

_CUT = "the stream ended before all was told"


async def push(
    stub: "api_pb2_grpc.VEServiceAsyncStub",
    start: api_pb2.PushStart,
    chunks: AsyncIterator[bytes],
    on_received: Callable[[int], None],
    context: Context,
) -> api_pb2.Transferred:
    """Chunks of at most 1 MiB. A failed source cancels the call: half a file is never taken for a whole."""
    call = stub.Push()
    sending = asyncio.create_task(_send(call, start, chunks))
    try:
        async for response in call:
            match response.WhichOneof("frame"):
                case "done":
                    return response.done
                case "failure":
                    told = response.failure
                    raise by_kind(told.kind, told.message, told.hint)
                case _:
                    on_received(response.received_bytes)
    except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
        await _raise_source(sending)
        if isinstance(error, asyncio.CancelledError):
            raise
        raise failure(error, context) from None
    finally:
        sending.cancel()
        call.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    raise RemoteFailed(_CUT, hint="look with `vectl exec`, then push it again")


async def _send(
    call: "grpc.aio.StreamStreamCall[api_pb2.PushRequest, api_pb2.PushResponse]",
    start: api_pb2.PushStart,
    chunks: AsyncIterator[bytes],
) -> None:
    try:
        await call.write(api_pb2.PushRequest(start=start))
        async for chunk in chunks:
            await call.write(api_pb2.PushRequest(chunk=chunk))
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return  # the reader of the answers is told why
    except BaseException:
        call.cancel()
        raise


async def _raise_source(sending: "asyncio.Task[None]") -> None:
    """Raises what the source raised, if that is why the call was cancelled."""
    task = asyncio.current_task()
    if task is not None and not task.cancelling():
        await asyncio.wait([sending], timeout=1.0)
    if sending.done() and not sending.cancelled() and (error := sending.exception()) is not None:
        raise error


async def pull(
    stub: "api_pb2_grpc.VEServiceAsyncStub", request: api_pb2.PullRequest, context: Context
) -> AsyncIterator[bytes | api_pb2.Transferred]:
    """Pieces of a tar; last, what is in it."""
    call = stub.Pull(request)
    try:
        async for response in call:
            if response.WhichOneof("frame") == "done":
                yield response.done
                return
            yield response.chunk
    except grpc.aio.AioRpcError as error:
        raise failure(error, context) from None
    finally:
        call.cancel()
    raise RemoteFailed(_CUT, hint="pull it again")


async def export(
    stub: "api_pb2_grpc.VEServiceAsyncStub", request: api_pb2.ExportRequest, context: Context
) -> AsyncIterator[types_pb2.VE | bytes]:
    """The VE, then its root's packed tar. Ends only when all of it came."""
    call = stub.Export(request)
    try:
        async for response in call:
            match response.WhichOneof("frame"):
                case "ve":
                    yield response.ve
                case "chunk":
                    yield response.chunk
                case "end":
                    return
    except grpc.aio.AioRpcError as error:
        raise failure(error, context) from None
    finally:
        call.cancel()
    raise RemoteFailed(_CUT, hint="export it again")
