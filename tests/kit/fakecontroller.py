"""A controller that does what its test says: real gRPC and mTLS, no store."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from kit import certs
from veapi import codec
from veapi.channel import (
    SERVER_OPTIONS,
    Caller,
    caller,
    controller_name,
    host_name,
    server_credentials,
)
from veapi.model import HostSet, Order, Timing, VEReport, VEState
from veapi.v1 import session_pb2, session_pb2_grpc

CLUSTER = "kit"


class Session:
    """One agent's session, as the test sees it."""

    def __init__(self, hello: session_pb2.Hello) -> None:
        self.hello = hello
        self.down: asyncio.Queue[session_pb2.SessionDown | None] = asyncio.Queue()
        self.reports: list[session_pb2.Report] = []
        self.acks: list[Order] = []
        self.images_wanted: list[str] = []
        self.ves: dict[str, VEReport] = {}
        self.states: list[tuple[str, VEState, str]] = []

    def push(self, host_set: HostSet) -> None:
        self.down.put_nowait(session_pb2.SessionDown(set=codec.host_set_out(host_set)))

    def end(self) -> None:
        self.down.put_nowait(None)

    def take(self, message: session_pb2.SessionUp) -> None:
        match message.WhichOneof("message"):
            case "report":
                self._take_report(message.report)
            case "set_ack":
                self.acks.append(codec.order_in(message.set_ack.order))
            case "image_wanted":
                self.images_wanted.append(message.image_wanted.digest)

    def _take_report(self, report: session_pb2.Report) -> None:
        self.reports.append(report)
        if report.whole:
            self.ves = {}
        for each in report.ves:
            found = codec.report_in(each)
            self.ves[found.uid] = found
            self.states.append((found.uid, found.status.state, found.status.reason))
        ack = session_pb2.ReportAck(seq=report.seq)
        self.down.put_nowait(session_pb2.SessionDown(report_ack=ack))

    def state(self, uid: str) -> VEState | None:
        return self.ves[uid].status.state if uid in self.ves else None


class Relay:
    """A stream that the agent dialled back for."""

    def __init__(self) -> None:
        self.down: asyncio.Queue[session_pb2.RelayDown | None] = asyncio.Queue()
        self.up: list[session_pb2.RelayUp] = []
        self.ended = asyncio.Event()
        self.broken = False
        self.left = asyncio.Event()

    def abort(self) -> None:
        """Ends it with an error, as when its person has gone."""
        self.broken = True
        self.down.put_nowait(None)

    def frames(self, kind: str) -> list[session_pb2.RelayUp]:
        return [frame for frame in self.up if frame.WhichOneof("frame") == kind]


class FakeController(session_pb2_grpc.AgentServiceServicer):
    """Welcomes every host, answers heartbeats (unless `deaf`), acknowledges reports."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "controller.sock"
        self.ca = certs.make_ca(folder / "ca", CLUSTER)
        self.identity = certs.issue(self.ca, controller_name(CLUSTER))
        self.cluster = CLUSTER
        self.sessions: list[Session] = []
        self.callers: list[Caller] = []
        self.heartbeats = 0
        self.deaf = False
        self.leader = ""
        self.port = 0
        self._relays: dict[bytes, Relay] = {}
        self._served: dict[bytes, Relay] = {}
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def session(self) -> Session:
        return self.sessions[-1]

    async def start(self) -> None:
        """On the port that it had before, if any."""
        server = grpc.aio.server(options=SERVER_OPTIONS)
        session_pb2_grpc.add_AgentServiceServicer_to_server(self, server)
        self.port = server.add_secure_port(
            f"127.0.0.1:{self.port}", server_credentials(self.identity)
        )
        server.add_secure_port(f"unix:{self.socket}", server_credentials(self.identity))
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """At once, as by SIGKILL."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def relay(self, first: session_pb2.RelayDown) -> Relay:
        """Asks the newest session's host to dial back, for a stream that begins with `first`."""
        relay, ticket = Relay(), os.urandom(16)
        relay.down.put_nowait(first)
        self._relays[ticket] = relay
        self.session.down.put_nowait(
            session_pb2.SessionDown(dial_back=session_pb2.DialBack(ticket=ticket))
        )
        return relay

    # The service.

    async def Session(self, request_iterator, context):  # noqa: N802
        self.callers.append(caller(context, CLUSTER))
        if self.leader:
            metadata = (("verack-leader", self.leader),)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not the leader", metadata)
        first = await anext(aiter(request_iterator))
        session = Session(first.hello)
        self.sessions.append(session)
        yield session_pb2.SessionDown(
            welcome=session_pb2.Welcome(
                controller="kit",
                epoch=1,
                incarnation=1,
                cluster=self.cluster,
                timing=codec.timing_out(Timing(heartbeat_s=0.1, fence_after_s=2.0)),
            )
        )
        reading = asyncio.create_task(_read(request_iterator, session.take))
        try:
            while (message := await session.down.get()) is not None:
                yield message
        finally:
            reading.cancel()

    async def Heartbeat(self, request_iterator, context):  # noqa: N802
        async for beat in request_iterator:
            self.heartbeats += 1
            if not self.deaf:
                yield session_pb2.HeartbeatDown(seq=beat.seq, epoch=1)

    async def Relay(self, request_iterator, context):  # noqa: N802
        frames = aiter(request_iterator)
        ticket = (await anext(frames)).ticket
        if ticket in self._served:  # of an agent that reads no more
            await self._served[ticket].left.wait()
            return
        relay = self._served[ticket] = self._relays.pop(ticket)
        reading = asyncio.create_task(_read_relay(frames, relay))
        try:
            while (frame := await relay.down.get()) is not None:
                yield frame
            if relay.broken:
                await context.abort(grpc.StatusCode.ABORTED, "the person has gone")
        finally:
            reading.cancel()
            relay.left.set()
            relay.ended.set()


async def _read(requests, take: Callable[[session_pb2.SessionUp], None]) -> None:
    async for message in requests:
        take(message)


async def _read_relay(frames: AsyncIterator[session_pb2.RelayUp], relay: Relay) -> None:
    async for frame in frames:
        relay.up.append(frame)
    relay.down.put_nowait(None)


@asynccontextmanager
async def running_controller(folder: Path) -> AsyncIterator[FakeController]:
    controller = FakeController(folder)
    await controller.start()
    try:
        yield controller
    finally:
        await controller.stop()


def agent_config(
    folder: Path, controller: FakeController, host: str, *, controllers: Sequence[str] = ()
) -> Path:
    """agent.toml of a fake host of that controller; its ports are the system's choice."""
    identity = certs.issue(controller.ca, host_name(host, CLUSTER))
    targets = list(controllers or [controller.address])
    path = folder / f"{host}.toml"
    path.write_text(
        f"""\
host = "{host}"
cluster = "{CLUSTER}"
controllers = {targets!r}
address = "127.0.0.1"
state = "{folder / host}"
runtime = "fake"

[labels]
rack = "r1"

[tls]
ca = "{identity.ca}"
cert = "{identity.cert}"
key = "{identity.key}"

[metrics]
listen = "127.0.0.1:0"

[peer]
listen = "127.0.0.1:0"

[fence]
folder = "{folder / host}-fence"

[capacity]
cpu = 4
memory = "8G"
"""
    )
    return path
