"""What must hold after each round, and how long it may take until it does."""

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from chaos.rig import Rig
from devrack.up import ready_hosts
from kit.rack import until

CONVERGED_S = 150.0
"""From the end of the last fault until all is as asked. Moves of a VE that moved often wait 60 s and more."""
RESUMED_S = 5.0
"""So long after a storm an operator says that moves go on."""


class Violation(AssertionError):
    """A promise that was broken, told in a line or a few."""


@dataclass(slots=True)
class Ledger:
    """What the operators were told: what exists, what is gone, and what may be either."""

    there: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


def never_twice(rig: Rig) -> None:
    broken = [line for line in rig.oracle.twice() if line.split(":")[0] not in rig.frozen_copies]
    if broken:
        raise Violation("ran twice at once:\n" + "\n".join(broken))


def stays_untouched(
    rig: Rig,
    before: Mapping[str, int],
    *,
    lost: Collection[str] = (),
    crashed: Collection[str] = (),
) -> None:
    """VEs of policy stay were not started again, but those that a fault itself ended."""
    excused = {name for host in lost for name in rig.on(host, "stay")} | set(crashed)
    starts = rig.oracle.starts()
    names = [name for name in before if name.startswith("stay-") and name not in excused]
    again = {name: rig.oracle.lines(name) for name in names if starts[name] != before[name]}
    if again:
        raise Violation(f"stopped by a fault that is none of theirs: {again}")


def nothing_lost(rig: Rig, ledger: Ledger, names: Collection[str]) -> None:
    """What was acknowledged is so."""
    lost, back = ledger.there - set(names), ledger.gone & set(names)
    if lost or back:
        raise Violation(f"acknowledged, but not there: {sorted(lost)}; deleted, but there: {back}")


def amiss(rig: Rig) -> str:
    """What is not as asked yet; empty when all is."""
    ves = rig.ves()
    if ves is None:
        return "the API does not answer"
    if ready_hosts(rig.rack.plan) != len(rig.hosts()):
        return "not all hosts are Ready"
    wanted = {ve["name"] for ve in ves if ve["spec"]["run"] == "running"}
    states = {ve["name"]: ve.get("status", {}).get("state", "") for ve in ves}
    wrong = {
        name: state for name, state in states.items() if (state == "Running") != (name in wanted)
    }
    if wrong:
        return f"not as asked: {wrong}"
    held = rig.oracle.held()
    if mute := [name for name in held if not rig.oracle.lines(name)]:
        return f"have the lock, but did not speak yet: {mute}"
    if held != wanted:
        return f"live, but should not: {sorted(held - wanted)}; dead, but seen Running: {sorted(wanted - held)}"
    return ""


def converged(rig: Rig, within_s: float = CONVERGED_S) -> float:
    """Seconds until all is as asked; what fell over meanwhile is started again, as an operator's init would."""
    began = time.monotonic()
    while reason := amiss(rig):
        never_twice(rig)
        waited = time.monotonic() - began
        if waited > within_s:
            raise Violation(f"not as asked {within_s:g} s after the last fault: {reason}")
        rig.mend()
        if waited > RESUMED_S:
            resume(rig)
        time.sleep(0.5)
    took = time.monotonic() - began
    never_twice(rig)
    resume(rig)
    return took


def stopped_moves(rig: Rig) -> str:
    """Why no VE is moved, as the storm brake says it."""
    told = rig.vectl("cluster", "status", "-o", "json")
    return str(json.loads(told.out).get("moves_stopped", "")) if told.code == 0 else ""


def resume(rig: Rig) -> None:
    """What an operator does after a storm."""
    if stopped_moves(rig):
        rig.say("moves were stopped; resumed")
        rig.vectl("host", "resume-moves", "--yes")


def nothing_left(rig: Rig) -> None:
    """All VEs are deleted for good: no process, link, or orphan of any is on a host."""
    _purged(rig)
    for host in rig.hosts():
        processes = rig.ve_pids(host)
        links = json.loads(rig.rack.run_in(host, "ip", "-j", "link"))
        ends = [
            link["ifname"] for link in links if link.get("linkinfo", {}).get("info_kind") == "veth"
        ]
        if processes or len(ends) > 1:
            raise Violation(f"left on {host}: processes {processes}, links {ends}")
    orphans = rig.rack.vectl("orphan", "list", "-o", "json").json()["items"]
    if rig.oracle.held() or orphans:
        raise Violation(f"left: {rig.oracle.held()}, orphans {orphans}")


def _purged(rig: Rig) -> None:
    """What a moved VE left behind is removed by its own hosts, maybe between a list and the purge."""
    if names := [ve["name"] for ve in rig.rack.ves()]:
        rig.rack.purge(*names)
    for ve in rig.rack.kept():
        rig.vectl("purge", "--yes", ve["uid"])
    until(lambda: not rig.rack.kept(), within_s=60, what="deleted VEs are removed")
