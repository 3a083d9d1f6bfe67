"""The API over real gRPC and mTLS on loopback; the store is a model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
from google.protobuf import message_factory

from kit.apirig import ApiRig, api_rig
from veapi.channel import (
    CLIENT_OPTIONS,
    SERVER_OPTIONS,
    Identity,
    Role,
    controller_name,
    open_channel,
    server_credentials,
)
from veapi.rpc import from_rpc
from veapi.v1 import (
    api_pb2,
    plan_pb2,
    scheduler_pb2,
    session_pb2,
    session_pb2_grpc,
    simulate_pb2,
)
from vecontroller.api.guard import GuardInterceptor
from vecontroller.api.register import register
from vecontroller.identity import create_ca, issue

USER_METHODS = [
    method
    for module in (api_pb2, plan_pb2, scheduler_pb2, simulate_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
AGENT_METHODS = list(session_pb2.DESCRIPTOR.services_by_name["AgentService"].methods)


class Agents(session_pb2_grpc.AgentServiceServicer):
    """Ends every stream at once, in both styles of handlers."""

    async def Session(self, request_iterator, context):  # noqa: N802
        if False:
            yield

    async def Heartbeat(self, request_iterator, context):  # type: ignore[override]  # noqa: N802
        return

    async def Relay(self, request_iterator, context):  # noqa: N802
        if False:
            yield


def identity(folder: Path) -> Identity:
    return Identity(folder / "ca.crt", folder / "tls.crt", folder / "tls.key")


class Served:
    """A controller's API that is served, and channels to it."""

    def __init__(self, rig: ApiRig, ca: Path, port: int) -> None:
        self.rig = rig
        self.ca = ca
        self.target = f"127.0.0.1:{port}"

    @asynccontextmanager
    async def channel(self, role: Role = Role.USER) -> AsyncIterator[grpc.aio.Channel]:
        async with self.channel_as(identity(self.ca / role.value)) as channel:
            yield channel

    @asynccontextmanager
    async def channel_as(self, who: Identity) -> AsyncIterator[grpc.aio.Channel]:
        channel = open_channel(self.target, server=controller_name("rack"), identity=who)
        async with channel:
            yield channel

    def narrow_channel(self) -> grpc.aio.Channel:
        """Takes 64 KiB ahead of its reader, and no more."""
        who = identity(self.ca / "user")
        ca, cert, key = who.read()
        options = [
            *CLIENT_OPTIONS,
            ("grpc.ssl_target_name_override", controller_name("rack")),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", 65_536),
        ]
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        return grpc.aio.secure_channel(self.target, credentials, options=options)


@asynccontextmanager
async def serving(ca: Path, **options) -> AsyncIterator[Served]:
    async with api_rig() as rig:
        interceptor = GuardInterceptor("rack", **options)
        server = grpc.aio.server(interceptors=[interceptor], options=SERVER_OPTIONS)
        register(server, rig.deps)
        session_pb2_grpc.add_AgentServiceServicer_to_server(Agents(), server)
        credentials = server_credentials(identity(ca / "controller"))
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        try:
            yield Served(rig, ca, port)
        finally:
            await server.stop(0)


async def call(channel: grpc.aio.Channel, method, request=None) -> list:
    """All answers of any kind of method, found by its descriptor. Raises veapi.errors."""
    kinds = {False: "unary", True: "stream"}
    kind = f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}"
    make = getattr(channel, kind)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    message = request or message_factory.GetMessageClass(method.input_type)()
    argument = iter([message]) if method.client_streaming else message
    try:
        if method.server_streaming:
            return [answer async for answer in make(argument, timeout=5)]
        return [await make(argument, timeout=5)]
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None


def make_identities(folder: Path) -> Path:
    """A CA in `folder`/ca, and one identity a role below its name."""
    create_ca(folder / "ca", "rack")
    for role, name in ((Role.CONTROLLER, "c1"), (Role.HOST, "h1"), (Role.USER, "ann")):
        issue(folder / "ca", role, name, folder / role.value)
    return folder


def full(method) -> str:
    name: str = method.full_name
    return name.removeprefix("veapi.v1.")
