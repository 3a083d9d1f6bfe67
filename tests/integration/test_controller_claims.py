"""What a host claims is checked before it counts."""

import grpc
import grpc.aio
import pytest

from kit.etcds import lasting_etcd
from kit.eventually import eventually
from kit.leadingcontroller import fresh_controller, make_identities
from kit.world import make_facts
from veapi.model import HostName
from veapi.v1 import session_pb2

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


async def test_a_user_can_not_pose_as_a_host(running):
    async with running.agent("ann") as agent:
        await eventually(lambda: agent.ended)
        assert agent.ended.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_session_that_does_not_begin_with_hello_is_refused(running):
    async with running.stub("h1") as stub:
        call = stub.Session()
        await call.write(session_pb2.SessionUp(set_ack=session_pb2.SetAck()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_host_that_gives_a_name_for_its_address_is_refused_with_a_reason(running):
    async with running.agent(facts=make_facts(address="h1.example")) as agent:
        await eventually(lambda: agent.ended)
        # Internal: a heartbeat's write came after the end, and gRPC lost the word of it.
        refused = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL}
        assert agent.ended.code() in refused
        assert "address: 'h1.example'" in agent.ended.details()
    assert H1 not in running.core.mirror.view.hosts


async def test_a_report_that_makes_no_sense_ends_the_session_with_a_reason(running):
    async with running.agent() as agent:
        await eventually(lambda: agent.sets)
        ve = session_pb2.VEReport(uid="u1")
        ve.status.state = "Dancing"
        await agent.say(session_pb2.SessionUp(report=session_pb2.Report(seq=1, ves=[ve])))
        await eventually(lambda: agent.ended)
        assert agent.ended.code() is grpc.StatusCode.INVALID_ARGUMENT
    await eventually(lambda: not running.core.sessions.connected(H1))


async def test_a_claim_out_of_bounds_ends_that_session_and_no_other(running):
    async with running.agent("h2") as other, running.agent() as agent:
        await eventually(lambda: agent.sets and other.sets)
        facts = session_pb2.HostFacts(boot_id="b")
        facts.capacity.memory_bytes = 2**62
        await agent.say(session_pb2.SessionUp(report=session_pb2.Report(seq=1, facts=facts)))
        await eventually(lambda: agent.ended)
        assert agent.ended.code() is grpc.StatusCode.INVALID_ARGUMENT
        await eventually(lambda: not running.core.sessions.connected(H1))
        assert running.core.sessions.connected(HostName("h2"))
        assert not other.ended
    await eventually(lambda: H1 in running.core.mirror.view.hosts)
    assert running.core.mirror.view.hosts[H1].value == make_facts()
