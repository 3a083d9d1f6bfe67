import asyncio
from contextlib import suppress

import grpc
import grpc.aio
import pytest

from kit.etcds import lasting_etcd
from kit.eventually import eventually
from kit.fakeagent import KEPT_BYTES, done
from kit.leadingcontroller import CLUSTER, controller, fresh_controller, make_identities, wipe
from kit.world import GIB, make_facts
from veagent.pipe import Pipe
from veagent.streams import until_over
from veapi.errors import Unavailable
from veapi.model import (
    Action,
    Digest,
    HeldImage,
    HostName,
    HostState,
    Resources,
    Uid,
    VEReport,
    VEState,
    VEStatus,
)
from veapi.v1 import session_pb2
from vecontroller.purging import marked
from vecontroller.store import keys, values

H1, H2 = HostName("h1"), HostName("h2")


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


async def test_a_host_registers_gets_its_set_and_its_ve_runs(running):
    await running.put_ve("u1")
    await eventually(lambda: running.core.scheduler.refusals)
    async with running.agent(obedient=True) as agent:
        await eventually(lambda: running.state("u1") is VEState.RUNNING)
        assert agent.welcome.cluster == CLUSTER
        assert agent.welcome.epoch == running.core.standing.epoch
        assert running.place("u1") == H1
        assert running.core.sessions.host_state(H1) is HostState.READY
        assert running.core.mirror.view.hosts[H1].value == make_facts()
        assert agent.sets[-1].order.epoch == running.core.standing.epoch
    await eventually(lambda: not running.core.sessions.connected(H1))


async def test_sets_follow_what_is_asked_until_the_ve_is_gone(running):
    async with running.agent(obedient=True) as agent:
        await running.put_ve("u1")
        await eventually(lambda: running.state("u1") is VEState.RUNNING)
        await running.put_ve("u1", generation=2, labels={"a": "b"})
        await eventually(lambda: agent.entries and agent.entries[0].labels == {"a": "b"})
        await running.put_ve("u1", delete_requested_at=5.0)
        await eventually(lambda: not running.core.mirror.view.ves)
        view = running.core.mirror.view
        assert not (view.placements or view.statuses or view.names or view.addresses)
        await eventually(lambda: [entry.action for entry in agent.entries] == [Action.KEEP])
        [kept] = view.deleted.values()
        assert kept.value.disk_used_bytes == KEPT_BYTES
        guard, put = marked(kept, "op")
        await running.core.writer.commit([guard], [put])
        await eventually(lambda: agent.entries == ())
        assert [each.action for s in agent.sets for each in s.entries][-1] is Action.PURGE
        assert not view.deleted


async def test_two_creates_can_not_overfill_a_host(running):
    tight = Resources(cpu_millis=9000, memory_bytes=GIB, disk_bytes=99 * GIB, pids=9999)
    async with running.agent(facts=make_facts(capacity=tight), obedient=True):
        await asyncio.gather(
            running.put_ve("u1"), running.put_ve("u2", ip="10.66.0.8", name="other")
        )
        await eventually(lambda: len(running.core.scheduler.refusals) == 1)
        await eventually(lambda: len(running.core.mirror.view.statuses) == 1)
        assert len(running.core.mirror.view.placements) == 1


async def test_a_newer_session_replaces_the_older(running):
    async with running.agent() as older, running.agent() as newer:
        await eventually(lambda: newer.sets)
        await eventually(lambda: older.ended)
        assert older.ended.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "newer session" in older.ended.details()
        await running.put_ve("u1")
        await eventually(lambda: newer.entries)
        assert running.core.sessions.connected(H1)


async def test_a_controller_that_starts_again_gives_the_same_set(etcd, identities):
    async with controller(etcd, identities) as first:
        await eventually(lambda: first.core.standing.serving)
        async with first.agent(obedient=True) as agent:
            await first.put_ve("u1")
            await eventually(lambda: first.state("u1") is VEState.RUNNING)
            before = agent.sets[-1]
    async with controller(etcd, identities) as second:
        await eventually(lambda: second.core.standing.serving)
        assert second.core.sessions.host_state(H1) is HostState.UNKNOWN
        async with second.agent() as agent:
            await eventually(lambda: agent.sets)
            after = agent.sets[-1]
            assert (after.entries, after.peers, after.images) == (
                before.entries,
                before.peers,
                before.images,
            )
            assert after.order > before.order
        await wipe(second.core)


async def test_a_report_is_acknowledged_once_it_is_in_the_store(running):
    async with running.agent() as agent:
        await running.put_ve("u1")
        await eventually(lambda: agent.entries)
        await agent.report(done(agent.entries[0]), whole=True)
        item = await running.core.store.get(keys.ve_status(Uid("u1")))
        status = values.decode_status(item.value)
        assert (status.state, status.host) == (VEState.RUNNING, "h1")


async def test_a_report_of_an_earlier_placement_or_of_anothers_ve_changes_nothing(running):
    async with running.agent() as agent, running.agent("h2") as stranger:
        await running.put_ve("u1", host="h1")
        await eventually(lambda: agent.entries)
        report = done(agent.entries[0])
        await stranger.report(report)
        old = VEStatus(state=VEState.FAILED, placement_generation=0)
        await agent.report(VEReport(uid=report.uid, name="n", project="p", status=old))
        assert running.state("u1") is None
        assert [each.uid for each in running.core.sessions.orphans(H2)] == ["u1"]
        assert running.core.sessions.orphans(H1) == ()


async def test_orphans_are_kept_in_mind_until_a_whole_report_lacks_them(running):
    status = VEStatus(state=VEState.STOPPED)
    orphan = VEReport(uid=Uid("lost"), name="n", project="p", status=status, orphan=True)
    async with running.agent() as agent:
        await agent.report(orphan, whole=True)
        assert [each.uid for each in running.core.sessions.orphans(H1)] == ["lost"]
        await agent.report(whole=True)
        assert running.core.sessions.orphans(H1) == ()


async def test_many_statuses_of_many_hosts_are_written_in_few_transactions(running):
    async with running.agent() as h1, running.agent("h2") as h2:
        for index in range(60):
            await running.put_ve(f"u{index:02}", ip=f"10.66.1.{index}")
        await eventually(lambda: len(running.core.mirror.view.placements) == 60)
        await eventually(lambda: sum(len(a.entries) for a in (h1, h2)) == 60)
        await asyncio.gather(
            *(agent.report(*(done(e) for e in agent.entries)) for agent in (h1, h2))
        )
        statuses = running.core.mirror.view.statuses
        assert len(statuses) == 60
        assert len({held.mod_revision for held in statuses.values()}) <= 4


async def test_a_host_that_lacks_an_image_is_sent_to_one_that_has_it(running):
    digest = Digest("sha256:" + "c" * 64)
    held = HeldImage(digest=digest, blob_digest="sha256:b", size_bytes=1, blob_bytes=1)
    async with (
        running.agent(facts=make_facts(images=(held,))) as giver,
        running.agent("h2") as asker,
    ):
        await eventually(lambda: {H1, H2} <= running.core.mirror.view.hosts.keys())
        wanted = session_pb2.ImageWanted(digest=digest)
        await asker.say(session_pb2.SessionUp(image_wanted=wanted))
        await eventually(lambda: asker.sources and giver.grants)
        assert asker.sources[0].peer == "h1"
        assert giver.grants[0].ticket == asker.sources[0].ticket
        assert giver.grants[0].peer == "h2"


async def test_a_relay_splices_a_person_and_the_host(running):
    async with running.agent() as agent, running.stub("h1") as stub:
        await eventually(lambda: running.core.sessions.connected(H1))
        first = session_pb2.RelayDown(uid="u1", logs=session_pb2.RelayLogs())
        opening = asyncio.create_task(running.core.relays.open(H1, first))
        await eventually(lambda: agent.dial_backs)
        call = stub.Relay()
        await call.write(session_pb2.RelayUp(ticket=agent.dial_backs[0]))
        assert (await call.read()).uid == "u1"
        pipe = await opening
        await call.write(session_pb2.RelayUp(log=b"hello"))
        assert (await pipe.receive()).log == b"hello"
        await pipe.send(session_pb2.RelayDown(end=True))
        assert (await call.read()).end
        pipe.close()
        assert await call.read() is grpc.aio.EOF
        assert running.core.relays.open_count() == 0


async def flood(pipe):
    with suppress(Unavailable):
        while True:
            await pipe.send(session_pb2.RelayDown(chunk=b"x" * 65_536))


async def test_a_host_that_reads_no_more_sees_that_the_person_has_gone(running):
    async with running.agent() as agent, running.stub("h1") as stub:
        await eventually(lambda: running.core.sessions.connected(H1))
        opening = asyncio.create_task(running.core.relays.open(H1, session_pb2.RelayDown(uid="u1")))
        await eventually(lambda: agent.dial_backs)
        ticket = agent.dial_backs[0]
        async with Pipe(stub.Relay(), lambda: until_over(stub, ticket)) as host_end:
            await host_end.send(session_pb2.RelayUp(ticket=ticket))
            pipe = await opening
            flooding = asyncio.create_task(flood(pipe))
            await eventually(lambda: pipe.watched)
            assert not host_end.gone.is_set()
            pipe.close()
            await eventually(host_end.gone.is_set)
            await flooding
    await eventually(lambda: running.core.relays.open_count() == 0)


async def test_a_relay_whose_agent_vanishes_breaks_for_the_person(running):
    async with running.agent() as agent:
        await eventually(lambda: running.core.sessions.connected(H1))
        opening = asyncio.create_task(running.core.relays.open(H1, session_pb2.RelayDown(uid="u1")))
        await eventually(lambda: agent.dial_backs)
        async with running.stub("h1") as stub:
            call = stub.Relay()
            await call.write(session_pb2.RelayUp(ticket=agent.dial_backs[0]))
            pipe = await opening
            call.cancel()
        await eventually(lambda: running.core.relays.open_count() == 0)
        pipe.close()


async def test_an_agent_that_acknowledges_no_set_still_gets_its_answers(running):
    async with running.agent(acks=False) as agent:
        await eventually(lambda: agent.sets)
        await running.put_ve("u1")
        await eventually(lambda: running.place("u1") == H1)
        await agent.report(whole=True)
        assert len(agent.sets) == 1
