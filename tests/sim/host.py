"""A host: a kernel whose VEs, roots and files outlive the agent, and the agent's process, made of the real parts.

The kernel is the fakes of the product, with eyes: the story's checks see each start, stop and removal as it happens.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

import structlog

from sim.disk import Died, Disk
from sim.grpcish import AgentStub, Channel
from sim.network import Network
from sim.process import Process, SimClock
from veagent.cpusets import Cpusets
from veagent.facts import HostFactsSource
from veagent.fake.fence import FakeVefence
from veagent.fake.network import FakeNetwork
from veagent.fake.runtime import SIGKILLED, FakeRuntime
from veagent.fake.storage import FakeImages, FakeRoots
from veagent.fence.desk import FenceDesk
from veagent.ground import Ground
from veagent.heartbeat import Lease
from veagent.ids import IdRanges
from veagent.imagefetch import ImageFetcher, ImageKeeper, Source
from veagent.imagesweep import ImageSweeper, Needs
from veagent.ledger import Ledger
from veagent.link import Link, LinkSettings
from veagent.manager import Manager
from veagent.outbox import Outbox
from veagent.ports import Instance, RootSource, StartPlan
from veagent.slots import Slots
from veagent.sources import SourceDesk
from veapi.channel import Identity
from veapi.daemon import forever
from veapi.errors import NotFound, Unavailable
from veapi.model import (
    Digest,
    HeldImage,
    HostFacts,
    HostSet,
    OnHostLoss,
    Order,
    Resources,
    Uid,
)

if TYPE_CHECKING:
    from sim.checks import Checks
    from veagent.streams import Relays

log = structlog.get_logger()
CLUSTER = "rack"
KEEP_IMAGES_S = 20.0
NOBODY = Identity(Path("/ca"), Path("/cert"), Path("/key"))


def blob_of(number: int) -> bytes:
    return f"image {number}".encode()


def digest_of(number: int) -> Digest:
    return Digest("sha256:" + hashlib.sha256(blob_of(number)).hexdigest())


class SimRuntime(FakeRuntime):
    """Its VEs live until they are stopped, killed, or the machine is."""

    def __init__(self, host: "Host") -> None:
        super().__init__(cast("Path", host.pool.root()), host.clock)
        self.bases: dict[Uid, int] = {}
        """First id of each VE that is known to the kernel."""
        self._host = host

    async def setup(self) -> None:
        """There is nothing to set up."""

    async def start(self, plan: StartPlan) -> Instance:
        host, process = self._host, self._host.process
        host.checks.fencing.begins(host, plan.uid)
        await self.call("start", plan.uid)
        await host.dawdle()
        host.checks.starts(host, plan)
        instance = await super().start(plan)
        host.checks.fencing.starts(host, plan.uid)
        self.bases[plan.uid] = plan.id_base
        host.note("start", plan.uid)
        assert process is host.process
        return instance

    async def stop(self, instance: Instance, *, timeout_s: float) -> None:
        if timeout_s and self._host.stubborn:
            await self._host.clock.sleep(min(timeout_s, 3.0))
        self._host.checks.stops(self._host, instance.uid)
        await super().stop(instance, timeout_s=timeout_s)
        self._host.checks.has_stopped(self._host, instance.uid)
        self._host.note("stop", instance.uid)

    def kill(self, uid: Uid, wait_status: int = SIGKILLED) -> None:
        """By vefence."""
        self._host.checks.fencing.kills(self._host, uid)
        self._host.note("fence", uid)
        super().kill(uid, wait_status)

    async def forget(self, uid: Uid) -> None:
        await super().forget(uid)
        self.bases.pop(uid, None)

    def finish(self, uid: Uid, ended: Any) -> None:
        if uid in self.running:
            self._host.note("end", uid)
        super().finish(uid, ended)

    def power_loss(self) -> None:
        """All that ran is gone, and with it what the kernel knew."""
        self.running.clear()
        self.known.clear()
        self.bases.clear()
        self._ends.clear()
        self._killed.clear()

    def _say(self, uid: Uid, line: str) -> None:
        """Nobody reads consoles here."""

    def _store(self) -> None:
        """The kernel is this object."""

    def _load(self) -> None:
        """As above."""


class SimVefence(FakeVefence):
    """`had`: VEs that it was ever told to mind, and knows of."""

    def __init__(self, runtime: SimRuntime, clock: SimClock) -> None:
        super().__init__(runtime, clock)
        self.had: set[str] = set()

    def turn(self) -> None:
        super().turn()
        self.had |= {target.uid for target in self._read.targets}


class SimRoots(FakeRoots):
    """Its folders are on a disk that keeps all."""

    def __init__(self, host: "Host", images: FakeImages) -> None:
        super().__init__(cast("Path", host.pool.root() / "roots"), images, host.clock)
        self._host = host

    def capacity_bytes(self) -> int:
        return self._host.disk_bytes

    def there(self, uid: Uid) -> bool:
        return self.path(uid).exists()

    async def used_bytes(self, uid: Uid) -> int:
        """Half of its limit: what is kept of the deleted takes room."""
        await super().used_bytes(uid)
        return int(self._limit_file(uid).read_text()) // 2 if await self.exists(uid) else 0

    async def create(self, uid: Uid, source: RootSource, disk_bytes: int, hostname: str) -> Path:
        await self._host.dawdle()
        return await super().create(uid, source, disk_bytes, hostname)

    async def drop(self, uid: Uid) -> None:
        self._host.checks.drops(self._host, uid)
        whole = self._limit_file(uid).exists()
        await super().drop(uid)
        self._host.checks.has_dropped(self._host, uid, whole=whole)
        self._host.note("drop", uid)

    async def delete(self, uid: Uid) -> None:
        self._host.checks.deletes(self._host, uid)
        await self._host.dawdle()
        await super().delete(uid)
        self._host.note("delete", uid)

    async def delete_snapshot(self, uid: Uid, seq: int) -> None:
        self._host.checks.deletes_snapshot(self._host, uid, seq)
        await super().delete_snapshot(uid, seq)


class SimImages(FakeImages):
    """Tells who removes what."""

    def __init__(self, host: "Host") -> None:
        super().__init__(cast("Path", host.pool.root() / "images"), host.clock)
        self._host = host

    async def add(self, blob: AsyncIterator[bytes], *, expect: Digest | None = None) -> HeldImage:
        image = await super().add(blob, expect=expect)
        self._host.checks.note(f"{self._host.name} holds image {image.digest[7:15]}")
        return image

    async def delete(self, digest: Digest) -> None:
        self._host.checks.deletes_image(self._host, digest)
        await super().delete(digest)
        self._host.checks.note(f"{self._host.name} removes image {digest[7:15]}")


class SimLedger(Ledger):
    """Tells which sets are on the disk."""

    host: "Host"

    async def save_set(self, host_set: HostSet) -> None:
        await super().save_set(host_set)


class Granter:
    """Nobody checks tickets of images here: the network brings blobs from where the controller said."""

    def grant(self, ticket: bytes, peer: str, digest: Digest) -> None:
        """Taken."""


class NoRelays:
    """Streams for people are not simulated."""

    def open(self, target: str, ticket: bytes) -> None:
        """Nobody dials back."""


class Host:
    """`capacity` without its disk, which is the pool's. `ids`: ranges that it may give."""

    def __init__(
        self,
        name: str,
        network: Network,
        clock: SimClock,
        rng: Random,
        *,
        capacity: Resources,
        ids: int,
        controllers: Sequence[str],
        checks: "Checks",
    ) -> None:
        self.name = name
        self.net = network
        self.clock = clock
        self.rng = rng
        self.capacity = capacity
        self.checks = checks
        self.disk, self.pool = Disk(), Disk(synced=True)
        self.disk_bytes = 1 << 40
        self.boots = 1
        self.stubborn = False
        """Its VEs take their time to end."""
        self.lazy_s = 0.0
        """What starts and new roots take longer."""
        self.acked = Order()
        self.disk_well_at = -1000.0
        self.frozen = False
        """The whole machine stands still, guests and all."""
        self.stays_since: dict[Uid, float] = {}
        """VEs that its newest set says to be of policy stay, and since when."""
        self.lease_sent = float("-inf")
        self.minder: Process | None = None
        """The process of vefence."""
        self.fence_after_s = 8.0
        self.process: Process
        self.manager: Manager | None = None
        self.link: Link | None = None
        self._ids = ids
        self._controllers = list(controllers)
        self.images = SimImages(self)
        self.images.load()
        self.roots = SimRoots(self, self.images)
        self.runtime = SimRuntime(self)
        self.vefence = SimVefence(self.runtime, clock)
        self.wires = FakeNetwork(clock)
        self.pool.folders["/roots"] = {}
        self.peers: dict[str, Host] = {}

    def takes(self, host_set: HostSet) -> None:
        """Notes who stays, by the newest set."""
        before, now = self.stays_since, self.checks.now()
        self.stays_since = {
            entry.uid: before.get(entry.uid, now)
            for entry in host_set.entries
            if entry.spec.on_host_loss is OnHostLoss.STAY
        }

    def note(self, what: str, uid: Uid) -> None:
        self.checks.note(f"{self.name} {what} {uid[:8]}")

    async def dawdle(self) -> None:
        if self.lazy_s:
            await self.clock.sleep(self.rng.random() * self.lazy_s)

    @property
    def up(self) -> bool:
        return self.manager is not None and self.process.alive

    @property
    def lease_holds(self) -> bool:
        """As far as the heartbeats go that this host saw answered."""
        return self.clock.boot() < self.lease_sent + self.fence_after_s

    @property
    def minded(self) -> bool:
        """vefence runs."""
        return self.minder is not None and self.minder.alive and not self.minder.paused

    # Life and death.

    def boot_fence(self, loop: Any) -> None:
        """A new process of vefence, unless there is one."""
        if self.minder is None or not self.minder.alive:
            self.minder = Process(loop, f"{self.name} vefence", self.clock, self.rng)
            self.minder.on_exit = lambda error: self.checks.violate("vefence lives", repr(error))
            self.vefence.restart()
            self.minder.main(self.vefence.run())

    def kill_fence(self) -> None:
        if self.minder is not None and self.minder.alive:
            self.minder.die()

    def boot(self, loop: Any) -> None:
        """A new agent process; vefence is started with it."""
        self.manager = None
        self.boot_fence(loop)
        self.process = Process(loop, self.name, self.clock, self.rng)
        self.process.thread_s = self._thread_s
        self.process.main(self._serve())

    def crash(self) -> None:
        """SIGKILL of the agent. What its threads were at is done, half done, or not."""
        if not self.process.alive:
            return
        self.checks.dies(self)
        for job in self.process.die():
            self.disk.budget = self.rng.choice((0, 1, 2, 3, 4, 1000))
            try:
                job()
            except (Died, OSError):
                pass
            finally:
                self.disk.budget = None
        self.manager = None

    def lose_power(self) -> None:
        """The machine: what ran is gone, and what was not synced."""
        self.net.power_off(self.name)
        self.crash()
        self.kill_fence()
        self.frozen, self.lease_sent = False, float("-inf")
        self.disk.lose_power(self.rng)
        self.runtime.power_loss()
        self.vefence.power_loss()
        self.wires.attached.clear()
        self.wires.rates.clear()
        self.wires.network = None
        self.boots += 1

    def _thread_s(self) -> float:
        return 0.0003 + self.rng.random() * (0.002 if self.rng.random() < 0.95 else 0.5)

    # The agent, put together as `veagent.app` does.

    async def _serve(self) -> None:
        manager, duties = await self._compose()
        self.manager = manager
        await manager.recover()
        self.checks.recovered(self)
        async with asyncio.TaskGroup() as group:
            for name, duty in duties.items():
                group.create_task(forever(name, duty), name=name)

    async def _compose(self) -> tuple[Manager, dict[str, Coroutine[Any, Any, Any]]]:
        outbox, desk = Outbox(), SourceDesk()
        boot_id = f"{self.name}-{self.boots}"
        fence = FenceDesk(self.vefence, self.clock, boot_id=boot_id, cgroup_root=self.name)
        lease = Lease(self.clock, told=lambda sent: self._answered(fence, sent))
        fetcher = ImageFetcher(self.images, desk, self._open_blob)
        keeper = ImageKeeper(self.images, fetcher, self.clock, self._image_changed)
        ledger = SimLedger(cast("Path", self.disk.root()), sleep=self.clock.sleep)
        ledger.host = self
        ids = IdRanges(base=1_000_000, count=self._ids)
        ids.take([1_000_000])
        ground = Ground(
            host=self.name,
            boot_id=boot_id,
            runtime=self.runtime,
            roots=self.roots,
            network=self.wires,
            images=keeper,
            ledger=ledger,
            ids=ids,
            slots=Slots(4),
            fence=fence,
            cpusets=Cpusets((), enabled=False),
            clock=self.clock,
            changed=outbox.mark,
            id_base_of=lambda instance: self.runtime.bases.get(instance.uid),
        )
        manager = SimManager(self, ground, self._facts(fence).read, outbox)
        self.link = Link(
            LinkSettings(self._controllers, CLUSTER, NOBODY),
            manager=manager,
            lease=lease,
            sources=desk,
            granter=Granter(),
            relays=cast("Relays", NoRelays()),
            dial=self._dial,
        )
        needs = Needs(manager.spare_images, manager.used_images, manager.image_added)
        sweeper = ImageSweeper(self.images, needs, self.clock, keep_s=KEEP_IMAGES_S)
        return manager, {
            "manager": manager.run(),
            "room": manager.watch_room(),
            "link": self.link.run(),
            "fence": fence.run(),
            "images": sweeper.run(),
        }

    def _answered(self, fence: FenceDesk, sent: float) -> None:
        self.lease_sent = max(self.lease_sent, sent)
        fence.answered(sent)

    def _image_changed(self, digest: Digest) -> None:
        if self.manager is not None:
            self.manager.images_changed(digest)

    def _dial(self, target: str) -> Any:
        return _Dialled(self, target)

    def _facts(self, fence: FenceDesk) -> HostFactsSource:
        return HostFactsSource(
            boot_id=f"{self.name}-{self.boots}",
            labels={"rack": f"r{int(self.name[1:]) % 2}"},
            capacity=self.capacity,
            address=f"10.88.0.{10 + int(self.name[1:])}",
            peer_port=7444,
            metrics_address="",
            images=self.images,
            roots=self.roots,
            fence=fence.facts,
        )

    async def _open_blob(self, source: Source, digest: Digest) -> AsyncIterator[bytes]:
        peer = self.peers[source.peer]
        there, back = (self.name, peer.name), (peer.name, self.name)
        await self.clock.sleep(self.net.delay_s(*there) + self.net.delay_s(*back))
        if not peer.up or self.net.is_cut(*there) or self.net.is_cut(*back):
            raise Unavailable("the peer does not answer")
        if digest not in {image.digest for image in peer.images.held()}:
            raise NotFound("the peer does not hold it")
        async for piece in peer.images.read_blob(digest):
            yield piece


class _Dialled:
    """A channel to a controller, as long as it is used."""

    def __init__(self, host: Host, target: str) -> None:
        self._channel = Channel(host.net, host.process, host.name, target.partition(":")[0])

    async def __aenter__(self) -> AgentStub:
        return AgentStub(self._channel)

    async def __aexit__(self, *_: object) -> None:
        self._channel.close()


class SimManager(Manager):
    """Tells which sets it took."""

    def __init__(self, host: Host, *parts: Any) -> None:
        super().__init__(*parts)
        self._host = host

    async def apply(self, host_set: HostSet) -> Order:
        before, old = self.held, self._set
        if host_set.order >= before:
            self._host.checks.wishes(self._host, old, host_set)
        held = await super().apply(host_set)
        self._host.checks.applied(self._host, host_set, before, held)
        self._host.takes(host_set)
        return held

    def facts(self) -> HostFacts:
        return super().facts()
