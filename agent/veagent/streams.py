"""Streams for people: the controller asks, the agent dials back with the ticket, and serves what the first frame asks.

They go over a connection of their own, so that bulk never delays sets or heartbeats. Backpressure is the stream's:
every frame is written before the next is read from its source. When the controller's side goes away, what was
started for it ends.
"""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import structlog

from veagent.console import Consoles
from veagent.consolelog import serve_logs
from veagent.execute import serve_exec
from veagent.files import Files
from veagent.manager import Manager
from veagent.pipe import Pipe
from veagent.ports import Images, Runtime
from veagent.upload import serve_pull, serve_upload
from veagent.worker import Worker
from veapi.channel import Identity, controller_name, open_channel
from veapi.errors import Conflict, InvalidInput, NotFound, RemoteFailed, VerackError
from veapi.model import Uid
from veapi.v1 import api_pb2, session_pb2, session_pb2_grpc

if TYPE_CHECKING:
    from veagent.pipe import Call

log = structlog.get_logger()
RELAYS_AT_ONCE = 128
FIRST_FRAME_LIMIT_S = 10.0


class Relays:
    """All streams of this host. They live on when the session that asked for them ends."""

    def __init__(
        self,
        *,
        cluster: str,
        identity: Identity,
        manager: Manager,
        runtime: Runtime,
        images: Images,
        files: Files,
    ) -> None:
        self._cluster = cluster
        self._identity = identity
        self._manager = manager
        self._runtime = runtime
        self._consoles = Consoles(runtime)
        self._images = images
        self._files = files
        self._target = ""
        self._channel: grpc.aio.Channel | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, target: str, ticket: bytes) -> None:
        """Dials back to `target` in the background; beyond 128 at once it is refused over the stream."""
        task = asyncio.create_task(self._serve(self._channel_to(target), ticket), name="relay")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    def _channel_to(self, target: str) -> grpc.aio.Channel:
        """One connection for all streams to a controller; that to an earlier one ends with its last stream."""
        if self._channel is None or self._target != target:
            server = controller_name(self._cluster)
            self._channel = open_channel(target, server=server, identity=self._identity)
            self._target = target
        return self._channel

    async def _serve(self, channel: grpc.aio.Channel, ticket: bytes) -> None:
        stub = session_pb2_grpc.AgentServiceStub(channel)
        call: Call = stub.Relay()
        try:
            async with Pipe(call, lambda: until_over(stub, ticket)) as pipe:
                await self._converse(pipe, ticket)
        except (grpc.aio.AioRpcError, TimeoutError, VerackError) as error:
            log.info("stream ended early", why=_why(error))
        except Exception:
            log.exception("stream failed unexpectedly")

    async def _converse(self, pipe: Pipe, ticket: bytes) -> None:
        await pipe.send(session_pb2.RelayUp(ticket=ticket))
        async with asyncio.timeout(FIRST_FRAME_LIMIT_S):
            first = await pipe.receive()
        if first is not None:
            await self._answer(pipe, first)
            await pipe.finish()

    async def _answer(self, pipe: Pipe, first: session_pb2.RelayDown) -> None:
        try:
            await self._dispatch(pipe, first)
        except VerackError as error:
            failure = api_pb2.Failure(kind=error.kind, message=error.message, hint=error.hint)
            if first.WhichOneof("frame") == "exec":
                await pipe.send(session_pb2.RelayUp(exec=api_pb2.ExecResponse(failure=failure)))
            else:
                await pipe.send(session_pb2.RelayUp(failure=failure))

    async def _dispatch(self, pipe: Pipe, first: session_pb2.RelayDown) -> None:
        if len(self._tasks) > RELAYS_AT_ONCE:
            raise RemoteFailed(
                f"this host serves {RELAYS_AT_ONCE} streams already",
                hint="end some exec or logs sessions, or try again later",
            )
        match first.WhichOneof("frame"):
            case "exec":
                instance = self._worker(first.uid).instance
                if first.exec.start.console:
                    await self._consoles.serve(pipe, instance, first.exec.start)
                else:
                    await serve_exec(pipe, self._runtime, instance, first.exec)
            case "logs":
                console = self._runtime.console(self._worker(first.uid).uid)
                await serve_logs(pipe, console, first.logs)
            case "upload":
                await serve_upload(pipe, self._images, self._manager.image_added)
            case "pull":
                await serve_pull(pipe, self._images, first.pull, self._manager.image_added)
            case "push_files" | "pull_files" | "export_root":
                await self._serve_files(pipe, first)
            case other:
                raise InvalidInput(f"a stream can't begin with {other}")

    async def _serve_files(self, pipe: Pipe, first: session_pb2.RelayDown) -> None:
        worker = self._worker(first.uid)
        if worker.record is None:
            raise NotFound("this VE is not here yet", hint="see why: vectl show")
        id_base = worker.record.id_base
        if first.WhichOneof("frame") == "export_root":
            await self._files.export(pipe, worker.uid, id_base, first.export_root.snapshot)
            return
        if worker.instance is not None and self._runtime.frozen(worker.uid):
            raise Conflict("the VE is frozen", hint="thaw it first")
        if first.WhichOneof("frame") == "push_files":
            await self._files.push(pipe, worker.uid, worker.instance, id_base, first.push_files)
        else:
            await self._files.pull(pipe, worker.uid, worker.instance, id_base, first.pull_files)

    def _worker(self, uid: str) -> Worker:
        worker = self._manager.worker(Uid(uid))
        if worker is None:
            raise NotFound(f"this host knows no VE {uid}", hint="look where it is: vectl show")
        return worker


async def until_over(stub: "session_pb2_grpc.AgentServiceAsyncStub", ticket: bytes) -> None:
    """A second stream of a ticket ends with the first; when that is over already, it is refused."""
    call: Call = stub.Relay()
    try:
        with suppress(grpc.aio.AioRpcError):
            await call.write(session_pb2.RelayUp(ticket=ticket))
            await call.read()
    finally:
        call.cancel()


def _why(error: Exception) -> str:
    """One line: gRPC's own words for a stream whose person has gone are many, and say nothing of use."""
    match error:
        case VerackError():
            return error.message
        case grpc.aio.AioRpcError():
            return f"the other side ended it ({error.code().name})"
        case _:
            return f"nothing was asked for {FIRST_FRAME_LIMIT_S:g} s"
