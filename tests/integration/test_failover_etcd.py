"""A host is lost and comes back, on a real etcd and real gRPC: agents are scripted, and say that they are armed."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import grpc.aio
import msgspec
import pytest

from kit.certs import issue, make_ca
from kit.etcds import lasting_etcd, store_of
from kit.eventually import eventually
from kit.failing import fenced_ve, fencing_facts
from kit.fakeagent import KEPT_BYTES, done
from kit.leadingcontroller import CLUSTER, controller, wipe
from veapi.model import Action, Cluster, FenceFacts, HostName, OnHostLoss, Timing, Uid
from veapi.v1 import session_pb2
from vecontroller.failover.judge import Why
from vecontroller.leader import init_cluster
from vecontroller.store import keys, values
from vecontroller.store.port import Put

QUICK = Timing(heartbeat_s=0.1, fence_after_s=1.2, kill_within_s=0.2, move_after_s=1.6)
U1 = Uid("u1")
HOSTS = ("h1", "h2", "h3")
FACTS = fencing_facts(fence=FenceFacts(live=True, timing=QUICK))


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with lasting_etcd(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    ca = make_ca(tmp_path_factory.mktemp("pki"), CLUSTER)
    names = ("controller.rack", *(f"{host}.host.rack" for host in HOSTS))
    return {name.split(".")[0]: issue(ca, name) for name in names}


class Host:
    """An agent with its heartbeats. `answers`: how many of them were answered."""

    def __init__(self, agent):
        self.agent = agent
        self.answers = 0

    async def beat(self):
        call = self.agent.stub.Heartbeat()
        reading = asyncio.create_task(self._read(call))
        try:
            for seq in range(1, 10_000):
                await call.write(session_pb2.HeartbeatUp(seq=seq))
                await asyncio.sleep(QUICK.heartbeat_s)
        finally:
            reading.cancel()
            call.cancel()

    async def _read(self, call):
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while isinstance(await call.read(), session_pb2.HeartbeatDown):
                self.answers += 1


@asynccontextmanager
async def living(running, name, **options):
    async with running.agent(name, facts=FACTS, **options) as agent:
        host = Host(agent)
        beating = asyncio.create_task(host.beat())
        try:
            yield host
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)


@asynccontextmanager
async def rack(etcd, identities):
    """A controller and three hosts; `lose` ends one of them."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(store_of(etcd))
        await init_cluster(store, Cluster(name=CLUSTER, timing=QUICK))
        running = await stack.enter_async_context(controller(etcd, identities))
        await eventually(lambda: running.core.standing.serving)
        lives = {name: AsyncExitStack() for name in HOSTS}
        running.hosts = {
            name: await life.enter_async_context(living(running, name, obedient=True))
            for name, life in lives.items()
        }
        for life in lives.values():
            stack.push_async_callback(life.aclose)
        running.lose = lambda name: lives[name].aclose()
        await eventually(lambda: len(running.core.mirror.view.hosts) == len(HOSTS))
        yield running


async def put_fenced(running, policy=OnHostLoss.RECREATE):
    """It runs, armed; gives the name of its host."""
    ve = fenced_ve(U1)
    ve = msgspec.structs.replace(ve, spec=msgspec.structs.replace(ve.spec, on_host_loss=policy))
    put = Put(key=keys.ve_spec(U1), value=values.encode_ve(ve))
    await running.core.writer.commit([], [put], confirm=None)
    await eventually(lambda: running.state(U1) is not None)
    return running.place(U1)


async def test_a_ve_of_a_lost_host_moves_and_the_host_is_answered_once_it_knows(
    etcd, identities
) -> None:
    async with rack(etcd, identities) as running:
        view = running.core.mirror.view
        lost = await put_fenced(running)
        await running.lose(lost)
        await eventually(lambda: running.place(U1) != lost, timeout_s=20)
        (entry,) = running.hosts[running.place(U1)].agent.entries
        assert (entry.action, entry.placement_generation, entry.root_since) == (Action.RUN, 2, 2)
        left = view.left[HostName(lost), U1].value
        assert left.unconfirmed

        async with living(running, lost, acks=False) as back:
            await eventually(lambda: back.agent.sets)
            (kept,) = back.agent.entries
            assert (kept.action, kept.placement_generation) == (Action.KEEP, 1)
            await asyncio.sleep(3 * QUICK.heartbeat_s)
            assert back.answers == 0
            await back.agent.ack(back.agent.sets[-1])
            await eventually(lambda: back.answers > 0)
            await back.agent.report(done(kept), whole=True)
            left = view.left[HostName(lost), U1].value
            assert (left.unconfirmed, left.disk_used_bytes) == (False, KEPT_BYTES)
        assert view.placements[U1].value.host != lost
        await clear(running)


async def test_two_silent_hosts_of_three_stop_all_moves(etcd, identities) -> None:
    async with rack(etcd, identities) as running:
        lost = await put_fenced(running)
        other = next(name for name in HOSTS if name != lost)
        await asyncio.gather(running.lose(lost), running.lose(other))
        moves, view = running.core.moves, running.core.mirror.view
        await eventually(lambda: view.cluster.value.moves_stopped, timeout_s=20)
        assert "2 of 3 hosts" in view.cluster.value.moves_stopped
        assert moves.waits[U1].why is Why.MOVES_STOPPED
        assert running.place(U1) == lost
        await clear(running)


async def clear(running):
    """For the next test: no VE, and a record without a word about moves."""
    await wipe(running.core)
    record = msgspec.structs.replace(running.core.mirror.view.cluster.value, moves_stopped="")
    put = Put(key=keys.CLUSTER, value=values.encode_cluster(record))
    await running.core.store.transact([], [put])
