"""Who leads answers; who does not says who does."""

import asyncio

import grpc
import grpc.aio
import pytest

from kit.etcds import lasting_etcd
from kit.eventually import eventually
from kit.leadingcontroller import CLUSTER, controller, fresh_controller, make_identities
from veapi.channel import controller_name, open_channel
from veapi.model import HostName
from veapi.v1 import api_pb2, api_pb2_grpc, session_pb2

H1 = HostName("h1")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with lasting_etcd(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    return make_identities(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def running(etcd, identities):
    async with fresh_controller(etcd, identities) as found:
        yield found


async def test_heartbeats_are_answered_by_the_leader(running):
    async with running.stub("h1") as stub:
        call = stub.Heartbeat()
        for seq in (1, 2):
            await call.write(session_pb2.HeartbeatUp(seq=seq))
            answer = await asyncio.wait_for(call.read(), 5)
            assert (answer.seq, answer.epoch) == (seq, running.core.standing.epoch)
        assert running.core.sessions.last_heartbeat(H1) is not None


async def test_a_deposed_leader_answers_no_heartbeat(etcd, identities, running):
    async with running.stub("h1") as stub:
        call = stub.Heartbeat()
        await call.write(session_pb2.HeartbeatUp(seq=1))
        assert (await asyncio.wait_for(call.read(), 5)).seq == 1
        async with controller(etcd, identities, name="c2") as second:
            await eventually(lambda: second.core.standing.serving)
            await call.write(session_pb2.HeartbeatUp(seq=2))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(call.read(), 5)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            await eventually(running.leading.done)


async def test_a_standby_sends_everybody_to_the_leader(etcd, identities, running):
    async with controller(etcd, identities, name="c2", patience_s=60.0) as standby:
        await eventually(lambda: standby.core.standing.leader_address)
        async with standby.agent() as agent:
            await eventually(lambda: agent.ended)
        assert agent.ended.code() is grpc.StatusCode.UNAVAILABLE
        assert dict(agent.ended.trailing_metadata())["verack-leader"] == "10.0.0.1:7443"


async def test_a_standby_tells_users_where_the_leader_is(etcd, identities, running):
    async with controller(etcd, identities, name="c2", patience_s=60.0) as standby:
        await eventually(lambda: standby.core.standing.leader_address)
        for target, leads in ((running.target, True), (standby.target, False)):
            async with open_channel(
                target, server=controller_name(CLUSTER), identity=identities["ann"]
            ) as channel:
                ask = api_pb2_grpc.SystemServiceStub(channel).Version(api_pb2.VersionRequest())
                if leads:
                    assert (await ask).epoch == running.core.standing.epoch
                    continue
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                assert dict(caught.value.trailing_metadata())["verack-leader"] == "10.0.0.1:7443"
