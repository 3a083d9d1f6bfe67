"""Which hosts are alive: by the receive time of their last heartbeat, on our clock that counts suspends too.

A host is Unknown until it was heard of under this leader, Ready while its heartbeats are younger than F and it has a
session (or had one a moment ago: an agent that restarts makes no noise), and Silent otherwise.

For moving VEs away, silence counts from the last heartbeat or from when we began to lead or last stood still, whichever is
later: what came while we did not look is not known. And a host whose VEs are being moved gets no answer to its heartbeats
(`hold`) until it has the set that tells it so: else it could start them again, by an older set, under a lease of ours.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from veapi.clock import Clock
from veapi.model import HostName, HostState, Order, Timing
from vecontroller.topic import Topic
from vecontroller.view import Changed

TICK_S = 0.5
STALL_S = 1.0
GONE_S = 600.0
"""A host that is silent for longer is not counted among those that keep images."""
FLAPS_WITHIN_S = 3600.0
"""How long it is remembered that a host came back."""
FLAPS_KEPT = 20
SESSION_GRACE_S = 3.0
"""How long a host without a session is still Ready, while its agent restarts or redials."""


@dataclass(slots=True)
class _Heard:
    """`at` and `session_ended` by the boot clock, `wall_at` for people."""

    at: float
    wall_at: float
    sessions: int = 0
    session_ended: float = 0.0
    shown: HostState = field(default=HostState.UNKNOWN)
    back: list[float] = field(default_factory=list)
    """When it was heard again after it had been silent for F."""


@dataclass(slots=True)
class _Hold:
    """No heartbeat of the host is answered until it has a set of `revision`, and while that may still rise (`writing`)."""

    writing: bool = True
    revision: int = 0
    acked: int = 0
    """The newest set that it has, as far as it said since."""
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Liveness:
    """What the sessions heard, and what follows from it."""

    def __init__(
        self,
        topic: Topic,
        clock: Clock,
        *,
        timing: Callable[[], Timing],
        revision: Callable[[], int],
    ) -> None:
        self._topic = topic
        self._clock = clock
        self._timing = timing
        self._revision = revision
        self._hosts: dict[HostName, _Heard] = {}
        self._began: float | None = None
        self._counts_from = 0.0
        self._looked = 0.0
        self._holds: dict[HostName, _Hold] = {}
        self._gone: frozenset[HostName] = frozenset()

    def heard(self, host: HostName) -> None:
        """A heartbeat, or the first message of a session, arrived now."""
        at, wall_at = self._clock.boot(), self._clock.wall()
        known = self._hosts.setdefault(host, _Heard(at=at, wall_at=wall_at))
        if at - max(known.at, self._counts_from) >= self._timing().fence_after_s:
            known.back = [each for each in known.back if at - each < FLAPS_WITHIN_S][-FLAPS_KEPT:]
            known.back.append(at)
        known.at, known.wall_at = at, wall_at
        self._publish(host)

    def session_began(self, host: HostName) -> None:
        self.heard(host)
        self._hosts[host].sessions += 1
        self._publish(host, always=True)

    def session_ended(self, host: HostName) -> None:
        """Once for each that began; an older one that was replaced counts no more."""
        known = self._hosts[host]
        known.sessions -= 1
        known.session_ended = self._clock.boot()
        self._publish(host, always=True)

    def connected(self, host: HostName) -> bool:
        known = self._hosts.get(host)
        return known is not None and known.sessions > 0

    def host_state(self, host: HostName) -> HostState:
        known = self._hosts.get(host)
        if known is None:
            return HostState.UNKNOWN
        now = self._clock.boot()
        fresh = now - known.at < self._timing().fence_after_s
        joined = known.sessions > 0 or now - known.session_ended < SESSION_GRACE_S
        return HostState.READY if fresh and joined else HostState.SILENT

    def gone(self, host: HostName) -> bool:
        """Whether it was not heard of for ten minutes of our lead."""
        if self._began is None:
            return False
        known = self._hosts.get(host)
        since = self._began if known is None else max(known.at, self._began)
        return self._clock.boot() - since > GONE_S

    def silent_for(self, host: HostName) -> float:
        """Seconds of silence that count: see above. 0 while nobody has looked for longer than a stall."""
        now = self._clock.boot()
        if self._began is None or now - self._looked > TICK_S + STALL_S:
            return 0.0
        known = self._hosts.get(host)
        since = self._counts_from if known is None else max(known.at, self._counts_from)
        return max(0.0, now - since)

    def came_back(self, host: HostName) -> tuple[float, ...]:
        """How many seconds ago the host was heard again after a silence, within the hour and this lead; oldest first."""
        known, now = self._hosts.get(host), self._clock.boot()
        back = known.back if known is not None else ()
        return tuple(now - at for at in back if now - at < FLAPS_WITHIN_S)

    def hold(self, host: HostName) -> None:
        """From now on no heartbeat of the host is answered, until `release`."""
        self._holds.setdefault(host, _Hold()).writing = True

    def release(self, host: HostName, *, revision: int) -> None:
        """Its heartbeats are answered once it has a set of that revision, and of those before; 0: nothing was written."""
        hold = self._holds.get(host)
        if hold is None:
            return
        hold.writing, hold.revision = False, max(hold.revision, revision)
        self._let_go_if_told(host, hold)

    def set_acked(self, host: HostName, order: Order) -> None:
        """The host has this set, which was made by this leader, on its disk."""
        hold = self._holds.get(host)
        if hold is None:
            return
        hold.acked = max(hold.acked, order.revision)
        self._let_go_if_told(host, hold)

    async def answerable(self, host: HostName) -> None:
        """Returns once a heartbeat of the host may be answered."""
        hold = self._holds.get(host)
        if hold is not None:
            await hold.over.wait()

    def _let_go_if_told(self, host: HostName, hold: _Hold) -> None:
        if not hold.writing and hold.acked >= hold.revision:
            self._let_go(host)

    def _let_go(self, host: HostName) -> None:
        self._holds.pop(host).over.set()

    def last_heartbeat(self, host: HostName) -> float | None:
        """Unix seconds, for people."""
        known = self._hosts.get(host)
        return None if known is None else known.wall_at

    def heard_of(self) -> list[HostName]:
        """Hosts that this leader has heard of."""
        return sorted(self._hosts)

    async def run(self) -> None:
        """For ever: tells the topic when a host falls silent, which no message announces.

        When it was we who stood still, no host is to blame: those that were alive get their time anew.
        """
        self._began = self._counts_from = self._looked = self._clock.boot()
        for host in list(self._holds):  # of an earlier term, whose writes can't come about any more
            self._let_go(host)
        while True:
            before = self._clock.boot()
            await self._clock.sleep(TICK_S)
            if self._clock.boot() - before - TICK_S > STALL_S:
                self._forgive()
            self._looked = self._clock.boot()
            for host in self._hosts:
                self._publish(host)
            self._tell_gone(before)

    def _forgive(self) -> None:
        now = self._counts_from = self._clock.boot()
        for known in self._hosts.values():
            if known.shown is HostState.READY:
                known.at = now

    def _tell_gone(self, before: float) -> None:
        """Images have other hosts then. Hosts that nobody heard of under this lead are gone all at once."""
        assert self._began is not None
        gone = frozenset(host for host in self._hosts if self.gone(host))
        silent_since = before - self._began <= GONE_S < self._clock.boot() - self._began
        if gone != self._gone or silent_since:
            self._gone = gone
            self._topic.publish(Changed(revision=self._revision(), images=True))

    def _publish(self, host: HostName, *, always: bool = False) -> None:
        """Tells the topic when the state differs from the one that was last told, or `always`."""
        known, state = self._hosts[host], self.host_state(host)
        if always or state is not known.shown:
            known.shown = state
            self._topic.publish(Changed(revision=self._revision(), hosts=frozenset({host})))
