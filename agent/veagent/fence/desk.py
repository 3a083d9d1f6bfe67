"""Says who may run, by lease and vefence; one for each agent.

A VE is written into vefence's list before it is started, and may start once vefence has confirmed that list under a lease
that holds. A VE that runs already when its policy becomes a fenced one is listed only while the lease holds: else it
would be killed for having been asked to be safe. The lease is written before the list, always.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from veagent.fence import hold as holds
from veagent.fence.door import Door
from veagent.fence.gate import (
    ARMING,
    AWAITS_LEASE,
    FREE,
    NO_FENCE,
    AwaitFence,
    FenceView,
    is_fenced,
    is_to_be_here,
)
from veagent.fence.teller import Teller
from veagent.net.layout import device_name
from veapi.clock import Clock
from veapi.errors import Unavailable, VerackError
from veapi.model import FenceFacts, HostSet, SetEntry, Timing, Uid
from vefence.notes import Beat, Target

log = structlog.get_logger()
LOOK_S = 0.25
HASTE_S = 0.02
"""Between looks while something waits for vefence's word, or just before the lease runs out."""
UNCONFIRMED = -1
_DEAD = AwaitFence(
    NO_FENCE, "vefence does not run on this host, so nobody would kill it in time: start vefence"
)
_NO_LEASE = AwaitFence(
    AWAITS_LEASE,
    "this host has no lease: it starts when a controller answers and says what shall run here",
)
_ARMING = AwaitFence(ARMING, "vefence has not yet confirmed that it minds it")


@dataclass(frozen=True, slots=True)
class Ears:
    """Who is told: that a VE's view may have changed; that the host's facts have. `runs`: whether a VE runs here."""

    changed: Callable[[Uid], None]
    facts: Callable[[], None]
    runs: Callable[[Uid], bool]


@dataclass(frozen=True, slots=True)
class FenceNumbers:
    """For metrics. `left_s`: until the deadline, infinite when there is none. `listed`: VEs that are minded."""

    live: bool
    left_s: float
    listed: int
    beat: Beat | None


class FenceDesk:
    """`run` it for ever. Without `listen` nobody is told, and nothing seems to run."""

    def __init__(self, door: Door, clock: Clock, *, boot_id: str, cgroup_root: str) -> None:
        self._clock = clock
        self._timing: Timing | None = None
        self._teller = Teller(
            door,
            clock,
            boot_id=boot_id,
            cgroup_root=cgroup_root,
            kill_within_s=self._kill_within_s,
        )
        self._hold = holds.found(self._teller.found_deadline, clock.boot())
        self._ears = Ears(lambda _uid: None, lambda: None, lambda _uid: False)
        self._wanted: dict[Uid, int] = {}
        self._free: frozenset[Uid] = frozenset()
        """VEs that shall be here and are not fenced."""
        self._asked: tuple[bool, int] | None = None
        """Disarmed or not, and the count, as the newest set says."""
        self._starting: set[Uid] = set()
        self._told_what_to_run = False
        self._posture: object = None

    def listen(self, ears: Ears) -> None:
        self._ears = ears

    # What it is told.

    def found(self, running: Iterable[SetEntry]) -> None:
        """Wishes of the ledger for what runs as this agent begins. It has no lease if the notes of the last one are gone.

        A controller may count on its end, and no vefence that begins now knows of it.
        """
        targets = {
            e.uid: Target(e.uid, _device(e.uid), e.policy_generation)
            for e in running
            if is_fenced(e)
        }
        if targets and self._teller.found_nothing:
            log.error("notes of the fence are gone, so what they were about ends", ves=len(targets))
            self._teller.tell_list(targets)

    @property
    def lapses(self) -> int:
        """How often the lease ran out. A session that is older than the last time is of no use any more."""
        self._check()
        return self._hold.lapses

    def agree(self, timing: Timing) -> None:
        """The times of the cluster, as a session's controller gives them."""
        if timing != self._timing:
            self._timing = timing
            self._ears.facts()

    def answered(self, sent: float) -> None:
        """A heartbeat that was sent at this boot time was answered."""
        if self._timing is None:
            return
        self._check()
        before, until = self._hold, sent + self._timing.fence_after_s
        self._hold = holds.answered(before, until, self._clock.boot())
        newer = self._hold.open and self._hold.deadline != before.deadline
        if newer and not self.disarmed and not self._renew():
            self._hold = before

    def take(self, host_set: HostSet) -> None:
        """A set that is durable is about to be in force. One of a restored store, which forgot policies, changes none."""
        if host_set.unconfirmed:
            return
        here = [entry for entry in host_set.entries if is_to_be_here(entry)]
        self._wanted = {entry.uid: entry.policy_generation for entry in here if is_fenced(entry)}
        self._free = frozenset(entry.uid for entry in here if not is_fenced(entry))
        self._asked = (host_set.disarmed, host_set.arming)

    def heard(self, lapses: int) -> None:
        """A set was put in force, in a session that began when the lease had run out that often."""
        self._told_what_to_run = True
        self._hold = holds.heard(self._hold, lapses)
        self.turn()

    def unheard(self) -> None:
        """The session is over."""
        self._hold = holds.unheard(self._hold)

    # What it says.

    @property
    def disarmed(self) -> bool:
        return self._teller.disarmed

    def view(self, uid: Uid, entry: SetEntry | None) -> FenceView:
        """Of a VE, and of what is wanted of it."""
        fenced = entry is not None and is_fenced(entry)
        listed = uid in self._teller.targets
        if not (fenced or listed):
            return FREE
        doomed = listed and not self.disarmed and not self._holds()
        refusal = self._refusal(uid) if fenced else None
        return FenceView(doomed=doomed, refusal=refusal, armed=self._armed(uid))

    def _refusal(self, uid: Uid) -> AwaitFence | None:
        if not self._told_what_to_run:
            return _NO_LEASE
        if self.disarmed:
            return None
        if not self._teller.live:
            return _DEAD
        if not self._holds():
            return _NO_LEASE
        minded = self._teller.confirmed(uid) and uid in self._wanted
        return None if minded else _ARMING

    def _armed(self, uid: Uid) -> int:
        """Only what vefence says that it goes by counts."""
        if self.disarmed or not self._teller.confirmed(uid):
            return 0
        return self._teller.targets[uid].generation

    def _holds(self) -> bool:
        return self._hold.holds(self._clock.boot())

    @contextmanager
    def starting(self, entry: SetEntry) -> Iterator[None]:
        """Around the start of a VE: while one is under way a lost lease does not come back. Unavailable when it may not start."""
        if not is_fenced(entry):
            yield
            return
        refusal = self._refusal(entry.uid)
        if refusal is not None:
            raise Unavailable(refusal.message, hint="it is tried again by itself")
        self._starting.add(entry.uid)
        try:
            yield
        finally:
            self._starting.discard(entry.uid)

    def facts(self) -> FenceFacts:
        """`arming` is only told once vefence goes by it, else it is -1."""
        teller = self._teller
        follows = teller.live and teller.arming_confirmed
        return FenceFacts(
            live=teller.live,
            timing=self._timing,
            arming=teller.lease.arming if follows else UNCONFIRMED,
            refuses="" if teller.live else _DEAD.message,
        )

    def numbers(self) -> FenceNumbers:
        teller, deadline = self._teller, self._teller.lease.deadline
        left_s = float("inf") if deadline is None else deadline - self._clock.boot()
        return FenceNumbers(teller.live, left_s, len(teller.targets), teller.beat)

    # What it does.

    async def run(self) -> None:
        """For ever: a look each quarter of a second, and more when the lease is about to run out or a word is waited for."""
        while True:
            self.turn()
            await self._clock.sleep(self._rest_s())

    def _rest_s(self) -> float:
        teller = self._teller
        if teller.live and not all(map(teller.confirmed, teller.targets)):
            return HASTE_S
        left_s = self._hold.deadline - self._clock.boot() if self._hold.open else LOOK_S
        return max(HASTE_S, min(LOOK_S, left_s))

    def turn(self) -> None:
        """One look at everything. Quick, and never waits."""
        self._teller.listen()
        self._check()
        self._arm()
        if holds.may_open(self._hold, self._clock.boot()) and self._clean():
            self._open()
        targets = dict(self._targets())
        if targets != self._teller.targets:
            self._teller.tell_list(targets)
        self._teller.repair()
        self._spread()

    def _check(self) -> None:
        checked = holds.checked(self._hold, self._clock.boot())
        if checked is not self._hold:
            self._hold = checked
            listed = len(self._teller.targets)
            log.warning("lease ran out", deadline=round(checked.deadline, 3), ves=listed)

    def _clean(self) -> bool:
        """Nothing that the lease covered lives, as this agent and vefence see it."""
        if self._starting:
            return False
        if self.disarmed or not self._teller.targets:
            return True
        alive = any(self._ears.runs(uid) for uid in self._teller.targets)
        return not alive and self._teller.confirmed_dead()

    def _open(self) -> None:
        before, self._hold = self._hold, holds.opened(self._hold)
        if not self.disarmed and not self._renew():
            self._hold = before
            return
        log.info("lease holds", deadline=round(self._hold.deadline, 3))

    def _arm(self) -> None:
        """Follows the newest set in being armed or not. Off only when nothing lives that ran out; on only with a lease."""
        if self._asked is None or self._asked == (self.disarmed, self._teller.lease.arming):
            return
        disarmed, arming = self._asked
        if disarmed and (self._hold.open or self._clean()):
            self._tell_arming(None, arming)
        elif not disarmed and not self.disarmed:
            self._tell_arming(self._teller.lease.deadline, arming)
        elif not disarmed and self._clock.boot() < self._hold.promise:
            self._hold = holds.opened(self._hold)
            self._tell_arming(self._hold.deadline, arming)

    def _tell_arming(self, deadline: float | None, arming: int) -> None:
        if self._teller.tell_lease(deadline, self._kill_within_s, arming=arming):
            log.info("fence follows the cluster", disarmed=deadline is None, arming=arming)

    @property
    def _kill_within_s(self) -> float:
        return (self._timing or Timing()).kill_within_s

    def _renew(self) -> bool:
        """False: vefence could not be told, and what it does not know does not hold."""
        arming = self._teller.lease.arming
        return self._teller.tell_lease(self._hold.deadline, self._kill_within_s, arming=arming)

    def _targets(self) -> Iterator[tuple[Uid, Target]]:
        """Those that are listed and wanted, or still live; and, under a lease and a living vefence, those that are new."""
        listed = self._teller.targets
        takes = self._teller.live and (self.disarmed or self._holds())
        for uid, target in listed.items():
            if uid not in self._wanted and uid not in self._free and self._lingers(uid):
                yield uid, target
        for uid, generation in self._wanted.items():
            if uid in listed or takes:
                yield uid, Target(uid, _device(uid), generation)

    def _lingers(self, uid: Uid) -> bool:
        """Before the first set nobody knows what is wanted."""
        return self._asked is None or uid in self._starting or self._ears.runs(uid)

    def _spread(self) -> None:
        """Whoever may see something else now is told; the others hear nothing."""
        holds_now = self.disarmed or self._holds()
        posture = (
            holds_now,
            self._told_what_to_run,
            self.disarmed,
            self._asked,
            self._teller.posture(),
        )
        if posture == self._posture:
            return
        self._posture = posture
        self._ears.facts()
        for uid in {*self._wanted, *self._teller.targets}:
            self._ears.changed(uid)


def _device(uid: Uid) -> str:
    try:
        return device_name(uid)
    except VerackError:
        return ""
