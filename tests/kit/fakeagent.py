"""A scripted agent over real gRPC: registers, acknowledges sets, and says what a test tells it to."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc.aio

from kit.eventually import eventually
from kit.world import make_facts
from veapi import codec
from veapi.channel import Identity, controller_name, open_channel
from veapi.model import (
    Action,
    HostFacts,
    HostSet,
    OnHostLoss,
    SetEntry,
    Uid,
    VEReport,
    VEState,
    VEStatus,
)
from veapi.v1 import session_pb2, session_pb2_grpc


class FakeAgent:
    """One session. With `obedient` it reports at once that everything in its set is as it shall be."""

    def __init__(
        self,
        stub: "session_pb2_grpc.AgentServiceAsyncStub",
        *,
        facts: HostFacts,
        obedient: bool,
        acks: bool,
    ) -> None:
        self.stub = stub
        self.facts = facts
        self.obedient = obedient
        self.acks = acks
        self.welcome: session_pb2.Welcome | None = None
        self.sets: list[HostSet] = []
        self.acked: set[int] = set()
        self.dial_backs: list[bytes] = []
        self.grants: list[session_pb2.PeerGrant] = []
        self.sources: list[session_pb2.ImageSource] = []
        self.ended: grpc.aio.AioRpcError | None = None
        self._saying = asyncio.Lock()
        self._seq = itertools.count(1)
        self._told: dict[Uid, VEReport] = {}
        self._call = stub.Session()

    @property
    def entries(self) -> tuple[SetEntry, ...]:
        """Of the newest set."""
        return self.sets[-1].entries if self.sets else ()

    async def greet(self) -> None:
        hello = session_pb2.Hello(facts=codec.facts_out(self.facts))
        await self._call.write(session_pb2.SessionUp(hello=hello))

    async def read(self) -> None:
        """Until the session ends."""
        try:
            while isinstance(message := await self._call.read(), session_pb2.SessionDown):
                await self._take(message)
        except grpc.aio.AioRpcError as error:
            self.ended = error

    async def say(self, message: session_pb2.SessionUp) -> None:
        """One at a time: two writes at once on one call are an error of gRPC's core, which then loses the call's end."""
        async with self._saying:
            await self._call.write(message)

    async def report(
        self, *ves: VEReport, whole: bool = False, facts: HostFacts | None = None
    ) -> None:
        """Returns once it is acknowledged."""
        seq = next(self._seq)
        report = session_pb2.Report(
            seq=seq,
            whole=whole,
            ves=[codec.report_out(each) for each in ves],
            facts=codec.facts_out(facts) if facts else None,
        )
        await self.say(session_pb2.SessionUp(report=report))
        await eventually(lambda: seq in self.acked)

    async def _take(self, message: session_pb2.SessionDown) -> None:
        match message.WhichOneof("message"):
            case "welcome":
                self.welcome = message.welcome
            case "set":
                await self._take_set(codec.host_set_in(message.set))
            case "report_ack":
                self.acked.add(message.report_ack.seq)
            case "dial_back":
                self.dial_backs.append(message.dial_back.ticket)
            case "peer_grant":
                self.grants.append(message.peer_grant)
            case "image_source":
                self.sources.append(message.image_source)

    async def _take_set(self, host_set: HostSet) -> None:
        self.sets.append(host_set)
        if self.acks:
            await self.ack(host_set)
        if self.obedient:
            news = [done(entry) for entry in host_set.entries]
            news = [each for each in news if self._told.get(each.uid) != each]
            self._told.update({each.uid: each for each in news})
            report = session_pb2.Report(
                seq=next(self._seq), ves=[codec.report_out(each) for each in news]
            )
            await self.say(session_pb2.SessionUp(report=report))

    async def ack(self, host_set: HostSet) -> None:
        order = codec.order_out(host_set.order)
        await self.say(session_pb2.SessionUp(set_ack=session_pb2.SetAck(order=order)))


KEPT_BYTES = 5 << 20
_STATES = {Action.RUN: VEState.RUNNING, Action.FREEZE: VEState.FROZEN}


def done(entry: SetEntry) -> VEReport:
    """The report that says that what the entry asks is so."""
    return VEReport(
        uid=entry.uid,
        name=entry.name,
        project=entry.project,
        status=VEStatus(
            state=_STATES.get(entry.action, VEState.STOPPED),
            addresses=(entry.ip,),
            observed_generation=entry.generation,
            observed_restart_seq=entry.restart_seq,
            observed_root_seq=entry.root.seq,
            placement_generation=entry.placement_generation,
            armed_generation=0
            if entry.spec.on_host_loss is OnHostLoss.STAY
            else entry.policy_generation,
            disk_used_bytes=KEPT_BYTES if entry.action is Action.KEEP else 0,
        ),
        gone=entry.action is Action.PURGE,
        kept=entry.action is Action.KEEP,
    )


@asynccontextmanager
async def agent_channel(target: str, cluster: str, identity: Identity) -> AsyncIterator:
    async with open_channel(target, server=controller_name(cluster), identity=identity) as channel:
        yield session_pb2_grpc.AgentServiceStub(channel)


@asynccontextmanager
async def fake_agent(
    target: str,
    cluster: str,
    identity: Identity,
    *,
    facts: HostFacts | None = None,
    obedient: bool = False,
    acks: bool = True,
) -> AsyncIterator[FakeAgent]:
    """A session that has said Hello and reads, until the block ends."""
    async with agent_channel(target, cluster, identity) as stub:
        agent = FakeAgent(stub, facts=facts or make_facts(), obedient=obedient, acks=acks)
        # One that is refused at once can't even say Hello; reading tells why.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await agent.greet()
        reading = asyncio.create_task(agent.read())
        try:
            yield agent
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
