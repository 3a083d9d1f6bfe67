"""A controller's core that leads on a real etcd, served over real gRPC and mTLS."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from kit.certs import issue, make_ca
from kit.etcds import store_of
from kit.eventually import eventually
from kit.fakeagent import agent_channel, fake_agent
from kit.world import make_ve
from veapi.channel import Identity
from veapi.clock import SystemClock
from veapi.model import Cluster, Uid
from veapi.v1 import session_pb2_grpc
from vecontroller.api.guard import GuardInterceptor
from vecontroller.api.register import register
from vecontroller.app import api_deps
from vecontroller.core import Core, compose, lead
from vecontroller.incarnation import is_unconfirmed
from vecontroller.leader import init_cluster
from vecontroller.listening import listening
from vecontroller.standing import Gate
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put

CLUSTER = "rack"


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


def _guard(core):
    return GuardInterceptor(CLUSTER, standstill=lambda: is_unconfirmed(core.mirror.view))


def add_services(server, core):
    session_pb2_grpc.add_AgentServiceServicer_to_server(core.sessions, server)
    return register(server, api_deps(core))


@asynccontextmanager
async def controller(etcd, identities, *, name="c1", patience_s=0.0):
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(store_of(etcd))
        cluster = await init_cluster(store, Cluster(name=CLUSTER))
        core = compose(
            name=name, address="10.0.0.1:7443", cluster=cluster, store=store, clock=SystemClock()
        )
        apis = []
        ports = await stack.enter_async_context(
            listening(
                ["127.0.0.1:0"],
                identities["controller"],
                interceptors=[Gate(core.standing), _guard(core)],
                add_services=lambda server: apis.append(add_services(server, core)),
            )
        )
        leading = asyncio.create_task(lead(core, apis[0].run, patience_s=patience_s))
        try:
            yield Running(core, f"127.0.0.1:{ports['127.0.0.1:0']}", identities, leading)
        finally:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)


async def wipe(core):
    store = core.store
    for prefix in ("group/", "ve/", "addr/", "host/", "image/"):
        for item in (await store.list(keys.ROOT + prefix)).items:
            await store.transact([], [Delete(key=item.key)])


def make_identities(folder):
    """By the first part of their names: controller, h1, h2, ann."""
    ca = make_ca(folder, CLUSTER)
    names = ("controller.rack", "h1.host.rack", "h2.host.rack", "ann.user.rack")
    return {name.split(".")[0]: issue(ca, name) for name in names}


@asynccontextmanager
async def fresh_controller(etcd, identities):
    """It leads; afterwards the store holds no VE and no host for the next test."""
    async with controller(etcd, identities) as found:
        await eventually(lambda: found.core.standing.serving)
        yield found
        await wipe(found.core)
