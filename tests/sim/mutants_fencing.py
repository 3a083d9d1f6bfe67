"""Seeded bugs of fencing and of moving VEs from lost hosts. They join those of `sim.mutants`."""

from collections.abc import Iterator
from typing import Any

import msgspec

from sim.mutants import Swap, mutant
from veagent.fake.fence import FakeVefence
from veagent.fence import desk, hold
from veagent.fence.desk import FenceDesk
from veagent.fence.teller import Teller
from vecontroller import hostset
from vecontroller.failover import judge, moves
from vecontroller.failover.judge import Waits, Why
from vecontroller.liveness import Liveness

# Times.


@mutant
def a_host_fences_itself_later_than_m() -> list[Swap]:
    real = FenceDesk.answered

    def answered(self: Any, sent: float) -> None:
        if self._timing is not None:
            real(self, sent + self._timing.fence_after_s)

    return [(FenceDesk, "answered", answered)]


@mutant
def the_deadline_counts_from_the_answer() -> list[Swap]:
    real = FenceDesk.answered
    return [(FenceDesk, "answered", lambda self, _sent: real(self, self._clock.boot()))]


@mutant
def a_host_is_lost_after_f() -> list[Swap]:
    real = moves._timing

    def timing(view: Any) -> Any:
        found = real(view)
        return msgspec.structs.replace(found, move_after_s=found.fence_after_s)

    def of_silence(view: Any, host: Any, known: Any) -> Waits | None:
        left = real(view).fence_after_s - known.silent_s(host)
        return Waits(Why.SILENCE, "silent for too short", seconds=left) if left > 0 else None

    return [(moves, "_timing", timing), (judge, "_of_silence", of_silence)]


@mutant
def a_new_leader_takes_who_has_not_called_yet_for_lost() -> list[Swap]:
    def silent_for(self: Liveness, host: Any) -> float:
        known = self._hosts.get(host)
        return 1e6 if known is None else self._clock.boot() - known.at

    return [(Liveness, "silent_for", silent_for)]


@mutant
def a_lease_that_ran_out_goes_on_when_heartbeats_are_answered() -> list[Swap]:
    def answered(found: Any, until: float, now: float) -> Any:
        promise = max(found.promise, until)
        return msgspec.structs.replace(found, promise=promise, deadline=promise, open=now < promise)

    return [(hold, "answered", answered), (hold, "checked", lambda found, _now: found)]


@mutant
def a_lost_host_is_answered_while_its_ves_are_moved() -> list[Swap]:
    async def answerable(_self: Liveness, _host: Any) -> None:
        """At once."""

    return [(Liveness, "answerable", answerable)]


# What was confirmed.


@mutant
def a_ve_is_moved_that_was_never_armed() -> list[Swap]:
    return [(judge, "_of_arming", lambda *_: None)]


@mutant
def the_generation_of_the_policy_is_ignored() -> list[Swap]:
    def of_arming(_ve: Any, _placement: Any, status: Any) -> Waits | None:
        if status is None or not status.value.armed_generation:
            return Waits(Why.NOT_ARMED, "not armed")
        return None

    return [(judge, "_of_arming", of_arming)]


@mutant
def whether_vefence_lives_is_not_asked() -> list[Swap]:
    real = judge._of_host

    def of_host(host: Any, fence: Any, cluster: Any) -> Waits | None:
        return real(host, msgspec.structs.replace(fence, live=True), cluster)

    return [(judge, "_of_host", of_host)]


@mutant
def arming_is_not_counted() -> list[Swap]:
    real = judge._of_host

    def of_host(host: Any, fence: Any, cluster: Any) -> Waits | None:
        return real(host, msgspec.structs.replace(fence, arming=cluster.arming), cluster)

    return [(judge, "_of_host", of_host)]


@mutant
def a_disarmed_cluster_moves() -> list[Swap]:
    return [(judge, "_of_brake", lambda _cluster: None)]


@mutant
def a_ve_that_stays_is_moved() -> list[Swap]:
    real = judge.of_wish

    def of_wish(ve: Any) -> Waits | None:
        found = real(ve)
        return None if found is not None and found.why is Why.POLICY_STAY else found

    return [(judge, "of_wish", of_wish), (judge, "_of_arming", lambda *_: None)]


@mutant
def half_of_the_hosts_may_be_lost_at_once() -> list[Swap]:
    return [(moves, "storm", lambda _known, _silent: "")]


# On the host.


@mutant
def vefence_begins_anew_without_its_list() -> list[Swap]:
    real = FakeVefence.restart

    def restart(self: FakeVefence) -> None:
        real(self)
        self.notes = (self.notes[0], None)

    return [(FakeVefence, "restart", restart)]


@mutant
def vefence_does_not_kill_twice() -> list[Swap]:
    """What comes about after the deadline lives on."""
    from veagent.fake import fence  # noqa: PLC0415
    from vefence import core  # noqa: PLC0415

    real = core.decide

    def decide(now: float, told: Any, alive: Any, *, since: float, reboots: bool) -> Any:
        once = alive if now - since < 0.1 else ()
        return real(now, told, once, since=since, reboots=reboots)

    return [(fence, "decide", decide)]


@mutant
def armed_is_said_before_vefence_has_it() -> list[Swap]:
    return [
        (Teller, "confirmed", lambda self, uid: uid in self.targets),
        (Teller, "live", property(lambda _self: True)),
    ]


@mutant
def a_fenced_ve_starts_without_a_lease() -> list[Swap]:
    return [(FenceDesk, "_refusal", lambda _self, _uid: None)]


@mutant
def the_list_forgets_who_is_not_wanted_any_more() -> list[Swap]:
    return [(FenceDesk, "_lingers", lambda _self, _uid: False)]


@mutant
def a_ve_of_policy_stay_is_listed_too() -> list[Swap]:
    return [(desk, "is_fenced", lambda _entry: True)]


@mutant
def a_host_that_comes_back_is_not_told_what_it_lost() -> list[Swap]:
    def left(_view: Any, _host: Any) -> Iterator[Any]:
        yield from ()

    return [(hostset, "_left", left)]
