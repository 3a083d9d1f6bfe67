"""Puts the agent together and runs it: one task group, whatever ends in it ends the agent. VEs run on."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import structlog

from veagent.config import Config
from veagent.cpusets import Cpusets
from veagent.facts import (
    PIDS_DEFAULT,
    HostFactsSource,
    Machine,
    look_at_machine,
    machine_id,
    own_version,
)
from veagent.fence.desk import FenceDesk
from veagent.fence.door import FileDoor
from veagent.files import Files
from veagent.ground import Ground
from veagent.heartbeat import Lease
from veagent.hostparts import HostParts, open_parts
from veagent.ids import IdRanges
from veagent.imagefetch import ImageFetcher, ImageKeeper, Source
from veagent.imagesweep import ImageSweeper, Needs
from veagent.ledger import Ledger
from veagent.link import Link, LinkSettings
from veagent.lxcfs import LxcfsWatch
from veagent.manager import Manager
from veagent.metrics import AgentMetrics, Readings
from veagent.outbox import Outbox
from veagent.peer import PeerServer, fetch_image
from veagent.ports import Instance
from veagent.slots import Slots
from veagent.sources import SourceDesk
from veagent.streams import Relays
from veapi.clock import Clock, SystemClock
from veapi.daemon import forever
from veapi.errors import Conflict
from veapi.exposition import serve_metrics
from veapi.groups import TaskGroup
from veapi.model import Digest, HostFacts, Resources
from veapi.programmetrics import program_registry
from veapi.rpcmetrics import RpcMetrics

log = structlog.get_logger()
_LEAST_STARTS = 4


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Until `stop` is set."""
    config.state.mkdir(mode=0o711, parents=True, exist_ok=True)
    with _only_agent_of(config.state):
        async with AsyncExitStack() as stack:
            agent = Agent(config, SystemClock())
            await agent.open(stack)
            log.info("agent ready", host=config.host, runtime=config.runtime)
            await _run(agent.duties(), stop)
    log.info("agent ended, VEs run on", host=config.host)


async def _run(duties: dict[str, Coroutine[object, object, object]], stop: asyncio.Event) -> None:
    async with TaskGroup() as group:
        tasks = [group.create_task(forever(name, duty), name=name) for name, duty in duties.items()]
        await stop.wait()
        for task in tasks:
            task.cancel()


@contextmanager
def _only_agent_of(state: Path) -> Iterator[None]:
    """Conflict when another agent works on the same state."""
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(
                f"another veagent works on {state}",
                hint="stop it first, or give this one another `state`",
            ) from None
        yield
    finally:
        os.close(fd)


class Agent:
    """The parts of one agent, put together by `open`. Each part that is opened is closed by the stack."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._machine = look_at_machine()
        self._registry = program_registry()
        self._fence: FenceDesk
        self._lease: Lease
        self._sources = SourceDesk()
        self._outbox = Outbox()
        self._parts: HostParts
        self._peers: PeerServer
        self._keeper: ImageKeeper
        self._facts: HostFactsSource
        self.manager: Manager
        self._link: Link

    async def open(self, stack: AsyncExitStack) -> None:
        """Everything up to the first session: what runs is adopted."""
        config = self._config
        self._parts = parts = await open_parts(config, self._clock, stack)
        self._peers = await stack.enter_async_context(
            PeerServer(
                parts.images,
                config.tls.identity,
                config.cluster,
                config.peer_listen,
                clock=self._clock,
                interceptors=[RpcMetrics(self._registry)],
            )
        )
        self._open_images(stack)
        self._open_fence()
        self.manager = Manager(self._ground(), self._read_facts, self._outbox)
        self._facts = self._facts_source(await self._open_metrics(stack))
        await self.manager.recover()
        stack.push_async_callback(self.manager.aclose)
        self._open_link(stack)

    def duties(self) -> dict[str, Coroutine[object, object, object]]:
        """What it does for ever."""
        found: dict[str, Coroutine[object, object, object]] = {
            "manager": self.manager.run(),
            "room": self.manager.watch_room(),
            "link": self._link.run(),
            "fence": self._fence.run(),
        }
        found["images"] = self._sweeper().run()
        lxcfs = self._config.lxcfs
        if lxcfs is not None and self._config.runtime == "lxc":
            found["lxcfs"] = LxcfsWatch(lxcfs.path, self._init_pids).run()
        return found

    def _open_fence(self) -> None:
        config, boot_id = self._config, self._machine.boot_id
        door = self._parts.fence or FileDoor(config.fence_folder, boot_id)
        self._fence = FenceDesk(door, self._clock, boot_id=boot_id, cgroup_root=config.cgroup_root)
        self._lease = Lease(self._clock, told=self._fence.answered)

    def _open_images(self, stack: AsyncExitStack) -> None:
        images = self._parts.images
        fetcher = ImageFetcher(images, self._sources, self._open_blob)
        self._keeper = ImageKeeper(images, fetcher, self._clock, self._images_changed)
        stack.push_async_callback(fetcher.aclose)
        stack.push_async_callback(self._keeper.aclose)

    def _sweeper(self) -> ImageSweeper:
        manager = self.manager
        needs = Needs(manager.spare_images, manager.used_images, manager.image_added)
        keep_s = self._config.images.keep_s
        return ImageSweeper(self._parts.images, needs, self._clock, keep_s=keep_s)

    def _images_changed(self, digest: Digest) -> None:
        self.manager.images_changed(digest)

    def _read_facts(self) -> HostFacts:
        return self._facts.read()

    def _open_blob(self, source: Source, digest: Digest) -> AsyncIterator[bytes]:
        config = self._config
        return fetch_image(
            source.address,
            source.peer,
            config.cluster,
            config.tls.identity,
            source.ticket,
            digest,
        )

    def _ground(self) -> Ground:
        config, parts = self._config, self._parts
        ids = IdRanges(base=config.ids.base, count=config.ids.count)
        ids.take([config.ids.base])  # images are unpacked with these
        return Ground(
            host=config.host,
            boot_id=self._machine.boot_id,
            runtime=parts.runtime,
            roots=parts.roots,
            network=parts.network,
            images=self._keeper,
            ledger=Ledger(config.state, sleep=self._clock.sleep),
            ids=ids,
            slots=Slots(config.max_starts or _starts_at_once()),
            fence=self._fence,
            cpusets=Cpusets(sorted(os.sched_getaffinity(0)), enabled=config.cpu.pin),
            clock=self._clock,
            changed=self._outbox.mark,
            id_base_of=_id_base_of,
        )

    async def _open_metrics(self, stack: AsyncExitStack) -> str:
        """Where they are served; empty when they are not."""
        config, parts = self._config, self._parts
        if config.metrics is None:
            return ""
        metrics = AgentMetrics(
            host=config.host,
            rack=config.labels.get("rack", ""),
            version=own_version(),
            readings=Readings(
                reports=self.manager.reports,
                usage=parts.usage,
                disks=parts.roots.usage,
                links=parts.links,
                pool=parts.pool,
                fence=self._fence.numbers,
            ),
            registry=self._registry,
        )
        served = serve_metrics(config.metrics.listen, metrics.render, lambda: self._link.connected)
        return await stack.enter_async_context(served)

    def _facts_source(self, metrics_address: str) -> HostFactsSource:
        config, machine = self._config, self._machine
        return HostFactsSource(
            boot_id=machine.boot_id,
            labels=config.labels,
            capacity=_capacity(config, machine),
            address=config.address,
            peer_port=self._peers.port,
            metrics_address=metrics_address,
            images=self._parts.images,
            roots=self._parts.roots,
            fence=self._fence.facts,
            machine_id=machine_id(config.state),
        )

    def _open_link(self, stack: AsyncExitStack) -> None:
        config, parts = self._config, self._parts
        identity = config.tls.identity
        relays = Relays(
            cluster=config.cluster,
            identity=identity,
            manager=self.manager,
            runtime=parts.runtime,
            images=parts.images,
            files=Files(parts.files, self._clock),
        )
        stack.push_async_callback(relays.aclose)
        self._link = Link(
            LinkSettings(config.controllers, config.cluster, identity),
            manager=self.manager,
            lease=self._lease,
            sources=self._sources,
            granter=self._peers,
            relays=relays,
        )

    def _init_pids(self) -> list[int]:
        workers = self.manager.workers()
        return [worker.instance.init_pid for worker in workers if worker.instance is not None]


def _starts_at_once() -> int:
    return max(_LEAST_STARTS, 2 * len(os.sched_getaffinity(0)))


def _capacity(config: Config, machine: Machine) -> Resources:
    asked = config.capacity
    return Resources(
        cpu_millis=asked.cpu_millis or machine.cpu_millis,
        memory_bytes=asked.memory_bytes or machine.memory_bytes,
        pids=asked.pids or PIDS_DEFAULT,
    )


def _id_base_of(instance: Instance) -> int | None:
    """First host id of a running VE, as the kernel maps it; None when it can't be told."""
    try:
        fields = Path(f"/proc/{instance.init_pid}/uid_map").read_text().split()
    except OSError:
        return None
    inside_first = fields[:1] == ["0"] and len(fields) >= 3
    return int(fields[1]) if inside_first and int(fields[1]) > 0 else None
