"""What must hold of VEs that may be started elsewhere: seen from outside, by true time, whatever the programs believe.

A start that was begun under a lease may come about after it ran out, and a machine that stood still as a whole goes on
where it was: then vefence ends the VE within `LATE_S`. Nothing else ever lets one run twice.
"""

from collections import Counter
from typing import TYPE_CHECKING

from veapi.model import OnHostLoss, Placement, Run, Uid

if TYPE_CHECKING:
    from sim.checks import Checks
    from sim.host import Host
    from sim.loop import SimLoop
    from veapi.model import Timing

LOOK_S = 0.1
LATE_S = 0.45
"""vefence looks each quarter of a second."""
LAPSE_S = 30.0
"""So long after a lease ran out somebody may still be stopped for it."""
SURELY_S = 0.3
"""A host that was not heard of for F and this is silent for whoever leads."""


class Fencing:
    """`rate_error`: of clocks, at most. `moves`: how many there were."""

    def __init__(self, loop: "SimLoop", checks: "Checks", timing: "Timing", rate: float) -> None:
        self.moves = 0
        self.moved_to: Counter[tuple[str, Uid]] = Counter()
        self.ever: set[Uid] = set()
        """VEs that ever had a fenced policy."""
        self.purged: set[tuple[str, Uid]] = set()
        """Roots of moved VEs whose time at the old host is over."""
        self._loop = loop
        self._checks = checks
        self._timing = timing
        self._rate = rate
        self._acked: dict[str, float] = {}
        self._heard: dict[str, float] = {}
        self._lapsed: dict[str, float] = {}
        self._begun: dict[tuple[str, Uid], bool] = {}
        self._gone_by: dict[tuple[str, Uid], float] = {}

    # What happens.

    def hears(self, host: str) -> None:
        """A heartbeat came to whoever leads."""
        self._heard[host] = self._loop.time()

    def acknowledges(self, host: str, came: float) -> None:
        self._acked[host] = max(came, self._acked.get(host, came))

    def begins(self, host: "Host", uid: Uid) -> None:
        """A start is under way; what lives by then is not known yet."""
        self._begun[host.name, uid] = host.lease_holds

    def starts(self, host: "Host", uid: Uid) -> None:
        """[S1, S9] The main promise."""
        for other in self._checks.hosts.values():
            if other is not host and uid in other.runtime.running and not other.frozen:
                self._twice(uid, host, other)

    def _twice(self, uid: Uid, new: "Host", old: "Host") -> None:
        placement = self._checks.truth.placements.get(uid)
        ours = placement is not None and placement.host == new.name
        wrong, now = (old, self._loop.time()) if ours else (new, self._loop.time())
        key = (wrong.name, uid)
        fresh = wrong is new or now - self._checks.started.get(key, -1e9) < LATE_S
        excused = (fresh and self._begun.get(key)) or key in self._gone_by
        self._checks.demand("a VE runs on one host", excused, f"{uid} on {new.name} and {old.name}")
        self._gone_by.setdefault(key, now + LATE_S)

    def thaws(self, host: "Host") -> None:
        """What ran on it ran nowhere while it stood still."""
        for uid in host.runtime.running:
            self._gone_by.setdefault((host.name, uid), self._loop.time() + LATE_S)

    def lapsed(self, host: "Host") -> bool:
        """Whether its lease ran out, or had a moment ago."""
        now = self._loop.time()
        if not host.lease_holds:
            self._lapsed[host.name] = now
        return now - self._lapsed.get(host.name, -1e9) < LAPSE_S

    def excuses(self, host: "Host", uid: Uid) -> bool:
        """Whether fencing may stop it there."""
        return uid in self.ever and self.lapsed(host)

    def kills(self, host: "Host", uid: Uid) -> None:
        """[S13] vefence ends only what its host was told to fence."""
        self._checks.demand(
            "no VE of policy stay is fenced", uid in self.ever, f"{uid} on {host.name}"
        )
        stays = host.stays_since.get(uid)
        self._checks.demand(
            "who stays again is fenced no more",
            stays is None or self._loop.time() - stays < 2 * LATE_S or not host.up,
            f"{uid} on {host.name}",
        )

    def reported(self, uid: Uid) -> None:
        """A status was written."""
        status = self._checks.truth.statuses.get(uid)
        if status is not None and status.armed_generation:
            had = self._checks.hosts[status.host].vefence.had
            self._checks.demand("armed is what vefence has", uid in had, f"{uid} on {status.host}")

    # Moves.

    def placed(self, uid: Uid, before: Placement | None, now: Placement) -> None:
        if before is None or before.host == now.host:
            return
        self.moves += 1
        self.moved_to[now.host, uid] += 1
        self._checks.note(f"MOVED {uid[:8]} from {before.host} to {now.host}")
        for invariant, holds in self._rules(uid, before):
            self._checks.demand(invariant, holds, f"{uid} from {before.host} to {now.host}")

    def _rules(self, uid: Uid, before: Placement) -> list[tuple[str, bool]]:
        truth, now = self._checks.truth, self._loop.time()
        ve, cluster = truth.specs.get(uid), truth.cluster
        silent_s = now - self._acked.get(before.host, -1e9)
        recreate = ve is not None and ve.spec.on_host_loss is OnHostLoss.RECREATE
        wanted = ve is not None and ve.spec.run is not Run.STOPPED and not ve.delete_requested_at
        free = cluster is None or (not cluster.disarmed_until and not cluster.moves_stopped)
        return [
            ("no VE of policy stay is moved", recreate),
            ("only what shall run is moved", wanted),
            ("moves wait for M", silent_s >= self._timing.move_after_s / (1 + self._rate) - 1e-3),
            ("only what is armed is moved", self._armed(uid, before)),
            ("nothing is moved while brakes hold", free),
            ("nothing is moved when half the hosts are silent", not self._storm()),
        ]

    def _armed(self, uid: Uid, placement: Placement) -> bool:
        """Its host had confirmed all that the move relies on."""
        truth = self._checks.truth
        ve, status = truth.specs.get(uid), truth.statuses.get(uid)
        facts, cluster = truth.hosts.get(placement.host), truth.cluster
        if ve is None or status is None or facts is None or cluster is None:
            return False
        return (
            status.placement_generation == placement.generation
            and 0 < ve.policy_generation <= status.armed_generation
            and facts.fence.live
            and (facts.fence.timing, facts.fence.arming) == (cluster.timing, cluster.arming)
        )

    def _storm(self) -> bool:
        truth, now = self._checks.truth, self._loop.time()
        told = truth.cluster.moves_resumed if truth.cluster is not None else ()
        known = [name for name in truth.hosts if name not in told]
        least = self._timing.fence_after_s * (1 + self._rate) + SURELY_S
        silent = [name for name in known if now - self._heard.get(name, -1e9) > least]
        return bool(silent) and 2 * len(silent) >= len(known)

    # At any moment.

    def look(self) -> None:
        """[S1, 1.3] Who runs, runs once, and under a lease."""
        for host in self._checks.hosts.values():
            self.lapsed(host)
            for uid in host.runtime.running:
                if not host.frozen:
                    self._runs(host, uid)
        self._forget()

    def _runs(self, host: "Host", uid: Uid) -> None:
        truth, key, now = self._checks.truth, (host.name, uid), self._loop.time()
        placement, ve = truth.placements.get(uid), truth.specs.get(uid)
        due = self._gone_by.get(key)
        elsewhere = placement is not None and placement.host != host.name
        if due is not None and host.minded:
            self._checks.demand(
                "a late copy is ended at once", now < due or not elsewhere, f"{uid} on {host.name}"
            )
        fenced = ve is not None and ve.spec.on_host_loss is OnHostLoss.RECREATE
        if due is not None or elsewhere or not fenced or placement is None:
            return
        cluster, timing = truth.cluster, self._timing
        counts = cluster is not None and not cluster.disarmed_until and self._armed(uid, placement)
        until = (timing.fence_after_s + timing.kill_within_s) / (1 - self._rate)
        if counts and now - self._acked.get(host.name, now) > until:
            fresh = now - self._checks.started.get(key, -1e9) < LATE_S
            self._checks.demand(
                "a fenced VE does not outlive its lease", fresh, f"{uid} on {host.name}"
            )

    def _forget(self) -> None:
        now = self._loop.time()
        for (name, uid), due in list(self._gone_by.items()):
            host = self._checks.hosts[name]
            if not host.minded or host.frozen:
                self._gone_by[name, uid] = now + LATE_S
            elif uid not in host.runtime.running or now >= due:
                del self._gone_by[name, uid]
