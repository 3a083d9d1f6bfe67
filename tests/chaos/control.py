"""Cases in which parts of the control plane are lost: controllers and members of etcd."""

import signal
import time
from collections.abc import Callable

from chaos import checks, faults
from chaos.checks import Violation
from chaos.faults import Fault
from chaos.rig import IMAGE, SMALL, Rig, signal_all
from chaos.waiting import all_again, seconds_until, untouched, whole
from devrack import daemons
from kit.rackleaders import etcd_led_by, led_by


def leaders_lost(rig: Rig, fault: Callable[[], Fault], rounds: int) -> str:
    """The API is back each time, what it says afterwards is done, and no VE notices."""
    before = rig.oracle.starts()
    times = [_leader_lost(rig, fault()) for _ in range(rounds)]
    untouched(rig, before)
    return f"{rounds} times; a write is done after {max(times):.1f} s at most"


def _leader_lost(rig: Rig, fault: Fault) -> float:
    name = f"case-{time.monotonic_ns()}"
    heal = fault.strike(rig)
    took = seconds_until(lambda: _writes(rig, name), 60, "a write is done")
    heal()
    whole(rig)
    if name not in {ve["name"] for ve in rig.ves() or ()}:
        raise Violation(f"{name} was acknowledged and is not there")
    rig.rack.purge(name)
    return took


def _writes(rig: Rig, name: str) -> bool:
    done = rig.vectl("create", name, "--image", IMAGE, *SMALL, "--stopped", "--detach")
    return done.code in {0, 4}


def controller_killed(rig: Rig) -> str:
    return leaders_lost(rig, faults.leader_killed, rig.turns)


def etcd_lost(rig: Rig) -> str:
    killed = leaders_lost(rig, faults.etcd_leader_killed, rig.turns)
    return f"killed: {killed}; cut: {leaders_lost(rig, faults.etcd_leader_cut, rig.turns)}"


def zombie(rig: Rig) -> str:
    """A leader that stood still for 20 s changes nothing when it wakes."""
    before = rig.oracle.starts()
    leader, epoch = led_by(rig.rack)
    heal = faults.leader_stopped().strike(rig)
    took = seconds_until(lambda: _led_by_other(rig, epoch), 40, "another leads")
    time.sleep(20)
    heal()
    seconds_until(
        lambda: daemons.pid_of(rig.rack.plan, leader.daemon) is None, 30, "the old leader ends"
    )
    whole(rig)
    untouched(rig, before)
    return f"another leads after {took:.1f} s"


def _led_by_other(rig: Rig, epoch: int) -> bool:
    try:
        return led_by(rig.rack)[1] > epoch
    except AssertionError:
        return False


def no_quorum(rig: Rig) -> str:
    """Two of three members down for 20 s: no `stay` VE ends, and what was fenced runs again."""
    before = rig.oracle.starts()
    last = etcd_led_by(rig.rack)
    for each in rig.rack.plan.controllers:
        if each != last:
            rig.rack.kill(each.etcd)
    time.sleep(20)
    if rig.vectl("create", "nobody", "--image", IMAGE, *SMALL, "--detach").code == 0:
        raise Violation("a write was acknowledged without a quorum")
    took = whole(rig)
    checks.stays_untouched(rig, before)
    rig.vectl("delete", "--purge", "--yes", "nobody")
    return f"all as asked {took:.1f} s after they are back"


def no_control_plane(rig: Rig) -> str:
    """All controllers and etcd are gone: crashed `stay` VEs run again, and a host that boots brings its own back."""
    before, own = rig.oracle.starts(), rig.on("h3", "stay")
    crash = rig.on("h1", "stay")[0]
    pid = rig.rack.pids()[crash][0]
    for each in rig.rack.plan.controllers:
        rig.rack.kill(each.daemon)
        rig.rack.kill(each.etcd)
    signal_all([pid], signal.SIGKILL)
    again = seconds_until(lambda: all_again(rig, {crash}, before), 20, "a crashed VE runs again")
    faults.host_lost("h3").strike(rig)()
    boot = seconds_until(lambda: all_again(rig, set(own), before), 40, "a host brings its VEs back")
    took = whole(rig)
    checks.stays_untouched(rig, before, lost=["h3"], crashed=[crash])
    return f"crashed one back in {again:.1f} s, {len(own)} of a booted host in {boot:.1f} s; all {took:.1f} s after"


def etcd_full(rig: Rig) -> str:
    """A member without room on its disk: writes go on by the other two, and all three serve once there is room."""
    return leaders_lost(rig, faults.etcd_full, 1)
