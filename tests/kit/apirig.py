"""The API over a model store: real mirror, writer and leadership; hosts, relays, refusals and ids as the test says."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, cast

import grpc.aio

from kit.manualclock import ManualClock
from kit.modelstore import ModelStore
from veapi.errors import Unavailable, VerackError
from veapi.model import (
    Cluster,
    Digest,
    HeldImage,
    HostFacts,
    HostName,
    HostState,
    Image,
    Network,
    Placement,
    Project,
    Resources,
    Uid,
    VEReport,
    VEState,
    VEStatus,
)
from veapi.v1 import api_pb2, session_pb2, types_pb2
from vecontroller.api.departed import Departed
from vecontroller.api.host import HostService
from vecontroller.api.image import ImageService
from vecontroller.api.inflight import InFlight
from vecontroller.api.orphan import OrphanService
from vecontroller.api.ports import ApiDeps
from vecontroller.api.project import ProjectService
from vecontroller.api.scheduling import SchedulerService
from vecontroller.api.system import SystemService
from vecontroller.api.ve import VEService
from vecontroller.holding import Reserved
from vecontroller.leader import acquire, init_cluster
from vecontroller.mirror import Mirror
from vecontroller.placement import Board, Refusal, host_rows
from vecontroller.removal import removal
from vecontroller.store import keys, values
from vecontroller.store.port import Put, Store
from vecontroller.topic import Topic
from vecontroller.view import Changed, View
from vecontroller.writer import Writer

GIB = 1 << 30
DEBIAN = Digest("sha256:" + "d" * 64)
ALPINE = Digest("sha256:" + "a" * 64)

T = TypeVar("T")

NO_CONTEXT = cast("grpc.aio.ServicerContext", None)
"""For methods that are called without a call of gRPC: what needs the context is not reached."""


class QuickClock:
    """Time stands still but for `now`; a sleep only gives way to others."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def boot(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class CountedIds:
    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def new(self) -> str:
        return f"id-{next(self._numbers):04}"


class Term:
    epoch = 7
    incarnation = 1


class FakeScheduler:
    def __init__(self) -> None:
        self.refusals: dict[Uid, Refusal] = {}
        self.given: dict[str, list[Resources]] = {}
        self.view: Callable[[], View] = View

    def coming(self, host: HostName) -> list[Resources]:
        return self.given.get(host, [])

    def board(self) -> Board:
        rows = host_rows(
            self.view(),
            state=lambda _host: HostState.READY,
            connected=lambda _host: True,
            in_flight={HostName(host): given for host, given in self.given.items()},
        )
        return Board(rows)


class FakeHosts:
    def __init__(self) -> None:
        self.states: dict[str, HostState] = {}
        self.all_hosts: Callable[[], frozenset[HostName]] = frozenset

    def host_state(self, host: HostName) -> HostState:
        return self.states.get(host, HostState.READY)

    def connected(self, host: HostName) -> bool:
        return self.host_state(host) is HostState.READY

    def silent_for(self, host: HostName) -> float:
        return 0.0 if self.host_state(host) is HostState.READY else 60.0

    def last_heartbeat(self, host: HostName) -> float | None:
        return 1_700_000_000.0

    def image_hosts(self, digest: Digest) -> frozenset[HostName]:
        return self.all_hosts()


class FakeOrphans:
    def __init__(self) -> None:
        self.held: dict[str, list[VEReport]] = {}

    def orphans(self, host: HostName) -> tuple[VEReport, ...]:
        return tuple(self.held.get(host, []))

    def has_reported(self, host: HostName) -> bool:
        return host in self.held


class FakePipe:
    """`sent`: what went down. The agent's side is what the test puts into `up`; None ends it."""

    def __init__(self) -> None:
        self.sent: list[session_pb2.RelayDown] = []
        self.up: asyncio.Queue[session_pb2.RelayUp | None] = asyncio.Queue()
        self.closed = False
        self.error: VerackError | None = None
        self._ended = asyncio.Event()

    async def send(self, message: session_pb2.RelayDown) -> None:
        if self.closed:
            raise Unavailable("the stream has ended")
        self.sent.append(message)

    async def receive(self) -> session_pb2.RelayUp | None:
        ended = asyncio.create_task(self._ended.wait())
        got = asyncio.create_task(self.up.get())
        try:
            await asyncio.wait([ended, got], return_when=asyncio.FIRST_COMPLETED)
            if got.done():
                return got.result()
            if self.error is not None:
                raise self.error
            return None
        finally:
            ended.cancel()
            got.cancel()

    def close(self, error: VerackError | None = None) -> None:
        if not self.closed:
            self.closed, self.error = True, error
            self._ended.set()


class FakeRelays:
    def __init__(self) -> None:
        self.opened: list[tuple[str, session_pb2.RelayDown]] = []
        self.pipe = FakePipe()
        self.away: set[str] = set()

    async def open(self, host: HostName, first: session_pb2.RelayDown) -> FakePipe:
        if host in self.away:
            raise Unavailable(f"host {host} is not connected", hint="wait")
        self.opened.append((host, first))
        return self.pipe


class ApiRig:
    """One controller that leads. `put_*` write what other parts of it would, by a client of their own."""

    def __init__(self, store: Store, outside: Store) -> None:
        self.store = store
        self.outside = outside
        self.clock = QuickClock()
        self.topic = Topic()
        self.mirror = Mirror(store, self.topic, ManualClock())
        self.scheduler = FakeScheduler()
        self.scheduler.view = lambda: self.mirror.view
        self.hosts = FakeHosts()
        self.hosts.all_hosts = lambda: frozenset(self.mirror.view.hosts)
        self.relays = FakeRelays()
        self.orphans = FakeOrphans()

    @property
    def model(self) -> ModelStore:
        """The store that fails on command; only for a rig that was not given another."""
        assert isinstance(self.store, ModelStore)
        return self.store

    async def begin(self, cluster: str, cidr: str) -> None:
        network = Network(cidr=cidr, gateway=cidr.rpartition(".")[0] + ".1")
        await init_cluster(self.store, Cluster(name=cluster, network=network))
        leadership = await acquire(
            self.store, name="c1", address="127.0.0.1:1", run_id="r1", clock=ManualClock()
        )
        await self.mirror.start()
        self.deps = ApiDeps(
            cluster=cluster,
            controller="c1",
            version="0.1.0",
            mirror=self.mirror,
            writer=Writer(self.store, self.mirror, lambda: leadership),
            topic=self.topic,
            scheduler=self.scheduler,
            hosts=self.hosts,
            orphans=self.orphans,
            relays=self.relays,
            leader=Term(),
            clock=self.clock,
            ids=CountedIds(),
            reserved=Reserved(self.clock),
        )
        self.in_flight, self.departed = InFlight(self.clock), Departed(self.deps)
        self.ve = VEService(self.deps, self.in_flight, self.departed)
        self.orphan = OrphanService(self.deps, self.in_flight)
        self.host = HostService(self.deps)
        self.scheduling = SchedulerService(self.deps)
        self.image = ImageService(self.deps, self.in_flight)
        self.project = ProjectService(self.deps)
        self.system = SystemService(self.deps)

    async def put(self, key: str, value: bytes) -> None:
        """As somebody else's write, seen by the mirror."""
        done = await self.outside.transact([], [Put(key=key, value=value)])
        await self.mirror.reached(done.revision)

    async def put_project(self, name: str = "default") -> None:
        await self.put(keys.project(name), values.encode_project(Project(name=name, created_at=1)))

    async def put_image(self, tag: str = "debian", digest: Digest = DEBIAN) -> None:
        image = Image(
            digest=digest, blob_digest="sha256:b", size_bytes=10, blob_bytes=5, created_at=1.0
        )
        await self.put(keys.image(digest), values.encode_image(image))
        await self.put(keys.image_tag(tag), values.encode_ref(digest))

    async def put_host(self, name: str = "h1", *, disk_gib: int = 100, images=()) -> None:
        facts = HostFacts(
            boot_id="b",
            version="0.1.0",
            labels={"rack": "r1"},
            capacity=Resources(
                cpu_millis=8000, memory_bytes=16 * GIB, disk_bytes=disk_gib * GIB, pids=32768
            ),
            address="10.88.0.11",
            peer_port=7444,
            images=tuple(
                HeldImage(digest=digest, blob_digest="sha256:b", size_bytes=10, blob_bytes=5)
                for digest in images
            ),
        )
        await self.put(keys.host_status(HostName(name)), values.encode_host_status(facts))

    async def place(self, uid: str, host: str = "h1") -> None:
        at = self.clock.wall() + 1
        placement = Placement(host=HostName(host), generation=1, decided_at=at)
        await self.put(keys.ve_placement(Uid(uid)), values.encode_placement(placement))

    async def report(self, uid: str, state: VEState, **fields) -> None:
        status = VEStatus(state=state, host="h1", placement_generation=1, **fields)
        await self.put(keys.ve_status(Uid(uid)), values.encode_status(status))

    async def remove(self, uid: str) -> None:
        """As the sessions do when a host says that all of it is gone."""
        _, writes = removal(self.mirror.view, Uid(uid))
        done = await self.outside.transact([], writes)
        await self.mirror.reached(done.revision)

    async def running(self, name: str = "web") -> types_pb2.VE:
        """A VE that runs on h1."""
        ve = await self.create(name)
        await self.place(ve.uid)
        await self.report(ve.uid, VEState.RUNNING)
        return await self.ve.Get(api_pb2.VERef(name=name), NO_CONTEXT)

    async def create(self, name: str = "web", request_id: str = "", **fields) -> types_pb2.VE:
        """`fields` go to the spec."""
        return await self.ve.Create(create_request(name, request_id, **fields), NO_CONTEXT)

    def publish(self, *uids: str) -> None:
        """As the scheduler does when refusals change."""
        ves = frozenset(Uid(uid) for uid in uids)
        self.topic.publish(Changed(revision=self.mirror.view.revision, ves=ves))

    def refuse(self, uid: str, message: str = "no room") -> None:
        self.scheduler.refusals[Uid(uid)] = Refusal(
            uid=Uid(uid), reason="NoHostFits", message=message, hint="wait", at=5.0
        )


def create_request(
    name: str = "web", request_id: str = "", *, project: str = "", labels=None, **fields
) -> api_pb2.CreateVERequest:
    spec = types_pb2.VESpec(**{"image": "debian", **fields})
    ve = types_pb2.VE(name=name, project=project, labels=labels or {}, spec=spec)
    return api_pb2.CreateVERequest(ve=ve, request_id=request_id)


@asynccontextmanager
async def api_rig(
    *, cluster: str = "rack", cidr: str = "10.66.0.0/24", store: Store | None = None
) -> AsyncIterator[ApiRig]:
    """A cluster with project default, image debian and host h1; its store is a model unless given."""
    model = ModelStore()
    rig = ApiRig(store or model, store or ModelStore(model.etcd))
    await rig.begin(cluster, cidr)
    tasks = [asyncio.create_task(rig.mirror.run()), asyncio.create_task(rig.departed.run())]
    try:
        await rig.put_project()
        await rig.put_image()
        await rig.put_host(images=[DEBIAN])
        yield rig
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def iterate(*items):
    """A client's stream: the items, then its end. A callable is awaited for and gives nothing."""
    for item in items:
        if callable(item):
            await item()
        else:
            yield item


def closable(answers: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """The answers of a streaming method as what they are: a generator, which can be closed."""
    assert isinstance(answers, AsyncGenerator)
    return answers
