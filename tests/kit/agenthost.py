"""An agent's core on fakes, which can be killed and started again on the same disk and kernel."""

import hashlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from kit.eventually import eventually
from kit.manualclock import ManualClock
from veagent.cpusets import Cpusets
from veagent.facts import HostFactsSource
from veagent.fake.fence import FakeVefence
from veagent.fake.network import FakeNetwork
from veagent.fake.runtime import FakeRuntime
from veagent.fake.storage import FakeImages, FakeRoots
from veagent.fence.desk import FenceDesk
from veagent.ground import Ground
from veagent.ids import IdRanges
from veagent.imagefetch import ImageKeeper
from veagent.ledger import Ledger
from veagent.manager import Manager
from veagent.outbox import Outbox
from veagent.slots import Slots
from veapi.errors import NotFound
from veapi.model import (
    Action,
    Digest,
    HeldImage,
    HostSet,
    Order,
    Resources,
    SetEntry,
    Spec,
    Uid,
    VEReport,
    VEStatus,
    WantedImage,
)

BLOB = b"an image"
DIGEST = Digest("sha256:" + hashlib.sha256(BLOB).hexdigest())
U1 = Uid("11111111-1111-4111-8111-111111111111")
U2 = Uid("22222222-2222-4222-8222-222222222222")


def entry(uid: Uid = U1, action: Action = Action.RUN, **changes: object) -> SetEntry:
    """A wish for one VE; spec fields among `changes` go into the spec."""
    spec_fields = {name for name in changes if name in Spec.__struct_fields__}
    spec = Spec(image="tiny", cpu_millis=500, memory_bytes=64 << 20, disk_bytes=1 << 30, pids=100)
    spec = msgspec.structs.replace(
        spec, **{name: changes.pop(name) for name in spec_fields - {"ip"}}
    )
    made = SetEntry(
        uid=uid,
        name=f"ve-{uid[:4]}",
        project="default",
        action=action,
        spec=spec,
        generation=1,
        placement_generation=1,
        restart_seq=0,
        stop_timeout_s=10.0,
        image_digest=DIGEST,
        ip=f"10.66.1.{int(uid[0], 16)}",
        mac=f"02:00:00:00:00:0{uid[0]}",
    )
    return msgspec.structs.replace(made, **changes)


def host_set(revision: int, *entries: SetEntry, epoch: int = 1) -> HostSet:
    return HostSet(
        order=Order(incarnation=1, epoch=epoch, revision=revision),
        entries=entries,
        images=(WantedImage(digest=DIGEST, blob_digest=DIGEST),),
    )


async def blob() -> AsyncIterator[bytes]:
    yield BLOB


class Peers:
    """An ImageSource: whoever asks gets the one image, unless it is `missing`."""

    def __init__(self, images: FakeImages) -> None:
        self.missing = False
        self.asked = 0
        self._images = images

    async def fetch(self, digest: Digest) -> HeldImage:
        self.asked += 1
        if self.missing or digest != DIGEST:
            raise NotFound("no host holds it")
        return await self._images.add(blob(), expect=digest)


class AgentHost:
    """`kernel` (runtime, roots, images, network) survives `crash`; the manager does not."""

    def __init__(self, folder: Path, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.folder = folder
        self.boot_id = "boot-1"
        self.runtime = FakeRuntime(folder / "ves", self.clock)
        self.images = FakeImages(folder / "images", self.clock)
        self.roots = FakeRoots(folder / "roots", self.images, self.clock)
        self.network = FakeNetwork(self.clock)
        self.vefence = FakeVefence(self.runtime, self.clock)
        self.fence: FenceDesk
        self.peers = Peers(self.images)
        self.starts = 4
        self.cpus: tuple[int, ...] = ()
        """Processors of the host; none: VEs are not pinned."""
        self.mortal: Callable[[Any], Any] = lambda port: port
        """What stands between the agent and its ports."""
        self.kernel_bases: dict[Uid, int] = {}
        """First ids of running VEs, as the kernel tells them."""
        self.changed: Callable[[Uid], None] = lambda _uid: None
        """Told whenever a session may tell of a VE."""
        self.manager: Manager

    def _told(self, outbox: Outbox, uid: Uid) -> None:
        outbox.mark(uid)
        self.changed(uid)

    async def boot(self) -> Manager:
        """A new agent process: loads the ledger and adopts."""
        outbox = Outbox()
        self.keeper = ImageKeeper(self.images, self.peers, self.clock, self._images_changed)
        self.ledger = Ledger(self.folder, sleep=self.clock.sleep)
        self.fence = FenceDesk(
            self.vefence, self.clock, boot_id=self.boot_id, cgroup_root="verack/h1"
        )
        ground = Ground(
            host="h1",
            boot_id=self.boot_id,
            runtime=self.mortal(self.runtime),
            roots=self.mortal(self.roots),
            network=self.mortal(self.network),
            images=self.keeper,
            ledger=self.mortal(self.ledger),
            ids=IdRanges(base=1_000_000, count=8),
            slots=Slots(self.starts),
            fence=self.fence,
            cpusets=Cpusets(self.cpus, enabled=bool(self.cpus)),
            clock=self.clock,
            changed=partial(self._told, outbox),
            id_base_of=lambda instance: self.kernel_bases.get(instance.uid),
        )
        self.manager = Manager(ground, self._facts().read, outbox)
        await self.manager.recover()
        return self.manager

    async def hold_image(self) -> None:
        await self.images.add(blob())

    async def crash(self) -> None:
        """SIGKILL: nothing is written any more. (What a thread writes at this moment may still reach the disk.)"""
        for task in self.manager._tasks.values():
            task.cancel()
        await self.keeper.aclose()
        if self.ledger._task is not None:
            self.ledger._task.cancel()

    async def close(self) -> None:
        await self.keeper.aclose()
        await self.manager.aclose()

    def status(self, uid: Uid = U1) -> VEStatus:
        return self.report(uid).status

    def report(self, uid: Uid = U1) -> VEReport:
        found = self.manager.report(uid)
        assert found is not None, f"{uid} is not known"
        return found

    async def until(self, predicate: Callable[[], object]) -> None:
        await eventually(predicate, timeout_s=5.0)

    def _images_changed(self, digest: Digest) -> None:
        self.manager.images_changed(digest)

    def _facts(self) -> HostFactsSource:
        return HostFactsSource(
            boot_id=self.boot_id,
            labels={},
            capacity=Resources(cpu_millis=2000, memory_bytes=1 << 30, pids=1000),
            address="127.0.0.1",
            peer_port=0,
            metrics_address="",
            images=self.images,
            roots=self.roots,
            fence=self.fence.facts,
        )
