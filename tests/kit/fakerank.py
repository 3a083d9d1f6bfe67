"""Fake controllers of one cluster, of which one leads: real gRPC and mTLS, and the product's own gate."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from kit import fakeapi
from kit.certs import issue, make_ca
from kit.fakecluster import CLUSTER, FakeCluster
from veapi.channel import SERVER_OPTIONS, Identity, server_credentials
from vecontroller.leader import NotLeader
from vecontroller.standing import Gate, Standing
from vectl.context import Context


class Rank(Standing):
    """Leads when the test says so."""

    leads = False

    @property
    def serving(self) -> bool:
        return self.leads

    def refusal(self) -> NotLeader:
        return NotLeader("this controller does not lead", hint="ask the leader")


@dataclass
class FakeController:
    """One of them. `endpoint` is host:port."""

    rank: Rank
    endpoint: str
    server: Any

    async def die(self) -> None:
        await self.server.stop(0)


@dataclass
class FakeRank:
    """All of them, on one cluster's state."""

    cluster: FakeCluster
    controllers: list[FakeController]
    ca: Path
    user: Identity

    def lead(self, number: int) -> None:
        """That one leads now, and all know it."""
        for index, controller in enumerate(self.controllers):
            controller.rank.leads = index == number
            controller.rank.leader_address = self.controllers[number].endpoint

    def context(self, *numbers: int) -> Context:
        """That names these."""
        return Context(
            name="rack",
            endpoints=tuple(self.controllers[number].endpoint for number in numbers),
            cluster=CLUSTER,
            ca=self.user.ca,
            cert=self.user.cert,
            key=self.user.key,
        )


@asynccontextmanager
async def serve(folder: Path, *names: str) -> AsyncIterator[FakeRank]:
    """One fake controller for each name in a certificate; nobody leads yet."""
    ca = make_ca(folder / "ca", CLUSTER)
    cluster = FakeCluster()
    controllers = [await _start(cluster, issue(ca, name)) for name in names]
    try:
        yield FakeRank(cluster, controllers, ca, issue(ca, f"ann.user.{CLUSTER}"))
    finally:
        cluster.release()
        for controller in controllers:
            await controller.die()


async def _start(cluster: FakeCluster, identity: Identity) -> FakeController:
    rank = Rank()
    server = grpc.aio.server(interceptors=[Gate(rank)], options=SERVER_OPTIONS)
    fakeapi.add(server, cluster)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(identity))
    await server.start()
    return FakeController(rank, f"127.0.0.1:{port}", server)
