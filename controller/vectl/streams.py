"""Long calls: exec, logs, events, upload."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeAlias

import grpc
import grpc.aio

from veapi.errors import RemoteFailed, TimedOut, Unavailable, VerackError, by_kind
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vectl.context import Context
from vectl.wire import cut, failure

_AGAIN = "begin again: the controller that leads is found"


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes that the command wrote."""

    data: bytes
    to_stderr: bool


@dataclass(frozen=True, slots=True)
class Command:
    """What to run in a VE: words, a login shell, or its console (`force`: though somebody else has it).

    `user` and `cwd` are the VE's; empty: root, and the user's home. `window`: TERM, columns and rows of a terminal.
    """

    words: Sequence[str] = ()
    user: str = ""
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    login: bool = False
    console: bool = False
    force: bool = False
    stdin: bool = False
    window: tuple[str, int, int] | None = None

    def start(self, ref: api_pb2.VERef) -> api_pb2.ExecStart:
        """As it goes to the controller."""
        start = api_pb2.ExecStart(
            ve=ref,
            command=self.words,
            user=self.user,
            cwd=self.cwd,
            env=self.env,
            login=self.login,
            console=self.console,
            force=self.force,
            stdin=self.stdin,
            tty=self.window is not None,
        )
        if self.window is not None:
            start.term, columns, rows = self.window
            start.window.CopyFrom(api_pb2.WindowSize(columns=columns, rows=rows))
        return start


class ExecStream:
    """A running command. What is sent to it gives False once it has ended; why comes from `outputs`."""

    def __init__(self, stub: "api_pb2_grpc.VEServiceAsyncStub", context: Context) -> None:
        self._context = context
        self._call = stub.Exec()

    @classmethod
    async def begin(
        cls,
        stub: "api_pb2_grpc.VEServiceAsyncStub",
        start: api_pb2.ExecStart,
        context: Context,
    ) -> Self:
        stream = cls(stub, context)
        await stream._send(api_pb2.ExecRequest(start=start))
        return stream

    async def write(self, data: bytes) -> bool:
        return await self._send(api_pb2.ExecRequest(stdin=data))

    async def close_stdin(self) -> bool:
        return await self._send(api_pb2.ExecRequest(stdin_closed=True))

    async def resize(self, columns: int, rows: int) -> bool:
        size = api_pb2.WindowSize(columns=columns, rows=rows)
        return await self._send(api_pb2.ExecRequest(resize=size))

    async def signal(self, number: int) -> bool:
        return await self._send(api_pb2.ExecRequest(signal=number))

    async def _send(self, frame: api_pb2.ExecRequest) -> bool:
        try:
            await self._call.write(frame)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    async def outputs(self) -> AsyncIterator[Output | int]:
        """What it writes, and its exit code at last (128 + N when signal N ended it). Raises the failure when nothing was run."""
        try:
            async for frame in self._call:
                yield self._read(frame)
        except grpc.aio.AioRpcError as error:
            hint = "the command may still run in its VE; begin again: the controller that leads is found"
            raise cut(error, self._context, hint=hint) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise RemoteFailed(
                "left the command alone", hint="it may still run: look with `vectl exec`"
            ) from None

    def cancel(self) -> None:
        self._call.cancel()

    @staticmethod
    def _read(frame: api_pb2.ExecResponse) -> Output | int:
        match frame.WhichOneof("frame"):
            case "stdout":
                return Output(frame.stdout, to_stderr=False)
            case "stderr":
                return Output(frame.stderr, to_stderr=True)
            case "exit_code":
                return frame.exit_code
            case "failure":
                said = frame.failure
                raise by_kind(said.kind, said.message, said.hint)
            case _:
                return Output(b"", to_stderr=False)


async def log_chunks(
    stub: "api_pb2_grpc.VEServiceAsyncStub", request: api_pb2.LogsRequest, context: Context
) -> AsyncIterator[bytes]:
    call = stub.Logs(request)
    try:
        async for response in call:
            yield response.data
    except grpc.aio.AioRpcError as error:
        raise cut(error, context, hint=_AGAIN) from None
    finally:
        call.cancel()


async def watched_events(
    stub: "api_pb2_grpc.VEServiceAsyncStub", request: api_pb2.ListEventsRequest, context: Context
) -> AsyncIterator[types_pb2.Event]:
    call = stub.WatchEvents(request)
    try:
        async for event in call:
            yield event
    except grpc.aio.AioRpcError as error:
        raise cut(error, context, hint=_AGAIN) from None
    finally:
        call.cancel()


_Import: TypeAlias = (
    "grpc.aio.StreamStreamCall[api_pb2.ImportImageRequest, api_pb2.ImportImageResponse]"
)


async def upload(
    call: _Import,
    start: api_pb2.ImportImageStart,
    chunks: AsyncIterator[bytes],
    on_progress: Callable[[api_pb2.ImportProgress], None],
    context: Context,
) -> types_pb2.Image:
    """Sends while it reads answers. A failed source cancels the call: half an image is never taken for a whole."""
    sending = asyncio.create_task(_send(call, start, chunks))
    try:
        async for response in call:
            if response.WhichOneof("frame") == "image":
                return response.image
            on_progress(response.progress)
    except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
        await _raise_source(sending)
        if isinstance(error, asyncio.CancelledError):
            raise
        raise late(start.name, failure(error, context), error) from None
    finally:
        sending.cancel()
        call.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    raise RemoteFailed("the controller ended the import without an image", hint="import it again")


def late(name: str, meant: VerackError, error: grpc.aio.AioRpcError) -> VerackError:
    """Our own deadline is a timeout here; elsewhere it says that the controller is silent."""
    if isinstance(meant, Unavailable) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOut(f"image {name}: not imported in time", hint="give a longer --timeout")
    return meant


async def _raise_source(sending: "asyncio.Task[None]") -> None:
    """Raises what the source of the upload raised, if that is why the call was cancelled."""
    task = asyncio.current_task()
    if task is not None and not task.cancelling():
        await asyncio.wait([sending], timeout=1.0)
    if sending.done() and not sending.cancelled():
        error = sending.exception()
        if error is not None:
            raise error


async def _send(
    call: _Import,
    start: api_pb2.ImportImageStart,
    chunks: AsyncIterator[bytes],
) -> None:
    try:
        await call.write(api_pb2.ImportImageRequest(start=start))
        async for chunk in chunks:
            await call.write(api_pb2.ImportImageRequest(chunk=chunk))
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return  # the reader of the answers is told why
    except BaseException:
        call.cancel()
        raise
