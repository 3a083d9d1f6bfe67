"""The parts of a controller, put together around a store: mirror, writer, scheduler, sessions; and what it does as leader."""

import asyncio
import secrets
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import structlog

from veapi.clock import Clock
from veapi.daemon import forever
from veapi.errors import Unavailable
from veapi.groups import TaskGroup
from veapi.model import Cluster, Project, Timing
from vecontroller.admission import Admission
from vecontroller.copies import REPLICAS, Copies
from vecontroller.failover.moves import Counts, Moves
from vecontroller.holding import Reserved
from vecontroller.hostsession import Roster
from vecontroller.imagesource import ImageSources
from vecontroller.leader import Leadership, acquire, keep
from vecontroller.liveness import Liveness
from vecontroller.mirror import Mirror
from vecontroller.placement.rules import PLAIN, Rules
from vecontroller.ports import Passes
from vecontroller.purging import Purging
from vecontroller.relay import Relays
from vecontroller.reports import Reports
from vecontroller.scheduler import Scheduler
from vecontroller.sessions import SessionDeps, Sessions
from vecontroller.snapshotting import Snapshotting
from vecontroller.standing import Standing
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put, Store
from vecontroller.store.values import Unreadable
from vecontroller.topic import Topic
from vecontroller.writer import LostRace, Writer

log = structlog.get_logger()
DEFAULT_PROJECT = "default"
TICKET_BYTES = 16
KEEP_DELETED_S = 86_400.0
LOOK_FOR_LEADER_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """One controller without its servers. `address` is host:port that others dial; `keep_deleted_s` of roots of deleted VEs."""

    name: str
    address: str
    cluster: Cluster
    store: Store
    clock: Clock
    topic: Topic
    standing: Standing
    mirror: Mirror
    writer: Writer
    liveness: Liveness
    reports: Reports
    relays: Relays
    sessions: Sessions
    scheduler: Scheduler
    purging: Purging
    snapshotting: Snapshotting
    moves: Moves
    reserved: Reserved
    keep_deleted_s: float
    rules: Rules


def new_op_id() -> str:
    return str(uuid.uuid4())


def new_ticket() -> bytes:
    return secrets.token_bytes(TICKET_BYTES)


def compose(  # noqa: PLR0913 - the composition root
    *,
    name: str,
    address: str,
    cluster: Cluster,
    store: Store,
    clock: Clock,
    passes: Passes | None = None,
    replicas: int = REPLICAS,
    keep_deleted_s: float = KEEP_DELETED_S,
    rules: Rules = PLAIN,
    counts: Counts | None = None,
) -> Core:
    """Wires the parts; nothing runs yet."""
    topic, standing = Topic(), Standing()
    mirror = Mirror(store, topic, clock)
    writer = Writer(store, mirror, lambda: standing.leadership)
    reserved = Reserved(clock)
    reports = Reports(mirror, writer, clock, keep_deleted_s=keep_deleted_s)
    deps = _session_deps(name, cluster, mirror, reports, standing, topic, clock, replicas)
    scheduler = _scheduler(mirror, writer, deps, reserved, passes, rules)
    return Core(
        name=name,
        address=address,
        cluster=cluster,
        store=store,
        clock=clock,
        topic=topic,
        standing=standing,
        mirror=mirror,
        writer=writer,
        liveness=deps.liveness,
        reports=deps.reports,
        relays=deps.relays,
        sessions=Sessions(deps, Admission(mirror, writer, clock, new_op_id=new_op_id)),
        scheduler=scheduler,
        purging=Purging(mirror, writer, clock, new_op_id=new_op_id),
        snapshotting=Snapshotting(
            *(mirror, writer, deps.liveness, topic, clock), new_op_id=new_op_id, reserved=reserved
        ),
        moves=_moves(mirror, writer, deps, scheduler, reserved, counts, keep_deleted_s, rules),
        reserved=reserved,
        keep_deleted_s=keep_deleted_s,
        rules=rules,
    )


def _scheduler(
    mirror: Mirror,
    writer: Writer,
    deps: SessionDeps,
    reserved: Reserved,
    passes: Passes | None,
    rules: Rules,
) -> Scheduler:
    return Scheduler(
        *(mirror, writer, deps.liveness, deps.topic, deps.clock),
        new_op_id=new_op_id,
        passes=passes,
        reserved=reserved,
        rules=rules,
    )


def _moves(
    mirror: Mirror,
    writer: Writer,
    deps: SessionDeps,
    scheduler: Scheduler,
    reserved: Reserved,
    counts: Counts | None,
    keep_deleted_s: float,
    rules: Rules,
) -> Moves:
    return Moves(
        *(mirror, writer, deps.liveness, scheduler, deps.topic, deps.clock),
        new_op_id=new_op_id,
        reserved=reserved,
        keep_deleted_s=keep_deleted_s,
        counts=counts,
        rules=rules,
    )


def _session_deps(
    name: str,
    cluster: Cluster,
    mirror: Mirror,
    reports: Reports,
    standing: Standing,
    topic: Topic,
    clock: Clock,
    replicas: int,
) -> SessionDeps:
    roster = Roster()
    liveness = Liveness(
        topic, clock, timing=lambda: _timing(mirror, cluster), revision=lambda: mirror.view.revision
    )
    return SessionDeps(
        controller=name,
        cluster=cluster,
        view=lambda: mirror.view,
        topic=topic,
        clock=clock,
        term=standing.term,
        leader=lambda: standing.leader,
        roster=roster,
        liveness=liveness,
        reports=reports,
        relays=Relays(roster.tell, clock, new_ticket=new_ticket),
        sources=ImageSources(
            lambda: mirror.view, liveness, roster.tell, clock, new_ticket=new_ticket
        ),
        copies=Copies(lambda: mirror.view, liveness.gone, replicas=replicas),
    )


def _timing(mirror: Mirror, cluster: Cluster) -> Timing:
    held = mirror.view.cluster
    return (held.value if held is not None else cluster).timing


async def lead(
    core: Core, beside: Callable[[], Coroutine[object, object, object]], *, patience_s: float
) -> None:
    """Waits until this controller leads, then does what a leader does, and `beside`, for ever.

    Raises an exception group with EndedEarly("leadership") or NotLeader when it is deposed.
    """
    looking = asyncio.create_task(_look_for_leader(core))
    try:
        leadership = await acquire(
            core.store,
            name=core.name,
            address=core.address,
            run_id=new_op_id(),
            clock=core.clock,
            patience_s=patience_s,
        )
    finally:
        looking.cancel()
    core.standing.leadership = leadership
    core.standing.leader_address = core.address
    try:
        await _serve(core, leadership, beside)
    finally:
        core.standing.ready = False
        core.standing.leader_address = ""
        await leadership.resign()


async def _serve(
    core: Core, leadership: Leadership, beside: Callable[[], Coroutine[object, object, object]]
) -> None:
    async with TaskGroup() as group:
        group.create_task(forever("leadership", keep(leadership)))
        await core.mirror.start()
        group.create_task(forever("mirror", core.mirror.run()))
        # Its own leader key in the view: so is all that the leader before it wrote.
        await core.mirror.reached(leadership.epoch)
        await _make_default_project(core)
        group.create_task(forever("reports", core.reports.run()))
        group.create_task(forever("liveness", core.liveness.run()))
        group.create_task(forever("sessions", core.sessions.run()))
        group.create_task(forever("scheduler", core.scheduler.run()))
        group.create_task(forever("moves", core.moves.run()))
        group.create_task(forever("purging", core.purging.run()))
        group.create_task(forever("snapshotting", core.snapshotting.run()))
        group.create_task(forever("beside", beside()))
        core.standing.ready = True
        log.info("leading", epoch=leadership.epoch, ves=len(core.mirror.view.ves))


async def _make_default_project(core: Core) -> None:
    if core.mirror.view.projects:
        return
    key, op_id = keys.project(DEFAULT_PROJECT), new_op_id()
    project = Project(name=DEFAULT_PROJECT, created_at=core.clock.wall(), op_id=op_id)
    try:
        await core.writer.commit(
            [Guard(key=key, mod_revision=0)],
            [Put(key=key, value=values.encode_project(project))],
            confirm=(key, op_id),
        )
    except LostRace:
        log.info("default project is there already")


async def _look_for_leader(core: Core) -> None:
    """Keeps the leader's address, for those who ask us while we wait."""
    while True:
        try:
            item = await core.store.get(keys.LEADER)
            core.standing.leader_address = (
                values.decode_leader(item.value).address if item is not None else ""
            )
        except (Unavailable, Unreadable) as error:
            log.info("leader unknown", why=error.message)
        await core.clock.sleep(LOOK_FOR_LEADER_S)
