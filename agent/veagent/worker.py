"""One VE's worker: takes the newest wish, asks `next_action`, does that one step, asks again.

It decides nothing itself and polls nothing: it sleeps until its wish changes, its VE ends, its image or room for its root
comes, or a back-off is over. Only a clean stop is cut short by a newer wish (a kill need not wait for it).
"""

import asyncio
from collections.abc import Sequence

import structlog

from veagent import ends
from veagent.body import Body
from veagent.events import words
from veagent.fence.gate import AwaitFence, FenceOff
from veagent.ground import Ground
from veagent.memory import Memory
from veagent.ports import Ended, Instance
from veagent.reconcile import (
    AwaitImage,
    AwaitRoom,
    CreateRoot,
    Freeze,
    Keep,
    Limit,
    LimitDisk,
    Nothing,
    Observed,
    Pin,
    Remove,
    ReplaceRoot,
    Start,
    Step,
    Stop,
    Thaw,
    Wait,
    next_action,
)
from veagent.record import VERecord
from veagent.snapshots import DeleteSnapshot, SnapshotTries, TakeSnapshot
from veagent.standstill import as_it_ran, next_action_unconfirmed
from veagent.status import LIMITS_REFUSED, POOL_FULL, Running, Sight, Trouble, report_of
from veagent.steps import Steps
from veagent.watch import Watch
from veapi.errors import RemoteFailed, Unavailable, VerackError
from veapi.model import SetEntry, SnapshotStatus, Uid, VEReport

log = structlog.get_logger()
_REASONS: dict[type[Step], str] = {
    CreateRoot: "RootFailed",
    ReplaceRoot: "RebuildFailed",
    Start: "StartFailed",
    Stop: "StopFailed",
    Freeze: "FreezeFailed",
    Thaw: "ThawFailed",
    Limit: LIMITS_REFUSED,
    LimitDisk: LIMITS_REFUSED,
    Pin: "PinFailed",
    Keep: "DeleteFailed",
    Remove: "DeleteFailed",
    FenceOff: "FenceFailed",
}
_INTERNAL = "internal error of the agent; see its log"
STEPS_AT_ONCE = 64
"""Without a rest between them. More are needed at most for many snapshots: else a step does not bring what it should."""


class Worker:
    """Owns one VE. Nobody else changes its record, its root or its instance."""

    def __init__(
        self,
        uid: Uid,
        ground: Ground,
        *,
        record: VERecord | None = None,
        body: Body | None = None,
        last: SetEntry | None = None,
        snapshots: Sequence[SnapshotStatus] | None = None,
    ) -> None:
        self.uid = uid
        self.wanted: SetEntry | None = None
        self._unconfirmed = False
        self._body = body or Body()
        self._ground = ground
        self._memory = Memory(uid, ground, record, found=snapshots)
        self._wake = asyncio.Event()
        self._watch = Watch(uid, ground.clock, ended=self._ended, killed=self._killed)
        self._steps = Steps(
            uid,
            ground,
            self._memory,
            self._body,
            self._watch,
            wake=self._wake,
            faster=self._wants_faster,
        )
        self._step: Step = Nothing("Orphan")
        self._trouble: Trouble | None = None
        self._tries = SnapshotTries()
        self._quick_ends = 0
        self._steps_done = 0
        self._take_up(last)

    def _take_up(self, last: SetEntry | None) -> None:
        """What was found when the agent began. `last`: what the durable set asks."""
        instance = self._body.instance
        if self.record is not None and self._body.root and not self.record.made:
            self._memory.change(made=True)
        self._memory.found(last, running=instance is not None)
        if instance is None:
            return
        record = self.record
        self._body.oom_seen = record.oom_run if record is not None else 0
        self._watch.mind(instance, oom_seen=self._body.oom_seen)
        if record is not None:
            self._ground.cpusets.place(self.uid, record.limits.cpu_millis, held=record.cpus)

    # What others see and say.

    @property
    def record(self) -> VERecord | None:
        return self._memory.record

    @property
    def instance(self) -> Instance | None:
        return self._body.instance

    def wish(self, entry: SetEntry | None, *, unconfirmed: bool = False) -> None:
        """The newest wish; a new one is tried at once, whatever failed before. `unconfirmed`: of a restored store."""
        if (entry, unconfirmed) == (self.wanted, self._unconfirmed):
            return
        believed, self._unconfirmed = not self._unconfirmed, unconfirmed
        if entry is None and self.wanted is not None and believed:
            self._memory.orphan(self.wanted)
        self.wanted = entry
        self._trouble = None
        self._quick_ends = 0
        self._tries.again()
        self._body.forgive()
        if entry is not None and self._body.instance is not None and not unconfirmed:
            self._ground.cpusets.ensure(self.uid, entry.spec.cpu_millis)
        self.nudge()

    def nudge(self) -> None:
        """Something that it may have waited for has happened."""
        self._wake.set()

    def report(self) -> VEReport:
        return report_of(self._sight())

    def step_now(self) -> Step:
        """What it would do next."""
        if self._unconfirmed:
            return next_action_unconfirmed(self.wanted, self._observed())
        return next_action(self.wanted, self._observed())

    @property
    def nothing_left(self) -> bool:
        """Neither wanted nor there: its worker may go."""
        return self.wanted is None and self.record is None and self._body.empty

    def _sight(self) -> Sight:
        body, running = self._body, None
        if body.instance is not None:
            running = Running(body.instance.init_pid, body.instance.started_at, body.frozen)
        digest = self.wanted.image_digest if self.wanted else None
        return Sight(
            uid=self.uid,
            host=self._ground.host,
            wanted=self.wanted,
            record=self.record,
            root=body.root,
            remains=body.remains,
            running=running,
            step=self._step,
            trouble=self._trouble,
            image_trouble=self._ground.images.trouble(digest) if digest else "",
            root_refused=body.root_refused.message if body.root_refused else "",
            armed=self._ground.fence.view(self.uid, self.wanted).armed,
            unconfirmed=self._unconfirmed,
        )

    def _observed(self) -> Observed:
        wanted, body, ground = self.wanted, self._body, self._ground
        now = ground.clock.boot()
        return Observed(
            record=self.record,
            root=body.root,
            remains=body.remains,
            running=body.instance is not None,
            frozen=body.frozen,
            rates=body.rates,
            cpus=ground.cpusets.of(self.uid),
            pinned=body.cpus,
            image_held=wanted is not None and ground.images.holds(wanted.image_digest),
            refuses=ground.refuses() if not body.root and not body.remains else "",
            disk_refused=body.disk_refused,
            root_refused=body.root_refused.seq if body.root_refused else None,
            waiting=self._tries.waiting(now),
            wait_s=max(0.0, self._trouble.until - now) if self._trouble else 0.0,
            fence=ground.fence.view(self.uid, wanted),
        )

    # The loop.

    async def run(self) -> None:
        """For ever, until cancelled; cancelling harms nothing that a new worker would not repair."""
        try:
            while True:
                await self._safe_turn()
        finally:
            self._ground.slots.give(self.uid)
            self._ground.cpusets.release(self.uid)
            self._watch.close()

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
            case Nothing() | AwaitImage() | AwaitRoom() | AwaitFence():
                if self._body.instance is None:
                    self._ground.cpusets.release(self.uid)
                self._tell()
                await self._rest()
            case Wait(seconds):
                self._tell()
                await self._rest(seconds)
            case _:
                await self._breathe(step)
                await self._act(step)

    async def _breathe(self, step: Step) -> None:
        """So that a mistake of ours, which asks for the same step again and again, costs others nothing."""
        self._steps_done += 1
        if self._steps_done > STEPS_AT_ONCE:
            self._steps_done = 0
            log.error("many steps without a rest", ve=self.uid, step=type(step).__name__)
            await self._ground.clock.sleep(ends.backoff_s(1))

    async def _rest(self, seconds: float | None = None) -> None:
        """Until it is woken, the time is over, or a snapshot may be tried again."""
        self._steps_done = 0
        waits = (seconds, self._tries.next_in_s(self._ground.clock.boot()))
        limit_s = min((wait for wait in waits if wait is not None), default=None)
        if limit_s is None:
            await self._wake.wait()
            return
        timer = asyncio.create_task(self._ground.clock.sleep(limit_s))
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
        assert self.wanted is not None
        try:
            held = self._unconfirmed
            entry = as_it_ran(self.wanted, self.record) if held else self.wanted
            await self._steps.perform(step, entry)
        except VerackError as error:
            self._failed(step, error)
        except Exception:
            log.exception("step failed unexpectedly", ve=self.uid, step=type(step).__name__)
            self._failed(step, RemoteFailed(_INTERNAL))
        else:
            self._done(step, before)

    def _done(self, step: Step, trouble: Trouble | None) -> None:
        match step:
            case TakeSnapshot(_, seq) | DeleteSnapshot(_, seq):
                self._tries.forget(seq)
                return
            case Stop() | ReplaceRoot() | FenceOff() if self._body.instance is None:
                self._quick_ends = 0
            case _:
                pass
        self._trouble = None if self._trouble is trouble else self._trouble
        if isinstance(step, Start | Stop | ReplaceRoot | Keep | Remove | FenceOff):
            log.info("step done", ve=self.uid, step=type(step).__name__)

    async def _slot(self) -> bool:
        """A place among those that start. False: the wish changed meanwhile."""
        wanted = self.wanted
        await self._ground.slots.take(self.uid)
        return wanted is self.wanted

    def _wants_faster(self, timeout_s: float) -> bool:
        step = self.step_now()
        if isinstance(step, FenceOff):
            return timeout_s > 0
        return isinstance(step, Stop | ReplaceRoot) and step.timeout_s < timeout_s

    # What happens to a VE that nobody asked for.

    def _ended(self, instance: Instance, ended: Ended) -> None:
        if instance is not self._body.instance or self._steps.stopping:
            return
        doomed = self._ground.fence.view(self.uid, self.wanted).doomed
        self._body.down()
        self._trouble = None
        if doomed:
            log.info("VE fenced", ve=self.uid)
            self._memory.fenced()
            self.nudge()
            return
        lived_s = self._ground.clock.boot() - self._body.started_boot
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

    def _killed(self, kills: int) -> None:
        """The kernel has ended processes of it: so many, as the runtime counts."""
        more, self._body.oom_seen = kills - self._body.oom_seen, kills
        log.warning("out of memory", ve=self.uid, kills=more)
        self._memory.oom(more)

    # Small things.

    def _failed(self, step: Step, error: VerackError) -> None:
        log.warning("step failed", ve=self.uid, step=type(step).__name__, error=error.message)
        if isinstance(step, TakeSnapshot | DeleteSnapshot):
            given_up = self._tries.failed(step, error, self._ground.clock.boot())
            self._memory.snapshot_failed(step, words(error), given_up=given_up)
            return
        failures = self._trouble.failures + 1 if self._trouble else 1
        reason = _REASONS.get(type(step), "InternalError")
        if isinstance(step, CreateRoot) and isinstance(error, Unavailable):
            reason = POOL_FULL
        delay_s = ends.backoff_s(failures)
        self._trouble = self._trouble_for(reason, words(error), failures, delay_s)
        self._memory.warn(reason, words(error))

    def _trouble_for(self, reason: str, message: str, failures: int, delay_s: float) -> Trouble:
        clock = self._ground.clock
        return Trouble(reason, message, failures, clock.boot() + delay_s, clock.wall() + delay_s)

    def _tell(self) -> None:
        self._ground.changed(self.uid)
