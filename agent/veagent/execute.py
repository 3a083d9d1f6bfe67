"""A command inside a VE, over a stream."""

import asyncio
import contextlib
from collections.abc import Iterable

import grpc.aio

from veagent.pipe import Pipe
from veagent.ports import ExecCommand, ExecProcess, Instance, Runtime, Stream
from veapi.errors import Conflict, InvalidInput, Unavailable, VerackError
from veapi.v1 import api_pb2, session_pb2

ARGUMENTS_LIMIT_BYTES = 1 << 17


class ReaderGone(Exception):
    """The person's side has ended."""


async def serve_exec(
    pipe: Pipe, runtime: Runtime, instance: Instance | None, first: api_pb2.ExecRequest
) -> None:
    """Until the command has ended, or the other side has: then what is left of the command is killed.

    Conflict when the VE does not run.
    """
    if instance is None:
        raise Conflict("the VE does not run", hint="start it first")
    process = await runtime.execute(instance, _command(first.start))
    try:
        await converse(pipe, process)
    except ReaderGone:
        pass
    finally:
        await process.close()


def _command(start: api_pb2.ExecStart) -> ExecCommand:
    if (
        not (start.command or start.login)
        or sum(len(word) for word in start.command) > ARGUMENTS_LIMIT_BYTES
    ):
        raise InvalidInput("a command needs 1 byte to 128 KiB of words", hint="give a command")
    env = dict(start.env)
    if start.tty and start.term:
        env.setdefault("TERM", start.term)
    return ExecCommand(
        argv=tuple(start.command),
        env=env,
        user=start.user,
        cwd=start.cwd,
        login=start.login,
        tty=start.tty,
        columns=start.window.columns or 80,
        rows=start.window.rows or 24,
        stdin=start.stdin,
    )


async def converse(pipe: Pipe, process: ExecProcess, *, stop: asyncio.Event | None = None) -> None:
    """Both ways until the command has ended, its exit code last. ReaderGone when the other side ends first, or at `stop`."""
    code = await _until_end(pipe, process, [pipe.gone] if stop is None else [pipe.gone, stop])
    await pipe.send(_up(api_pb2.ExecResponse(exit_code=code)))


async def _until_end(pipe: Pipe, process: ExecProcess, stops: Iterable[asyncio.Event]) -> int:
    outward = asyncio.create_task(_drain(pipe, process))
    others = [asyncio.create_task(_feed(pipe, process))]
    others += [asyncio.create_task(_wait(stop)) for stop in stops]
    try:
        await asyncio.wait((outward, *others), return_when=asyncio.FIRST_COMPLETED)
        if not outward.done():
            raise ReaderGone
        return await outward
    finally:
        for task in (outward, *others):
            task.cancel()
        await asyncio.gather(outward, *others, return_exceptions=True)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _drain(pipe: Pipe, process: ExecProcess) -> int:
    try:
        async for stream, data in process.output():
            await pipe.send(_up(_piece(stream, data)))
    except (grpc.aio.AioRpcError, Unavailable):
        raise ReaderGone from None
    return await process.exit_code()


def _piece(stream: Stream, data: bytes) -> api_pb2.ExecResponse:
    if stream is Stream.STDOUT:
        return api_pb2.ExecResponse(stdout=data)
    return api_pb2.ExecResponse(stderr=data)


async def _feed(pipe: Pipe, process: ExecProcess) -> None:
    """Returns when the other side is gone."""
    while (frame := await pipe.receive()) is not None:
        if frame.WhichOneof("frame") == "end":
            return
        await _obey(process, frame.exec)


async def _obey(process: ExecProcess, request: api_pb2.ExecRequest) -> None:
    match request.WhichOneof("frame"):
        case "stdin" | "stdin_closed":
            await _give_stdin(process, request)
        case "resize":
            process.resize(request.resize.columns, request.resize.rows)
        case "signal":
            process.signal(request.signal)
        case _:
            pass


async def _give_stdin(process: ExecProcess, request: api_pb2.ExecRequest) -> None:
    """A command that reads no more has simply no use for it."""
    with contextlib.suppress(VerackError, OSError):
        if request.stdin_closed:
            await process.close_stdin()
        else:
            await process.write(request.stdin)


def _up(response: api_pb2.ExecResponse) -> session_pb2.RelayUp:
    return session_pb2.RelayUp(exec=response)
