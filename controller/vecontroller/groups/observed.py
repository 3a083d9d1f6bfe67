"""What is seen of a group's VEs: whether each is available, and if not, what it lacks.

A VE is available when it runs as it was asked for last, and has for `min_ready_s`. How long it has run is counted by this
controller's own clock from when it first saw that start; hosts' clocks differ. Only what ran before this controller began
to look is believed to have run since its host says so: else each new leader would call all VEs too young.
"""

from collections.abc import Iterable

from veapi.model import VE, Group, HostState, Uid, VEState, VEStatus
from vecontroller import lifecycle
from vecontroller.api.ports import ApiDeps
from vecontroller.groups.member import Key, Member, ordinal_of
from vecontroller.view import Held

_COULD_NOT = ("LimitsRefused", "RestartNeeded", "SourceMissing", "PoolFull")
"""Reasons of a host that could not go along with what was asked."""


class Observer:
    """Remembers when VEs were first seen to run, so it must be the only one."""

    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
        self._ran_since: dict[Uid, tuple[float | None, float]] = {}
        self.begin()

    def begin(self) -> None:
        """From now on it looks all the time."""
        clock = self._deps.clock
        self._began, self._began_wall, self._ran_since = clock.boot(), clock.wall(), {}

    def members(self, key: Key, group: Group | None) -> list[Member]:
        """The VEs of the group, by ordinal; one whose name the group does not give is not looked at."""
        view = self._deps.mirror.view
        found = [
            member
            for uid in view.members.get(key, ())
            if uid in view.ves and (member := self._member(key, group, view.ves[uid])) is not None
        ]
        return sorted(found, key=lambda each: each.ordinal)

    def ready_at(self, group: Group, members: Iterable[Member]) -> float | None:
        """The next time (boot) at which one will have run for long enough."""
        times = [self._ran_since[each.uid][1] for each in members if each.reason == "TooYoung"]
        return min(times) + group.min_ready_s if times else None

    def forget_others(self) -> None:
        """Of VEs that are there no more."""
        there = self._deps.mirror.view.ves
        self._ran_since = {uid: ran for uid, ran in self._ran_since.items() if uid in there}

    def _member(self, key: Key, group: Group | None, held: Held[VE]) -> Member | None:
        ve = held.value
        ordinal = ordinal_of(key[1], ve.name)
        if ordinal is None:
            return None
        shown = self._shown(ve)
        reason, why = self._lacks(ve, shown, group.min_ready_s if group is not None else 0.0)
        return Member(
            ordinal=ordinal,
            ve=ve,
            available=not reason,
            state=shown.state,
            host=shown.host,
            reason=reason,
            why=why,
        )

    def _shown(self, ve: VE) -> VEStatus:
        view, refusal = self._deps.mirror.view, self._deps.scheduler.refusals.get(ve.uid)
        placed, status = view.placements.get(ve.uid), view.statuses.get(ve.uid)
        state = HostState.UNKNOWN
        if placed is not None:
            state = self._deps.hosts.host_state(placed.value.host)
        return lifecycle.displayed(
            ve,
            placed.value if placed is not None else None,
            status.value if status is not None else None,
            refusal=refusal,
            host_state=state,
        )

    def _lacks(self, ve: VE, shown: VEStatus, min_ready_s: float) -> tuple[str, str]:
        """One word, and a sentence; both empty when it is available."""
        words = ": ".join(part for part in (shown.reason, shown.message) if part)
        if shown.state is not VEState.RUNNING:
            return shown.reason or shown.state.value, f"{shown.state.value}: {words}".rstrip(": ")
        if shown.reason in _COULD_NOT:
            return shown.reason, words
        if not _carried_out(ve, shown):
            return "NotCarriedOut", f"its host {shown.host} has not carried out the change yet"
        ran_s = self._deps.clock.boot() - self._since(ve, shown)
        if ran_s < min_ready_s:
            return "TooYoung", f"it has not run for {min_ready_s:g} s yet"
        return "", ""

    def _since(self, ve: VE, shown: VEStatus) -> float:
        """Boot time since which it has run without a restart."""
        started, since = self._ran_since.get(ve.uid, (-1.0, 0.0))  # -1: never seen
        if started != shown.started_at:
            before_s = self._began_wall - (shown.started_at or self._began_wall)
            since = self._began - before_s if before_s > 0 else self._deps.clock.boot()
            self._ran_since[ve.uid] = (shown.started_at, since)
        return since


def _carried_out(ve: VE, shown: VEStatus) -> bool:
    return (
        shown.observed_generation >= ve.generation
        and shown.observed_restart_seq >= ve.restart_seq
        and shown.observed_root_seq >= ve.root.seq
    )
