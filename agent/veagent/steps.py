"""Carries out the steps that `next_action` gives, through the ports. One caller at a time: the VE's worker.

Every step may be cut anywhere by the agent's death: what it did shows when the next agent observes, and what it did not
is asked for again. What only a record can tell (ids, a dropped root) is durable before anything builds on it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import assert_never

from veagent.body import Body, RootRefused
from veagent.events import words
from veagent.fence.gate import AwaitFence, FenceOff
from veagent.ground import Ground
from veagent.memory import Memory
from veagent.plan import start_plan
from veagent.ports import NO_IMAGE, Instance, RootImage, Roots, RootSource
from veagent.reconcile import (
    AwaitImage,
    AwaitRoom,
    Confirm,
    CreateRoot,
    Freeze,
    Keep,
    Limit,
    LimitDisk,
    Nothing,
    Pin,
    Remove,
    ReplaceRoot,
    Start,
    Step,
    Stop,
    Thaw,
    Wait,
    is_of_image,
    rates_differ,
)
from veagent.record import VERecord, beside_disk_and_rates, is_off
from veagent.snapshots import DeleteSnapshot, TakeSnapshot
from veagent.status import SOURCE_MISSING
from veagent.watch import Watch
from veapi.errors import Conflict, NotFound, VerackError
from veapi.model import Action, Limits, SetEntry, Uid

FENCE_RETRY_S = 0.2


class Steps:
    """`wake`: set when the wish changed. `faster`: whether the newest gives a stop less time than this."""

    def __init__(
        self,
        uid: Uid,
        ground: Ground,
        memory: Memory,
        body: Body,
        watch: Watch,
        *,
        wake: asyncio.Event,
        faster: Callable[[float], bool],
    ) -> None:
        self.stopping = False
        self._uid = uid
        self._ground = ground
        self._memory = memory
        self._body = body
        self._watch = watch
        self._wake = wake
        self._faster = faster

    async def perform(self, step: Step, entry: SetEntry) -> None:  # noqa: C901, PLR0912 - one case for each step
        """Raises what the ports raise."""
        match step:
            case CreateRoot():
                await self._create_root(entry)
            case ReplaceRoot(timeout_s):
                await self._replace_root(entry, timeout_s)
            case Start():
                await self._start(entry)
            case Stop(timeout_s):
                await self._stop(entry, timeout_s)
            case FenceOff():
                await self._fence_off()
            case Freeze() | Thaw():
                await self._freeze(step)
            case Limit(limits):
                await self._limit(entry, limits)
            case LimitDisk(disk_bytes):
                await self._limit_disk_of_stopped(entry, disk_bytes)
            case Pin(cpus):
                await self._pin(cpus)
            case TakeSnapshot() | DeleteSnapshot():
                await self._snapshot(step)
            case Confirm():
                self._ensured(entry)
                self._memory.confirm(entry, up=self._body.instance is not None)
            case Keep():
                await self._keep(entry)
            case Remove(root):
                await self._remove(root=root)
            case Wait() | Nothing() | AwaitImage() | AwaitRoom() | AwaitFence():
                raise AssertionError(step)
            case _:
                assert_never(step)

    def _ensured(self, entry: SetEntry) -> VERecord:
        return self._memory.ensure(entry, self._body.instance)

    # The root.

    async def _create_root(self, entry: SetEntry) -> None:
        """That it is not of what the record says is durable before it is there: later its source may be gone, or be another."""
        record = self._ensured(entry)
        image = await self._origin(entry, record)
        self._memory.root_is_of(image)
        self._memory.limit_disk(entry.spec.disk_bytes)
        if image.digest != record.image_digest or not is_of_image(entry):
            await self._ground.ledger.sync()
        await self._ground.roots.create(
            self._uid, source_of(entry), entry.spec.disk_bytes, entry.name
        )
        self._body.root, self._body.remains = True, False
        self._memory.change(made=True)

    async def _origin(self, entry: SetEntry, record: VERecord) -> RootImage:
        """The image that the source of its root is of. Of a source that says nothing: the VE's."""
        ground, wish, found = self._ground, entry.root, NO_IMAGE
        source = ground.ledger.newest(wish.from_uid) if wish.from_uid else None
        if wish.snapshot:
            found = await ground.roots.image_of(wish.from_uid or self._uid, wish.snapshot)
        elif source is not None:
            found = RootImage(source.image_digest, source.image_config)
        if found.digest:
            return found
        if ground.images.holds(entry.image_digest):
            return RootImage(entry.image_digest, ground.images.config(entry.image_digest))
        return RootImage(record.image_digest, record.image_config)

    async def _replace_root(self, entry: SetEntry, timeout_s: float) -> None:
        """Of a VE that runs: only stops it, if there is something to replace its root by; then the wish is read again."""
        try:
            await check_source(self._ground.roots, self._uid, entry)
        except NotFound as error:
            self._body.root_refused = RootRefused(entry.root.seq, words(error))
            self._memory.warn(SOURCE_MISSING, words(error))
            return
        if self._body.instance is not None:
            await self._stop(entry, timeout_s)
            return
        await self._ground.roots.drop(self._uid)
        self._body.root, self._body.remains = False, True
        self._memory.replace_root(entry)
        await self._ground.ledger.sync()

    # Up and down.

    async def _start(self, entry: SetEntry) -> None:
        """The record is written while the network is attached; it must be durable before anything runs.

        It tells of the start already: the VE may end by itself before the next agent looks, were this one to die.
        """
        ground = self._ground
        known = self._ensured(entry)
        ground.runtime.forget_end(self._uid)
        cpus = ground.cpusets.place(self._uid, entry.spec.cpu_millis)
        self._memory.will_start(entry, cpus, **self._image(entry, known))
        self._memory.hold(ground.runtime.holdable(entry.spec.limits))
        nic = await ground.network.attach(self._uid, entry.ip, entry.mac) if entry.ip else None
        await ground.ledger.sync()
        root, record = ground.roots.path(self._uid), self._ensured(entry)
        plan = start_plan(entry, record, root=root, nic=nic, cpus=cpus)
        with ground.fence.starting(entry):
            instance = await ground.runtime.start(plan)
        self._body.began(instance, ground.clock.boot(), cpus)
        self._memory.started()
        self._watch.mind(instance, oom_seen=self._body.oom_seen)
        if nic is not None:
            await ground.network.announce(self._uid)

    def _image(self, entry: SetEntry, record: VERecord) -> dict[str, object]:
        """What its image says of the program to run is remembered: the image may go, the VE runs on.

        Not of an image that its root is not of (yet).
        """
        images, digest = self._ground.images, entry.image_digest
        if not images.holds(digest) or record.image_digest not in ("", digest):
            return {}
        return {"image_digest": digest, "image_config": images.config(digest)}

    async def _stop(self, entry: SetEntry, timeout_s: float) -> None:
        """That it ends by our will the next agent reads from the set, which is durable; so nothing is waited for here."""
        instance = self._body.instance
        assert instance is not None
        if entry.action is not Action.PURGE:
            self._memory.will_stop()
        self.stopping = True
        try:
            await self._stop_or_newer_wish(instance, timeout_s)
        finally:
            self.stopping = False
            if self._watch.over:
                self._body.down()
        if self._body.instance is None:
            self._memory.stop()
        else:
            self._memory.runs()

    async def _fence_off(self) -> None:
        """Killed at once. Vefence does the same at the same time, again and again; a failure here is soon tried again."""
        instance = self._body.instance
        assert instance is not None
        self.stopping = True
        try:
            await self._ground.runtime.stop(instance, timeout_s=0)
            self._body.down()
        except VerackError:
            await self._ground.clock.sleep(FENCE_RETRY_S)
            raise
        finally:
            self.stopping = False
            if self._watch.over:
                self._body.down()
        self._memory.fenced()

    async def _stop_or_newer_wish(self, instance: Instance, timeout_s: float) -> None:
        """Returns early when the newest wish gives it less time."""
        stop = asyncio.create_task(self._ground.runtime.stop(instance, timeout_s=timeout_s))
        try:
            while not stop.done() and not self._faster(timeout_s):
                await self._woken_or(stop)
            if stop.done():
                await stop
                self._body.down()
        finally:
            stop.cancel()
            await asyncio.gather(stop, return_exceptions=True)

    async def _woken_or(self, task: asyncio.Task[None]) -> None:
        wake = asyncio.create_task(self._wake.wait())
        await asyncio.wait((task, wake), return_when=asyncio.FIRST_COMPLETED)
        wake.cancel()
        self._wake.clear()

    async def _freeze(self, step: Freeze | Thaw) -> None:
        runtime, freeze = self._ground.runtime, isinstance(step, Freeze)
        await (runtime.freeze(self._uid) if freeze else runtime.thaw(self._uid))
        self._body.frozen = freeze
        self._memory.freeze(frozen=freeze)

    # Limits.

    async def _limit(self, entry: SetEntry, limits: Limits) -> None:
        """Each part on its own: one that is refused keeps the others from nothing."""
        record = self._ensured(entry)
        disk = limits.disk_bytes != record.limits.disk_bytes
        rest = beside_disk_and_rates(limits) != beside_disk_and_rates(record.limits)
        if disk or rest:
            self._memory.will_limit(limits, disk=disk, rest=rest)
        refusals = [
            refusal
            for part in (self._limit_disk, self._limit_rates, self._limit_rest)
            if (refusal := await _refusal(part, entry, limits, record))
        ]
        if refusals:
            raise refusals[0]

    async def _limit_disk(self, _: SetEntry, limits: Limits, record: VERecord) -> None:
        if limits.disk_bytes != record.limits.disk_bytes:
            await self._ground.roots.limit(self._uid, limits.disk_bytes)
            self._memory.limit_disk(limits.disk_bytes)

    async def _limit_rates(self, entry: SetEntry, limits: Limits, _: VERecord) -> None:
        if rates_differ(entry, self._body.rates):
            rates = (limits.net_in_bps, limits.net_out_bps)
            await self._ground.network.rate(self._uid, in_bps=rates[0], out_bps=rates[1])
            self._body.rates = rates
            self._memory.limit_rates(limits)

    async def _limit_rest(self, _: SetEntry, limits: Limits, record: VERecord) -> None:
        if beside_disk_and_rates(limits) != beside_disk_and_rates(record.limits):
            await self._ground.runtime.limit(self._uid, limits)
            self._memory.limit(limits)
            self._ground.cpusets.place(self._uid, limits.cpu_millis)

    async def _limit_disk_of_stopped(self, entry: SetEntry, disk_bytes: int) -> None:
        """A limit that does not fit keeps no VE from starting: it is refused again, and told, while it runs."""
        record = self._ensured(entry)
        self._memory.will_limit(entry.spec.limits, disk=True, rest=False)
        try:
            await self._ground.roots.limit(self._uid, disk_bytes)
        except Conflict:
            self._body.disk_refused = disk_bytes
            if entry.action is Action.STOP or is_off(entry, record):
                raise
        else:
            self._memory.limit_disk(disk_bytes)

    async def _pin(self, cpus: tuple[int, ...]) -> None:
        await self._ground.runtime.pin(self._uid, cpus or self._ground.cpusets.cpus)
        self._body.cpus = cpus
        self._memory.change(cpus=cpus)

    # Snapshots.

    async def _snapshot(self, step: TakeSnapshot | DeleteSnapshot) -> None:
        roots = self._ground.roots
        if isinstance(step, DeleteSnapshot):
            await roots.delete_snapshot(self._uid, step.seq)
            self._memory.snapshot_deleted(step)
            if self._memory.is_kept:
                self._memory.change(kept_bytes=await roots.used_bytes(self._uid))
        elif self._body.root:
            record = self._memory.record
            assert record is not None
            image = RootImage(record.image_digest, record.image_config)
            taken = await roots.snapshot(self._uid, step.tag, step.seq, image)
            self._memory.snapshot_taken(taken)
        else:
            raise Conflict("the VE has no disk yet", hint="start it first: that makes its disk")

    # The end.

    async def _keep(self, entry: SetEntry) -> None:
        self._ensured(entry)
        await self._let_go()
        there = self._body.root or self._body.remains
        used_bytes = await self._ground.roots.used_bytes(self._uid) if there else 0
        self._memory.keep(entry, used_bytes)

    async def _remove(self, *, root: bool) -> None:
        """The record goes last: until then a death of the agent only means that all of this is done again."""
        await self._let_go()
        if root:
            await self._ground.roots.delete(self._uid)
            self._body.root = self._body.remains = False
        await self._memory.erase()

    async def _let_go(self) -> None:
        """All but the disk."""
        await self._ground.runtime.forget(self._uid)
        self._body.oom_seen = 0
        await self._ground.network.detach(self._uid)


def source_of(entry: SetEntry) -> RootSource:
    wish = entry.root
    return RootSource(image=entry.image_digest, from_uid=wish.from_uid, snapshot=wish.snapshot)


async def check_source(roots: Roots, uid: Uid, entry: SetEntry) -> None:
    """NotFound when what the root is to be made of is not on this host. Images are looked after elsewhere."""
    wish = entry.root
    owner = wish.from_uid or uid
    whose = f"of VE {owner} " if wish.from_uid else ""
    if wish.snapshot:
        tags = [snapshot.tag for snapshot in await roots.snapshots(owner)]
        if wish.snapshot not in tags:
            raise NotFound(
                f"snapshot {wish.snapshot!r} {whose}is not on this host; the disk stays as it is",
                hint=f"there are: {', '.join(tags) or 'none'}",
            )
    elif wish.from_uid and not await roots.exists(owner):
        raise NotFound(
            f"VE {owner} has no disk on this host; the disk stays as it is",
            hint="a disk can only be made of that of a VE of the same host",
        )


async def _refusal(
    part: Callable[[SetEntry, Limits, VERecord], Awaitable[None]],
    entry: SetEntry,
    limits: Limits,
    record: VERecord,
) -> VerackError | None:
    try:
        await part(entry, limits, record)
    except VerackError as error:
        return error
    return None
