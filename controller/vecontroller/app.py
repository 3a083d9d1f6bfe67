"""A running controller: its store, its servers, and its term as leader, from a configuration until it is told to stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

import grpc.aio
import structlog
from prometheus_client import CollectorRegistry

from veapi.clock import Clock, SystemClock
from veapi.errors import Unavailable
from veapi.exposition import serve_metrics
from veapi.model import Cluster
from veapi.programmetrics import program_registry
from veapi.rpcmetrics import RpcMetrics
from veapi.v1 import session_pb2_grpc
from vecontroller.api.guard import GuardInterceptor
from vecontroller.api.patience import PatientCommits
from vecontroller.api.ports import ApiDeps, RandomIds, no_snapshot
from vecontroller.api.register import Api, register
from vecontroller.config import Config
from vecontroller.core import Core, compose, lead
from vecontroller.identity import make_etcd_identity
from vecontroller.incarnation import is_unconfirmed
from vecontroller.leader import TAKEOVER_AFTER_S, init_cluster
from vecontroller.listening import listening
from vecontroller.metrics import ControllerMetrics, FailoverMetrics, SchedulerMetrics, Sources
from vecontroller.standing import Gate
from vecontroller.store.embedded import running_etcd
from vecontroller.store.etcd import EtcdStore
from vecontroller.store.port import Store

log = structlog.get_logger()
STORE_AGAIN_S = 1.0


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Runs until `stop` is set, then ends cleanly. Raises a group with NotLeader or EndedEarly when it is deposed."""
    config.tls.identity.read()  # before anything is started
    clock, registry = SystemClock(), program_registry()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(_open_store(config, clock))
        cluster = await _join_cluster(store, config.new_cluster, clock, stop)
        if cluster is None:
            return
        core = compose(
            name=config.name,
            address=config.address,
            cluster=cluster,
            store=store,
            clock=clock,
            passes=SchedulerMetrics(registry),
            counts=FailoverMetrics(registry),
            replicas=config.images.replicas,
            keep_deleted_s=config.deleted.keep_s,
            rules=config.placement.rules,
        )
        api = await stack.enter_async_context(_serving(config, core, registry))
        patience_s = 0.0 if config.etcd.embedded else TAKEOVER_AFTER_S
        await _lead_until(stop, core, api, patience_s)


@asynccontextmanager
async def _open_store(config: Config, clock: Clock) -> AsyncIterator[EtcdStore]:
    """Of the embedded etcd, which runs as long, or of the external one."""
    async with AsyncExitStack() as stack:
        if config.etcd.embedded:
            identity = make_etcd_identity(config.data / "etcd-identity")
            etcd = await stack.enter_async_context(
                running_etcd(config.data / "etcd", identity=identity, clock=clock)
            )
            store = EtcdStore([etcd.endpoint], etcd.client_identity)
        else:
            store = EtcdStore(config.etcd.endpoints, config.etcd.identity)
        stack.push_async_callback(store.aclose)
        yield store


async def _join_cluster(
    store: Store, wanted: Cluster, clock: Clock, stop: asyncio.Event
) -> Cluster | None:
    """The cluster's record; a store that is not there (yet) is waited for. None when it was stopped meanwhile.

    Machines of a rack start in any order: a controller that ended for want of etcd would only be started again.
    """
    while not stop.is_set():
        try:
            return await init_cluster(store, wanted)
        except Unavailable as error:
            log.warning("store not available", why=error.message, hint=error.hint)
        await clock.sleep(STORE_AGAIN_S)
    return None


@asynccontextmanager
async def _serving(config: Config, core: Core, registry: CollectorRegistry) -> AsyncIterator[Api]:
    """All calls and /metrics; calls are let in once we lead."""
    registered: list[Api] = []

    def add_services(server: grpc.aio.Server) -> None:
        session_pb2_grpc.add_AgentServiceServicer_to_server(core.sessions, server)
        registered.append(register(server, api_deps(core)))

    guard = GuardInterceptor(
        core.cluster.name,
        leader_address=lambda: core.standing.leader,
        standstill=lambda: is_unconfirmed(core.mirror.view),
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            listening(
                config.listen,
                config.tls.identity,
                interceptors=[RpcMetrics(registry), Gate(core.standing), guard],
                add_services=add_services,
            )
        )
        if config.metrics:
            page = ControllerMetrics(
                name=core.name, sources=_sources(core, registered[0]), registry=registry
            )
            await stack.enter_async_context(
                serve_metrics(config.metrics, page.render, lambda: core.standing.healthy)
            )
        yield registered[0]


def api_deps(core: Core) -> ApiDeps:
    """What the API gets of a controller."""
    return ApiDeps(
        cluster=core.cluster.name,
        controller=core.name,
        version=version("verack"),
        mirror=core.mirror,
        writer=PatientCommits(core.writer, core.clock),
        topic=core.topic,
        scheduler=core.scheduler,
        hosts=core.sessions,
        orphans=core.reports,
        relays=core.relays,
        leader=core.standing,
        clock=core.clock,
        ids=RandomIds(),
        reserved=core.reserved,
        waits=lambda: core.moves.waits,
        keep_deleted_s=core.keep_deleted_s,
        rules=core.rules,
        snapshot=core.store.snapshot if isinstance(core.store, EtcdStore) else no_snapshot,
    )


def _sources(core: Core, api: Api) -> Sources:
    return Sources(
        view=lambda: core.mirror.view,
        epoch=lambda: core.standing.epoch if core.standing.serving else 0,
        host_state=core.sessions.host_state,
        last_heard_at=core.sessions.last_heartbeat,
        refusals=lambda: core.scheduler.refusals,
        waits=lambda: core.moves.waits,
        rules=core.rules,
        groups=api.keeper.all_shown,
    )


async def _lead_until(stop: asyncio.Event, core: Core, api: Api, patience_s: float) -> None:
    """Until `stop`; raises what ended the leadership otherwise."""
    leading = asyncio.create_task(lead(core, api.run, patience_s=patience_s))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((leading, stopping), return_when=asyncio.FIRST_COMPLETED)
        if leading.done():
            await leading
        log.info("stopping")
    finally:
        leading.cancel()
        stopping.cancel()
        await asyncio.gather(leading, stopping, return_exceptions=True)
