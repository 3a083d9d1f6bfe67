"""A leader that stood still while another took over: nothing that it does has an effect. Real processes, SIGSTOP, real etcd."""

import asyncio
import signal

import grpc
import grpc.aio
import pytest

from kit.etcds import forget_data, lasting_etcd  # noqa: F401 - a fixture
from kit.eventually import eventually
from kit.fakeagent import agent_channel, fake_agent
from kit.standbys import CLUSTER, standbys
from veapi.channel import controller_name, open_channel
from veapi.model import HostName
from veapi.v1 import api_pb2, api_pb2_grpc, session_pb2
from vectl.client import Client

EXIT_DEPOSED = 75
H1 = HostName("h1")


@pytest.fixture
def pair(tmp_path):
    with (
        lasting_etcd(tmp_path / "etcd") as etcd,
        standbys(tmp_path, [etcd.endpoint], etcd.client_identity) as found,
    ):
        yield found


async def leads(pair, *controllers, term=1):
    return await asyncio.to_thread(pair.until_leads, *controllers, term=term)


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 30)
    return caught.value


async def test_its_writes_and_acknowledgements_are_refused_and_it_ends_as_deposed(pair):
    old, new = pair.all
    async with (
        open_channel(
            old.address, server=controller_name(CLUSTER), identity=pair.user
        ) as users_channel,
        agent_channel(old.address, CLUSTER, pair.host) as agent,
    ):
        projects = api_pb2_grpc.ProjectServiceStub(users_channel)
        await projects.Create(api_pb2.CreateProjectRequest(name="before"), timeout=10)
        beats = agent.Heartbeat()
        await beats.write(session_pb2.HeartbeatUp(seq=1))
        assert (await asyncio.wait_for(beats.read(), 10)).seq == 1

        old.send(signal.SIGSTOP)
        request = api_pb2.CreateProjectRequest(name="zombies")
        writing = asyncio.ensure_future(projects.Create(request, timeout=60))
        await beats.write(session_pb2.HeartbeatUp(seq=2))
        await leads(pair, new)
        async with Client.connect(pair.context()) as client:
            epoch = (await client.version()).epoch
            await client.create_project("after")
            old.send(signal.SIGCONT)

            assert (await refusal(writing)).code() is grpc.StatusCode.UNAVAILABLE
            assert (await refusal(beats.read())).code() is grpc.StatusCode.UNAVAILABLE
            assert await asyncio.to_thread(old.process.wait, 30) == EXIT_DEPOSED
            names = {project.name for project in await client.projects()}
            assert names == {"default", "before", "after"}
            assert (await client.version()).epoch == epoch
    assert "Traceback" not in old.log()
    assert old.terms() == 1


async def test_its_sets_are_older_than_those_of_the_new_leader(pair):
    old, new = pair.all
    async with fake_agent(old.address, CLUSTER, pair.host) as before:
        await eventually(lambda: before.sets)
        old.send(signal.SIGSTOP)
        await leads(pair, new)
        async with fake_agent(new.address, CLUSTER, pair.host) as after:
            await eventually(lambda: after.sets)
            old.send(signal.SIGCONT)
            await eventually(lambda: before.ended, timeout_s=30)
            assert all(one.order < after.sets[0].order for one in before.sets)
            assert before.ended is not None
            assert before.ended.code() is grpc.StatusCode.UNAVAILABLE


async def test_whoever_waits_with_it_goes_on_with_the_new_leader(pair):
    old, new = pair.all
    async with Client.connect(pair.context(old)) as client:
        old.send(signal.SIGSTOP)
        await leads(pair, new)
        asking = asyncio.ensure_future(client.create_project("once"))
        await asyncio.sleep(0.2)
        old.send(signal.SIGCONT)
        assert (await asyncio.wait_for(asking, 30)).name == "once"
        assert (await client.version()).leader == new.name


async def test_started_again_it_stands_by_and_takes_over_in_its_turn(pair):
    old, new = pair.all
    old.end()
    await leads(pair, new)
    old.start()
    await asyncio.sleep(1)
    assert old.terms() == 1
    new.send(signal.SIGTERM)
    await leads(pair, old, term=2)
    async with Client.connect(pair.context(new, old)) as client:
        assert (await client.version()).leader == old.name
