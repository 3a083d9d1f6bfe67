"""vectl and a controller that goes away, keeps silent, can't be reached or is another cluster's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from kit import fakeapi
from kit.certs import issue, make_ca
from kit.eventually import eventually
from kit.fakeapi import FakeApi
from kit.vectlrun import Ran, Vectl, ended
from veapi.channel import SERVER_OPTIONS, Identity, server_credentials


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[FakeApi]:
    async with fakeapi.serve(tmp_path) as served:
        yield served


@pytest.fixture
def vectl(api: FakeApi, tmp_path: Path) -> Vectl:
    return Vectl(api, tmp_path)


async def test_a_wait_survives_the_loss_of_the_controller(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/c.sock"
    async with fakeapi.serve(tmp_path, listen) as api:
        vectl = Vectl(api, tmp_path)
        process = await vectl.start("create", "web", "--image", "slow")
        await eventually(lambda: "Creating" in [ve.status.state for ve in api.cluster.ves.values()])
        await api.server.stop(0)
        second = grpc.aio.server(options=SERVER_OPTIONS)
        fakeapi.add(second, api.cluster)
        second.add_secure_port(listen, server_credentials(issue(api.ca, "controller.rack")))
        await second.start()
        api.cluster.release()
        ran = await ended(process)
        await second.stop(0)
    assert ran == Ran(0, "ve/web created: Running on h1, 10.66.0.2\n", ran.err)


@pytest.mark.parametrize(
    "endpoint", ["unix:/nonexistent/c.sock", "127.0.0.1:1", "nohost.invalid:1"]
)
async def test_an_unreachable_controller_is_named(vectl: Vectl, endpoint: str) -> None:
    ran = await vectl("--endpoint", endpoint, "list", code=8)
    assert f"can't reach the controller at {endpoint}" in ran.err
    assert "Hint: " in ran.err


async def test_a_silent_controller_is_given_up(vectl: Vectl) -> None:
    silent = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    ran = await vectl("--endpoint", f"127.0.0.1:{port}", "list", code=8)
    assert f"127.0.0.1:{port}" in ran.err
    silent.close()


async def test_certificates_that_are_not_of_the_cluster_are_denied(
    vectl: Vectl, api: FakeApi, tmp_path: Path
) -> None:
    ours, other = api.identity, issue(make_ca(tmp_path / "other", "rack"), "ann.user.rack")
    vectl.context(other)
    assert "don't trust" in (await vectl("list", code=7)).err
    vectl.context(Identity(ca=ours.ca, cert=other.cert, key=other.key))
    assert "don't trust" in (await vectl("list", code=7)).err
    vectl.context(api.issue("h1.host.rack"))
    assert "only for users" in (await vectl("version", code=7)).err
    vectl.context(Identity(ca=tmp_path / "missing", cert=ours.cert, key=ours.key))
    assert "can't read" in (await vectl("list", code=2)).err
