"""A desk with a vefence, on a clock that stands still: what tests say to them, and what lives."""

from typing import Any, cast

import msgspec

from kit.agenthost import U1, U2, entry, host_set
from kit.manualclock import ManualClock
from veagent.fake.fence import FakeVefence
from veagent.fake.runtime import FakeRuntime
from veagent.fence.desk import Ears, FenceDesk
from veapi.model import HostSet, OnHostLoss, SetEntry, Timing, Uid

TIMING = Timing()
F = TIMING.fence_after_s


def fenced(uid: Uid = U1, *, policy: int = 1, **changes: Any) -> SetEntry:
    return entry(uid, on_host_loss=OnHostLoss.RECREATE, policy_generation=policy, **changes)


class FenceRig:
    """`running`: uids that live, as kernel and agent see them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.running: set[Uid] = set()
        self.changed: list[Uid] = []
        self.vefence = FakeVefence(cast("FakeRuntime", self), self.clock)
        self.revision = 0
        self.begin()

    def kill(self, uid: Uid) -> None:
        self.running.discard(uid)

    def begin(self) -> None:
        """A new agent."""
        self.desk = FenceDesk(self.vefence, self.clock, boot_id="boot-1", cgroup_root="verack/h1")
        self.desk.listen(Ears(self.changed.append, lambda: None, lambda uid: uid in self.running))
        self.desk.agree(TIMING)
        self.session = self.desk.lapses

    def connect(self) -> None:
        """A new session."""
        self.desk.unheard()
        self.session = self.desk.lapses

    def set(self, *entries: SetEntry, **changes: Any) -> HostSet:
        """A set comes and is applied."""
        self.revision += 1
        made = msgspec.structs.replace(host_set(self.revision, *entries), **changes)
        self.desk.take(made)
        self.desk.heard(self.session)
        return made

    def pass_(self, seconds: float) -> None:
        """Both look four times a second."""
        end = self.clock.boot() + seconds
        while self.clock.boot() < end:
            self.clock.jump(min(0.25, end - self.clock.boot()))
            self.look()

    def look(self) -> None:
        self.vefence.turn()
        self.desk.turn()

    def beat(self, age_s: float = 0.1) -> None:
        """A heartbeat that was sent so long ago is answered now."""
        self.desk.answered(self.clock.boot() - age_s)

    def reason(self, uid: Uid = U1) -> str:
        """Why it may not start; empty: it may."""
        refusal = self.desk.view(uid, fenced(uid)).refusal
        return refusal.reason if refusal else ""

    def ready(self, *entries: SetEntry) -> None:
        """A host on which fenced VEs may run."""
        self.connect()
        self.beat()
        self.set(*entries or (fenced(),))
        self.look()
        self.look()


__all__ = ["TIMING", "U1", "U2", "F", "FenceRig", "entry", "fenced"]
