"""One VE's worker: takes the newest wish, asks `next_action`, does that one step, asks again.

It decides nothing itself and polls nothing: it sleeps until its wish changes, its VE ends, its image arrives, or a
back-off is over. Only a clean stop is cut short by a newer wish (a kill need not wait for it).
"""

import asyncio
from typing import assert_never

import structlog

from veagent import ends
from veagent.ground import Ground
from veagent.memory import Memory
from veagent.ports import Ended, Instance, RootSource, StartPlan
from veagent.reconcile import (
    AwaitImage,
    Confirm,
    CreateRoot,
    Limit,
    LimitDisk,
    Nothing,
    Observed,
    Remove,
    Start,
    Step,
    Stop,
    Wait,
    next_action,
)
from veagent.record import VERecord
from veagent.status import Running, Sight, Trouble, report_of
from veapi.errors import VerackError
from veapi.model import SetEntry, Uid, VEReport

log = structlog.get_logger()
_REASONS: dict[type[Step], str] = {
    CreateRoot: "RootFailed",
    Start: "StartFailed",
    Stop: "StopFailed",
    Limit: "LimitsRefused",
    LimitDisk: "LimitsRefused",
    Remove: "DeleteFailed",
}


class Worker:
    """Owns one VE. Nobody else changes its record, its root or its instance."""

    def __init__(
        self,
        uid: Uid,
        ground: Ground,
        *,
        record: VERecord | None = None,
        root: bool = False,
        instance: Instance | None = None,
    ) -> None:
        self.uid = uid
        self.instance = instance
        self.wanted: SetEntry | None = None
        self._ground = ground
        self._memory = Memory(uid, ground, record)
        self._root = root
        self._wake = asyncio.Event()
        self._step: Step = Nothing("Orphan")
        self._trouble: Trouble | None = None
        self._stopping = False
        self._started_boot = float("-inf")
        self._quick_ends = 0
        self._watch: asyncio.Task[None] | None = None
        if instance is not None:
            self._mind(instance)
        else:
            self._memory.found_away()

    # What others see and say.

    @property
    def record(self) -> VERecord | None:
        return self._memory.record

    def wish(self, entry: SetEntry | None) -> None:
        """The newest wish; a new one is tried at once, whatever failed before."""
        if entry == self.wanted:
            return
        self.wanted = entry
        self._trouble = None
        self._quick_ends = 0
        self.nudge()

    def nudge(self) -> None:
        """Something that it may have waited for has happened."""
        self._wake.set()

    def report(self) -> VEReport:
        return report_of(self._sight())

    def step_now(self) -> Step:
        """What it would do next."""
        return next_action(self.wanted, self._observed())

    @property
    def nothing_left(self) -> bool:
        """Neither wanted nor there: its worker may go."""
        nothing = self.record is None and self.instance is None and not self._root
        return self.wanted is None and nothing

    def _sight(self) -> Sight:
        running = None
        if self.instance is not None:
            running = Running(self.instance.init_pid, self.instance.started_at)
        digest = self.wanted.image_digest if self.wanted else None
        return Sight(
            uid=self.uid,
            host=self._ground.host,
            wanted=self.wanted,
            record=self.record,
            root=self._root,
            running=running,
            step=self._step,
            trouble=self._trouble,
            image_trouble=self._ground.images.trouble(digest) if digest else "",
        )

    def _observed(self) -> Observed:
        wanted, until = self.wanted, self._trouble.until if self._trouble else 0.0
        return Observed(
            record=self.record,
            root=self._root,
            running=self.instance is not None,
            image_held=wanted is not None and self._ground.images.holds(wanted.image_digest),
            wait_s=max(0.0, until - self._ground.clock.boot()) if self._trouble else 0.0,
        )

    # The loop.

    async def run(self) -> None:
        """For ever, until cancelled; cancelling harms nothing that a new worker would not repair."""
        try:
            while True:
                await self._safe_turn()
        finally:
            self._ground.slots.give(self.uid)
            if self._watch is not None:
                self._watch.cancel()

    async def _safe_turn(self) -> None:
        """A mistake of ours must not leave a VE without its worker."""
        try:
            await self._turn()
        except Exception:
            log.exception("worker failed unexpectedly", ve=self.uid)
            await self._ground.clock.sleep(ends.backoff_s(1))

    async def _turn(self) -> None:
        self._wake.clear()
        self._step = step = self.step_now()
        if not isinstance(step, CreateRoot | Start):
            self._ground.slots.give(self.uid)
        match step:
            case Nothing() | AwaitImage():
                self._tell()
                await self._wake.wait()
            case Wait(seconds):
                self._tell()
                await self._rest(seconds)
            case _:
                await self._act(step)

    async def _rest(self, seconds: float) -> None:
        timer = asyncio.create_task(self._ground.clock.sleep(seconds))
        # A timer that was cancelled is no news: it would wake the next rest at once, and so on.
        timer.add_done_callback(lambda done: None if done.cancelled() else self._wake.set())
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    async def _act(self, step: Step) -> None:
        if isinstance(step, CreateRoot | Start) and not await self._slot():
            return
        self._tell()
        before = self._trouble
        try:
            await self._perform(step)
        except VerackError as error:
            self._failed(step, error.message + (f" ({error.hint})" if error.hint else ""))
        except Exception:
            log.exception("step failed unexpectedly", ve=self.uid, step=type(step).__name__)
            self._failed(step, "internal error of the agent; see its log")
        else:
            self._trouble = None if self._trouble is before else self._trouble
            if isinstance(step, Start | Stop | Remove):
                log.info("step done", ve=self.uid, step=type(step).__name__)

    async def _slot(self) -> bool:
        """A place among those that start. False: the wish changed meanwhile."""
        wanted = self.wanted
        await self._ground.slots.take(self.uid)
        return wanted is self.wanted

    async def _perform(self, step: Step) -> None:
        match step:
            case CreateRoot():
                await self._create_root()
            case Start():
                await self._start()
            case Stop(timeout_s):
                await self._stop(timeout_s)
            case Limit() | LimitDisk():
                await self._limit(step)
            case Confirm():
                self._ensured()
                self._memory.confirm(self._entry(), up=self.instance is not None)
            case Remove(root):
                await self._remove(root=root)
            case Wait() | Nothing() | AwaitImage():
                raise AssertionError(step)
            case _:
                assert_never(step)

    # The steps.

    async def _create_root(self) -> None:
        entry, ground = self._entry(), self._ground
        self._ensured()
        self._memory.limit_disk(entry.spec.disk_bytes)
        source = RootSource(image=entry.image_digest)
        await ground.roots.create(self.uid, source, entry.spec.disk_bytes, entry.name)
        self._root = True

    async def _start(self) -> None:
        """The record is written while the network is attached; it must be durable before anything runs."""
        entry, ground = self._entry(), self._ground
        id_base = self._ensured().id_base
        await self._complete_root(entry)
        self._memory.change(ip=entry.ip, mac=entry.mac)
        nic = await ground.network.attach(self.uid, entry.ip, entry.mac) if entry.ip else None
        await ground.ledger.sync()
        plan = StartPlan(
            uid=self.uid,
            hostname=entry.name,
            root=ground.roots.path(self.uid),
            id_base=id_base,
            limits=entry.spec.request,
            nic=nic,
        )
        self.instance = await ground.runtime.start(plan)
        self._started_boot = ground.clock.boot()
        self._memory.start(entry)
        self._mind(self.instance)

    async def _complete_root(self, entry: SetEntry) -> None:
        """A root that was found may be a partial one, if the agent died while it was made."""
        roots = self._ground.roots
        if not await roots.exists(self.uid):
            source = RootSource(image=entry.image_digest)
            await roots.create(self.uid, source, entry.spec.disk_bytes, entry.name)

    async def _stop(self, timeout_s: float) -> None:
        instance = self.instance
        assert instance is not None
        self._stopping = True
        try:
            await self._stop_or_newer_wish(instance, timeout_s)
        finally:
            self._stopping = False
            if self._watch is not None and self._watch.done():
                self.instance = None
        if self.instance is None:
            self._quick_ends = 0
            self._memory.stop()

    async def _stop_or_newer_wish(self, instance: Instance, timeout_s: float) -> None:
        """Returns early when the newest wish gives it less time."""
        stop = asyncio.create_task(self._ground.runtime.stop(instance, timeout_s=timeout_s))
        try:
            while not stop.done() and not self._wants_faster(timeout_s):
                await self._woken_or(stop)
            if stop.done():
                await stop
                self.instance = None
        finally:
            stop.cancel()
            await asyncio.gather(stop, return_exceptions=True)

    async def _woken_or(self, task: asyncio.Task[None]) -> None:
        wake = asyncio.create_task(self._wake.wait())
        await asyncio.wait((task, wake), return_when=asyncio.FIRST_COMPLETED)
        wake.cancel()
        self._wake.clear()

    def _wants_faster(self, timeout_s: float) -> bool:
        step = self.step_now()
        return isinstance(step, Stop) and step.timeout_s < timeout_s

    async def _limit(self, step: Limit | LimitDisk) -> None:
        self._ensured()
        if isinstance(step, LimitDisk):
            await self._ground.roots.limit(self.uid, step.disk_bytes)
            self._memory.limit_disk(step.disk_bytes)
        else:
            await self._ground.runtime.limit(self.uid, step.limits)
            self._memory.limit(step.limits)

    async def _remove(self, *, root: bool) -> None:
        """The record goes last: until then a death of the agent only means that all of this is done again."""
        ground = self._ground
        await ground.runtime.forget(self.uid)
        await ground.network.detach(self.uid)
        if root:
            await ground.roots.delete(self.uid)
            self._root = False
        await self._memory.erase()

    # The end of a VE that nobody asked for.

    def _mind(self, instance: Instance) -> None:
        self._watch = asyncio.create_task(self._watch_end(instance), name=f"end-{self.uid}")

    async def _watch_end(self, instance: Instance) -> None:
        try:
            ended = await instance.ended()
        except VerackError as error:
            log.error("end of VE not seen", ve=self.uid, error=error.message)  # noqa: TRY400
            return
        if instance is self.instance and not self._stopping:
            self._ended(ended)

    def _ended(self, ended: Ended) -> None:
        self.instance = None
        self._trouble = None
        lived_s = self._ground.clock.boot() - self._started_boot
        verdict = ends.judge(ended, lived_s=lived_s, quick_ends=self._quick_ends)
        self._quick_ends = verdict.quick_ends
        log.info("VE ended", ve=self.uid, reason=verdict.reason, how=verdict.sentence)
        if verdict.delay_s > 0 and self.wanted is not None:
            message = (
                f"{verdict.sentence} right after its start, {verdict.quick_ends} times in a row"
            )
            self._trouble = self._trouble_for(
                "ExitedAtOnce", message, verdict.quick_ends, verdict.delay_s
            )
        self._memory.end(verdict, self.wanted, self._trouble)
        self.nudge()

    # Small things.

    def _entry(self) -> SetEntry:
        assert self.wanted is not None
        return self.wanted

    def _ensured(self) -> VERecord:
        return self._memory.ensure(self._entry(), self.instance)

    def _failed(self, step: Step, message: str) -> None:
        failures = self._trouble.failures + 1 if self._trouble else 1
        reason = _REASONS.get(type(step), "InternalError")
        self._trouble = self._trouble_for(reason, message, failures, ends.backoff_s(failures))
        log.warning("step failed", ve=self.uid, step=type(step).__name__, error=message)
        self._memory.fail(self._trouble)

    def _trouble_for(self, reason: str, message: str, failures: int, delay_s: float) -> Trouble:
        clock = self._ground.clock
        return Trouble(reason, message, failures, clock.boot() + delay_s, clock.wall() + delay_s)

    def _tell(self) -> None:
        self._ground.changed(self.uid)
