import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio
import pytest

from kit.certs import issue, make_ca
from kit.etcds import lasting_etcd, store_of
from kit.eventually import eventually
from kit.fakeagent import agent_channel, done, fake_agent
from kit.world import GIB, make_facts, make_ve
from veapi.channel import Identity, controller_name, open_channel
from veapi.clock import SystemClock
from veapi.model import (
    Action,
    Cluster,
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
from veapi.v1 import api_pb2, api_pb2_grpc, session_pb2, session_pb2_grpc
from vecontroller.api.guard import GuardInterceptor
from vecontroller.api.register import register
from vecontroller.app import api_deps
from vecontroller.core import Core, compose, lead
from vecontroller.leader import init_cluster
from vecontroller.listening import listening
from vecontroller.standing import Gate
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put

CLUSTER = "rack"
H1, H2 = HostName("h1"), HostName("h2")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with lasting_etcd(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    folder = make_ca(tmp_path_factory.mktemp("pki"), CLUSTER)
    names = ("controller.rack", "h1.host.rack", "h2.host.rack", "ann.user.rack")
    return {name.split(".")[0]: issue(folder, name) for name in names}


@dataclass
class Running:
    """A controller that leads, and how to reach it."""

    core: Core
    target: str
    identities: dict[str, Identity]
    leading: asyncio.Task

    def agent(self, host="h1", **options):
        return fake_agent(self.target, CLUSTER, self.identities[host], **options)

    def stub(self, name):
        return agent_channel(self.target, CLUSTER, self.identities[name])

    async def put_ve(self, uid, **options):
        ve = make_ve(uid, **options)
        revision = self.core.mirror.view.ves.get(ve.uid)
        await self.core.writer.commit(
            [
                Guard(
                    key=keys.ve_spec(ve.uid), mod_revision=revision.mod_revision if revision else 0
                )
            ],
            [
                Put(key=keys.ve_spec(ve.uid), value=values.encode_ve(ve)),
                Put(key=keys.ve_name(ve.project, ve.name), value=values.encode_ref(ve.uid)),
                Put(key=keys.address("default", ve.ip), value=values.encode_ref(ve.uid)),
            ],
            confirm=None,
        )

    def state(self, uid):
        held = self.core.mirror.view.statuses.get(Uid(uid))
        return held.value.state if held else None

    def place(self, uid):
        held = self.core.mirror.view.placements.get(Uid(uid))
        return held.value.host if held else None


def add_services(server, core):
    session_pb2_grpc.add_AgentServiceServicer_to_server(core.sessions, server)
    register(server, api_deps(core))


async def no_more():
    await asyncio.Event().wait()


@asynccontextmanager
async def controller(etcd, identities, *, name="c1", patience_s=0.0):
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(store_of(etcd))
        cluster = await init_cluster(store, Cluster(name=CLUSTER))
        core = compose(
            name=name, address="10.0.0.1:7443", cluster=cluster, store=store, clock=SystemClock()
        )
        ports = await stack.enter_async_context(
            listening(
                ["127.0.0.1:0"],
                identities["controller"],
                interceptors=[Gate(core.standing), GuardInterceptor(CLUSTER)],
                add_services=lambda server: add_services(server, core),
            )
        )
        leading = asyncio.create_task(lead(core, no_more, patience_s=patience_s))
        try:
            yield Running(core, f"127.0.0.1:{ports['127.0.0.1:0']}", identities, leading)
        finally:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)


@pytest.fixture
async def running(etcd, identities):
    async with controller(etcd, identities) as found:
        await eventually(lambda: found.core.standing.serving)
        yield found
        await wipe(found.core)


async def wipe(core):
    """The next test finds no VE and no host."""
    store = core.store
    for prefix in ("ve/", "addr/", "host/", "image/"):
        for item in (await store.list(keys.ROOT + prefix)).items:
            await store.transact([], [Delete(key=item.key)])


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
        await eventually(lambda: agent.entries == ())
        assert [each.action for s in agent.sets for each in s.entries][-1] is Action.PURGE


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


async def test_a_user_can_not_pose_as_a_host(running):
    async with running.agent("ann") as agent:
        await eventually(lambda: agent.ended)
        assert agent.ended.code() is grpc.StatusCode.PERMISSION_DENIED


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
        assert agent.ended.code() is grpc.StatusCode.INVALID_ARGUMENT
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


async def test_an_agent_that_acknowledges_no_set_still_gets_its_answers(running):
    async with running.agent(acks=False) as agent:
        await eventually(lambda: agent.sets)
        await running.put_ve("u1")
        await eventually(lambda: running.place("u1") == H1)
        await agent.report(whole=True)
        assert len(agent.sets) == 1
