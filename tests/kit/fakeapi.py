"""The controller's API over a dict, for tests of its clients: real gRPC and mTLS on loopback, no store and no hosts.

What a VE does is told by its image:
    ok       runs (the image that is there)
    slow     stays Creating until `release()`
    huge     no host fits it
    broken   fails on its host
Commands that exec knows are in `kit.fakeexec`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from kit.certs import issue, make_ca
from kit.fakecluster import CLUSTER, FakeCluster
from kit.fakescheduling import Scheduling
from kit.fakeservices import Hosts, Images, Projects, System
from kit.fakeves import VEs
from veapi.channel import SERVER_OPTIONS, Identity, server_credentials
from veapi.v1 import api_pb2_grpc, scheduler_pb2_grpc


@dataclass
class FakeApi:
    """A running fake controller. `endpoint` is host:port."""

    cluster: FakeCluster
    endpoint: str
    ca: Path
    server: Any
    identity: Identity

    def issue(self, dns_name: str) -> Identity:
        return issue(self.ca, dns_name)


@asynccontextmanager
async def serve(folder: Path, listen: str = "127.0.0.1:0") -> AsyncIterator[FakeApi]:
    """Serves until the block ends; certificates are made in `folder`."""
    ca = make_ca(folder / "ca", CLUSTER)
    cluster = FakeCluster()
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add(server, cluster)
    port = server.add_secure_port(listen, server_credentials(issue(ca, f"controller.{CLUSTER}")))
    await server.start()
    endpoint = listen if listen.startswith("unix:") else f"127.0.0.1:{port}"
    try:
        yield FakeApi(cluster, endpoint, ca, server, issue(ca, f"ann.user.{CLUSTER}"))
    finally:
        cluster.release()
        await server.stop(0)


def add(server: Any, cluster: FakeCluster) -> None:
    """All services on a server that is not started yet; methods that they lack are unimplemented."""
    ves = VEs(cluster)  # type: ignore[abstract]
    images = Images(cluster)  # type: ignore[abstract]
    projects = Projects(cluster)  # type: ignore[abstract]
    api_pb2_grpc.add_VEServiceServicer_to_server(ves, server)
    api_pb2_grpc.add_HostServiceServicer_to_server(Hosts(cluster), server)
    api_pb2_grpc.add_ImageServiceServicer_to_server(images, server)
    api_pb2_grpc.add_ProjectServiceServicer_to_server(projects, server)
    api_pb2_grpc.add_SystemServiceServicer_to_server(System(), server)
    scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(Scheduling(cluster), server)
