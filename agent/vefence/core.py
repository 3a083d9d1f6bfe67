"""What vefence does at a moment: pure, from the clock, what it was told, and what lives.

A monitor makes a new init when its VE reboots, and a start that was begun earlier may come about later. So a lease that
has run out is no moment but a state: what lives in it is killed, again and again, until there is a lease once more.
A list without a lease is damage, and counts as run out: the agent writes the lease first. Nothing that is not on the list
is ever touched.
"""

from collections.abc import Collection
from dataclasses import dataclass

from vefence.notes import KillList, Lease, Target

IDLE_S = 0.25
BUSY_S = 0.05
"""Between two looks: else, and while something is killed."""
REBOOT_AFTER_S = 0.5
"""After the network cards of what does not die are down."""


@dataclass(frozen=True, slots=True)
class Told:
    """The newest of each; None: none yet."""

    lease: Lease | None = None
    kill_list: KillList | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        return self.kill_list.targets if self.kill_list else ()


@dataclass(frozen=True, slots=True)
class Plan:
    """`kill`: with all their processes, monitors first. `cut`: whose network cards go down. `pet`: the watchdog."""

    expired: bool = False
    kill: tuple[Target, ...] = ()
    cut: tuple[Target, ...] = ()
    reboot: bool = False
    pet: bool = True


def expired(now: float, told: Told) -> bool:
    """Whether there is something on the list, and it must not run."""
    lease = told.lease
    if lease is None or not told.targets:
        return bool(told.targets)
    return lease.deadline is not None and now >= lease.deadline


def decide(now: float, told: Told, alive: Collection[str], *, since: float, reboots: bool) -> Plan:
    """`alive`: uids of the list that live. `since`: when it expired as far as is known. `reboots`: the host may be rebooted."""
    if not expired(now, told):
        return Plan()
    living = tuple(target for target in told.targets if target.uid in alive)
    late_s = now - since - (told.lease.kill_within_s if told.lease else 0.0)
    stuck = living if late_s >= 0 else ()
    lost = bool(stuck) and late_s >= REBOOT_AFTER_S and reboots
    return Plan(expired=True, kill=living, cut=stuck, reboot=lost, pet=not lost)


def expired_since(now: float, told: Told, known: float | None) -> float | None:
    """When it expired; None: it has not. `known`: what this said the last time."""
    if not expired(now, told):
        return None
    if told.lease is not None and told.lease.deadline is not None:
        return told.lease.deadline
    return now if known is None else known


def next_look_s(now: float, told: Told, *, idle_s: float) -> float:
    """How long nothing need be done while nothing is killed: at most `idle_s`, and not beyond the deadline."""
    deadline = told.lease.deadline if told.lease and told.targets else None
    if deadline is None or now >= deadline:
        return idle_s
    return min(idle_s, deadline - now)
