"""The host's whole: takes sets, keeps a worker per VE, adopts what runs, and says what is.

A set counts once it is durable. After its own restart the agent first adopts what runs and reports it; of the set in
its ledger it then minds only what runs and shall run, so that a crash is answered. All else of it waits for the
controller's newest set, or for 15 s without any: then the ledger's set counts as it is (DESIGN 2, static stability).
"""

import asyncio
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import structlog

from veagent.body import Body
from veagent.fence.desk import Ears, FenceDesk
from veagent.ground import Ground
from veagent.outbox import Outbox
from veagent.ports import Instance, VENetwork
from veagent.reconcile import AwaitImage
from veagent.standstill import with_known_peers
from veagent.worker import Worker
from veapi.clock import Clock
from veapi.errors import VerackError
from veapi.model import (
    Action,
    Digest,
    HostFacts,
    HostSet,
    Network,
    OnHostLoss,
    Order,
    PeerHost,
    SetEntry,
    SnapshotStatus,
    Uid,
    VEReport,
)

log = structlog.get_logger()
GRACE_S = 15.0
NETWORK_RETRY_S = 5.0
NETWORK_RECHECK_S = 30.0
ROOM_RECHECK_S = 5.0
_SAFE_UID = re.compile(r"[0-9a-z][0-9a-z-]{0,63}")


@dataclass(frozen=True, slots=True)
class _Wires:
    """What the network was last set up with."""

    network: Network
    peers: tuple[PeerHost, ...]


class Manager:
    """Owns the workers, the ledger and the host's network. Everything of it runs on one event loop."""

    def __init__(self, ground: Ground, facts: Callable[[], HostFacts], outbox: Outbox) -> None:
        self.outbox = outbox
        self._ground = ground
        self._facts = facts
        self._set: HostSet | None = None
        self._in_force: HostSet | None = None
        self._confirmed: HostSet | None = None
        self._named: frozenset[Uid] = frozenset()
        self._workers: dict[Uid, Worker] = {}
        self._tasks: dict[Uid, asyncio.Task[None]] = {}
        self._wires: _Wires | None = None
        self._applying = asyncio.Lock()
        self._refused = ""
        ground.cpusets.listen(self._nudge)
        ground.fence.listen(Ears(self._fence_turned, outbox.mark_facts, self._runs))

    # Before the first session.

    async def recover(self) -> None:
        """Loads the ledger and adopts what runs. InvalidInput when a newer agent wrote the ledger."""
        ground = self._ground
        self._set, records = ground.ledger.load()
        ground.ids.take(record.id_base for record in records.values())
        instances = {instance.uid: instance for instance in await ground.runtime.adopt()}
        bases = (ground.id_base_of(instance) for instance in instances.values())
        ground.ids.take(base for base in bases if base is not None)
        roots = set(await ground.roots.all())
        ground.images.refresh()
        last = {entry.uid: entry for entry in (self._set.entries if self._set else ())}
        self._named = frozenset(last)
        for uid in {*records, *instances, *roots}:
            record, body = records.get(uid), await self._found(uid, instances, roots)
            snapshots = await self._snapshots(uid) if uid in roots else ()
            worker = Worker(
                uid, ground, record=record, body=body, last=last.get(uid), snapshots=snapshots
            )
            self._add(worker)
        log.info("adopted", ves=len(instances), records=len(records), roots=len(roots))
        self._mind_running()
        await self._rewire_after_restart(list(instances))

    async def _found(
        self, uid: Uid, instances: Mapping[Uid, Instance], roots: Collection[Uid]
    ) -> Body:
        """A root of which only a part is there, or whose making was cut short, is no root yet."""
        instance, ground = instances.get(uid), self._ground
        whole = uid in roots and await ground.roots.exists(uid)
        return Body(
            root=whole,
            remains=uid in roots and not whole,
            instance=instance,
            frozen=instance is not None and ground.runtime.frozen(uid),
        )

    async def _snapshots(self, uid: Uid) -> Sequence[SnapshotStatus] | None:
        """None when they can't be read: then the record is believed, and no other VE waits."""
        try:
            return await self._ground.roots.snapshots(uid)
        except VerackError as error:
            log.error("snapshots not read", ve=uid, error=error.message)  # noqa: TRY400
            return None

    async def _rewire_after_restart(self, running: Sequence[Uid]) -> None:
        if self._set is None:
            return
        try:
            await self._wire(self._set)
            await self._ground.network.keep_only(running)
        except VerackError as error:
            log.error("network not restored", error=error.message, hint=error.hint)  # noqa: TRY400

    def _mind_running(self) -> None:
        last = self._set.entries if self._set else ()
        self._ground.fence.found(entry for entry in last if self._runs(entry.uid))
        for entry in last:
            worker = self._workers.get(entry.uid)
            if worker and worker.instance and entry.action in (Action.RUN, Action.FREEZE):
                worker.wish(entry, unconfirmed=self._set is not None and self._set.unconfirmed)

    # Sets.

    @property
    def held(self) -> Order:
        """Order of the durable set; zeros when there is none."""
        return self._set.order if self._set else Order()

    async def apply(self, host_set: HostSet) -> Order:
        """Makes a newer set durable, then the wish of every worker. Returns the order that is held afterwards."""
        async with self._applying:
            if self._set is None or host_set.order > self._set.order:
                host_set = with_known_peers(host_set, self._set)
                await self._ground.ledger.save_set(host_set)
                self._set = host_set
                await self._put_in_force(host_set)
            elif host_set.order == self._set.order:
                await self._put_in_force(self._set)
            else:
                log.warning(
                    "older set ignored",
                    order=str(host_set.order),
                    held=str(self.held),
                    hint="if this goes on, the controllers' etcd was set back to an older state",
                )
                return self.held
            self._confirmed = self._set
            return self.held

    def unheard(self) -> None:
        """No controller speaks any more: what it called spare may be the last copy by now."""
        self._confirmed = None
        self._ground.fence.unheard()

    async def run(self) -> None:
        """Puts the ledger's set in force when no controller speaks for 15 s; looks after it and the network for ever."""
        await self._attach_adopted()
        await self._grace()
        while True:
            fine = self._wires is not None
            await self._ground.clock.sleep(NETWORK_RECHECK_S if fine else NETWORK_RETRY_S)
            async with self._applying:
                self._wires = None
                await self._keep_in_force()

    async def watch_room(self) -> None:
        """Tells when the pool begins or ends to refuse new VEs; then who waits for room looks again."""
        while True:
            refuses = self._ground.refuses()
            if refuses != self._refused:
                log.warning("room for new VEs changed", refuses=refuses)
                self._refused = refuses
                self._look_again()
            await self._ground.clock.sleep(ROOM_RECHECK_S)

    async def _attach_adopted(self) -> None:
        """The filters of what was adopted, in case that they were flushed meanwhile."""
        for worker in self.workers():
            record = worker.record
            if worker.instance is None or record is None or not record.ip:
                continue
            try:
                await self._ground.network.attach(worker.uid, record.ip, record.mac)
            except VerackError as error:
                log.warning("VE not attached again", ve=worker.uid, error=error.message)

    async def _grace(self) -> None:
        await self._ground.clock.sleep(GRACE_S)
        async with self._applying:
            await self._keep_in_force()

    async def _keep_in_force(self) -> None:
        """What is durable counts: also a set whose session broke before the workers had it."""
        if self._set is None:
            return
        if self._in_force is self._set:
            await self._try_to_wire(self._set)
        else:
            log.warning("no controller, the ledger's set counts", ves=len(self._set.entries))
            await self._put_in_force(self._set, only_stay=True)

    async def _put_in_force(self, host_set: HostSet, *, only_stay: bool = False) -> None:
        """May be cut while it wires: it is in force once the workers have their wishes.

        What is to end here, as it may run elsewhere by now, waits neither for the network nor for what is to start.
        """
        named = {entry.uid: entry for entry in host_set.entries if _usable(entry, only_stay)}
        for uid, entry in named.items():
            if _ends(entry) and not only_stay:
                self._worker(uid).wish(entry, unconfirmed=host_set.unconfirmed)
        await self._try_to_wire(host_set)
        if not only_stay:
            self._ground.fence.take(host_set)
        for uid, entry in named.items():
            self._worker(uid).wish(entry, unconfirmed=host_set.unconfirmed)
        for uid, worker in list(self._workers.items()):
            if uid not in named and not only_stay:
                worker.wish(None)
                self._sweep(worker)
        self._in_force = host_set
        self._want_images()

    def _want_images(self) -> None:
        held_set = self._set
        if held_set is None:
            return
        named = {image.digest for image in held_set.images if not image.spare}
        needed = {entry.image_digest for entry in held_set.entries if self._needs_image(entry)}
        self._ground.images.want(frozenset(d for d in named | needed if d))

    def _needs_image(self, entry: SetEntry) -> bool:
        """Those that run need theirs again when they are rebuilt."""
        worker = self._workers.get(entry.uid)
        waits = worker is not None and isinstance(worker.step_now(), AwaitImage)
        return waits or entry.action in (Action.RUN, Action.FREEZE)

    async def _try_to_wire(self, host_set: HostSet) -> None:
        try:
            await self._wire(host_set)
        except VerackError as error:
            log.error("network setup failed", error=error.message, hint=error.hint)  # noqa: TRY400

    async def _wire(self, host_set: HostSet) -> None:
        wires = _Wires(host_set.network, host_set.peers)
        if wires != self._wires:
            await self._ground.network.setup(wires.network, wires.peers)
            self._wires = wires

    # Workers.

    def worker(self, uid: Uid) -> Worker | None:
        return self._workers.get(uid)

    def workers(self) -> list[Worker]:
        return list(self._workers.values())

    def _worker(self, uid: Uid) -> Worker:
        if uid not in self._workers:
            self._add(Worker(uid, self._ground))
        return self._workers[uid]

    def _add(self, worker: Worker) -> None:
        self._workers[worker.uid] = worker
        task = asyncio.create_task(worker.run(), name=f"ve-{worker.uid}")
        task.add_done_callback(_log_death)
        self._tasks[worker.uid] = task

    def _sweep(self, worker: Worker) -> None:
        if worker.nothing_left:
            del self._workers[worker.uid]
            self._tasks.pop(worker.uid).cancel()

    async def aclose(self) -> None:
        """Ends all workers and writes the ledger; VEs run on."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._ground.ledger.aclose()

    # What is.

    def reports(self) -> list[VEReport]:
        """Of every VE that the host knows."""
        return [self._report(worker) for worker in self._workers.values()]

    def report(self, uid: Uid) -> VEReport | None:
        worker = self._workers.get(uid)
        return self._report(worker) if worker else None

    def _report(self, worker: Worker) -> VEReport:
        """Before a set is in force nobody is called an orphan whom the ledger's set names."""
        report = worker.report()
        if self._in_force is not None or not report.orphan:
            return report
        if worker.uid not in self._named:
            return report
        return msgspec.structs.replace(report, orphan=False, entry=None)

    def spare_images(self) -> frozenset[Digest]:
        """Those that the controller's newest set calls so; none before it sent one, and without a session."""
        newest = self._confirmed
        images = newest.images if newest is not None and not newest.unconfirmed else ()
        return frozenset(image.digest for image in images if image.spare)

    def used_images(self) -> frozenset[Digest]:
        """Of all VEs that shall be here, and of all whose roots or snapshots are."""
        records = (worker.record for worker in self._workers.values())
        here = {record.image_digest for record in records if record is not None}
        return frozenset(
            here.union(e.image_digest for e in (self._set.entries if self._set else ()))
        )

    def facts(self) -> HostFacts:
        return self._facts()

    def images_changed(self, _digest: Digest | None = None) -> None:
        """An image came, or could not be got: who waits for it looks again."""
        self._look_again()

    def _look_again(self) -> None:
        for worker in self._workers.values():
            worker.nudge()
        self.outbox.mark_facts()

    def _nudge(self, uid: Uid) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.nudge()

    def _fence_turned(self, uid: Uid) -> None:
        self._nudge(uid)
        self._ground.changed(uid)

    def _runs(self, uid: Uid) -> bool:
        worker = self._workers.get(uid)
        return worker is not None and worker.instance is not None

    def image_added(self) -> None:
        """An upload has ended; or an image went, which a set that came meanwhile may want again."""
        self._ground.images.refresh()
        self._want_images()
        self.images_changed()

    @property
    def clock(self) -> Clock:
        return self._ground.clock

    @property
    def fence(self) -> FenceDesk:
        return self._ground.fence

    @property
    def network(self) -> VENetwork:
        return self._ground.network


def _ends(entry: SetEntry) -> bool:
    return entry.action in (Action.STOP, Action.KEEP, Action.RELEASE, Action.PURGE)


def _usable(entry: SetEntry, only_stay: bool) -> bool:  # noqa: FBT001
    if not _SAFE_UID.fullmatch(entry.uid):
        log.error("entry with unsafe uid ignored", uid=entry.uid)
        return False
    return not only_stay or entry.spec.on_host_loss is OnHostLoss.STAY


def _log_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("worker died", task=task.get_name(), exc_info=task.exception())
