"""How a client's connection begins, and begins again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from kit import certs
from kit.fakecontroller import CLUSTER, FakeController, running_controller
from kit.proxy import proxied
from veapi.channel import Identity, controller_name, host_name, open_channel
from veapi.v1 import session_pb2, session_pb2_grpc

SLOW_HANDSHAKE_S = 0.4


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[FakeController]:
    async with running_controller(tmp_path) as controller:
        yield controller


@pytest.fixture
def identity(controller: FakeController) -> Identity:
    return certs.issue(controller.ca, host_name("h1", CLUSTER))


async def beat(channel: grpc.aio.Channel) -> bool:
    """Whether one heartbeat is answered; it does not wait for a connection that failed."""
    call = session_pb2_grpc.AgentServiceStub(channel).Heartbeat()
    try:
        await call.write(session_pb2.HeartbeatUp(seq=1))
        answer = await call.read()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return False
    finally:
        call.cancel()
    return isinstance(answer, session_pb2.HeartbeatDown)


async def test_a_slow_first_handshake_is_not_cut_off(
    controller: FakeController, identity: Identity
) -> None:
    """As on a busy machine, or between distant ones."""
    server = controller_name(CLUSTER)
    async with proxied(controller.address) as proxy:
        proxy.freeze()
        async with open_channel(proxy.endpoint, server=server, identity=identity) as channel:
            asyncio.get_running_loop().call_later(SLOW_HANDSHAKE_S, proxy.thaw)
            assert await beat(channel)
        assert proxy.connections == 1


async def test_a_channel_finds_its_server_again(
    controller: FakeController, identity: Identity
) -> None:
    server = controller_name(CLUSTER)
    async with open_channel(controller.address, server=server, identity=identity) as channel:
        assert await beat(channel)
        await controller.stop()
        assert not await beat(channel)
        await controller.start()
        for _ in range(1000):
            if await beat(channel):
                return
            await asyncio.sleep(0.01)
    pytest.fail("the channel does not find its server")
