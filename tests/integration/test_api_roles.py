"""Who may call what: roles, certificates and names."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from kit import certs
from kit.apiserved import (
    AGENT_METHODS,
    USER_METHODS,
    Served,
    call,
    full,
    identity,
    make_identities,
    serving,
)
from veapi.channel import (
    CLIENT_OPTIONS,
    Identity,
    Role,
    controller_name,
    open_channel,
    server_credentials,
)
from veapi.errors import Denied, InvalidInput, NotFound
from veapi.rpc import from_rpc
from veapi.v1 import api_pb2, api_pb2_grpc
from vecontroller.identity import create_ca, issue


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_identities(tmp_path_factory.mktemp("identity"))


@pytest.fixture
async def served(ca: Path) -> AsyncIterator[Served]:
    async with serving(ca) as served:
        yield served


@pytest.mark.parametrize("role", [Role.HOST, Role.CONTROLLER])
async def test_no_method_for_users_can_be_called_by_another_role(
    served: Served, role: Role
) -> None:
    before = dict(served.rig.model.etcd.items)
    async with served.channel(role) as channel:
        for method in USER_METHODS:
            with pytest.raises(Denied, match=f"{role.value}.* may not call") as refused:
                await call(channel, method)
            assert refused.value.hint, full(method)
    assert served.rig.model.etcd.items == before


@pytest.mark.parametrize("role", [Role.USER, Role.CONTROLLER])
async def test_no_method_for_agents_can_be_called_by_another_role(
    served: Served, role: Role
) -> None:
    async with served.channel(role) as channel:
        for method in AGENT_METHODS:
            with pytest.raises(Denied, match="may not call"):
                await call(channel, method)


async def test_hosts_may_call_what_is_for_agents(served: Served) -> None:
    async with served.channel(Role.HOST) as channel:
        for method in AGENT_METHODS:
            assert await call(channel, method) == []


async def test_users_reach_every_method_that_is_for_them(served: Served) -> None:
    async with served.channel() as channel:
        for method in USER_METHODS:
            # An empty request is wrong, or followed for ever: both have passed the door.
            with contextlib.suppress(InvalidInput, NotFound, TimeoutError):
                await asyncio.wait_for(call(channel, method), 0.2)


async def test_a_certificate_of_another_ca_gets_no_connection(
    served: Served, tmp_path: Path
) -> None:
    create_ca(tmp_path / "ca", "rack")
    issue(tmp_path / "ca", Role.USER, "ann", tmp_path / "ann")
    forged = Identity(
        served.ca / "user" / "ca.crt", tmp_path / "ann" / "tls.crt", tmp_path / "ann" / "tls.key"
    )
    async with served.channel_as(forged) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api_pb2_grpc.SystemServiceStub(channel).Version(
                api_pb2.VersionRequest(), timeout=2
            )
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_without_a_certificate_there_is_no_connection(served: Served) -> None:
    roots = (served.ca / "user" / "ca.crt").read_bytes()
    options = [*CLIENT_OPTIONS, ("grpc.ssl_target_name_override", "controller.rack")]
    credentials = grpc.ssl_channel_credentials(roots)
    async with grpc.aio.secure_channel(served.target, credentials, options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api_pb2_grpc.SystemServiceStub(channel).Version(
                api_pb2.VersionRequest(), timeout=2
            )
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("name", ["ann.user.other", "ann.user.rack.example.org", "ann", "rack"])
async def test_a_name_that_is_no_role_of_this_cluster_is_denied(served: Served, name: str) -> None:
    who = certs.issue(served.ca / "ca", name)
    async with served.channel_as(who) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api_pb2_grpc.SystemServiceStub(channel).Version(api_pb2.VersionRequest())
    error = from_rpc(refused.value)
    assert isinstance(error, Denied)
    assert "vecontroller cert" in error.hint


async def test_a_host_can_not_pose_as_the_controller(ca: Path) -> None:
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", server_credentials(identity(ca / "host")))
    await server.start()
    try:
        channel = open_channel(
            f"127.0.0.1:{port}", server=controller_name("rack"), identity=identity(ca / "user")
        )
        async with channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await api_pb2_grpc.SystemServiceStub(channel).Version(
                    api_pb2.VersionRequest(), timeout=2
                )
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(0)
