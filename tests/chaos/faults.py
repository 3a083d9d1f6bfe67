"""What can be done to a rig, each with its undo. A fault says what it did; healing everything is `Rig.mend`."""

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

from chaos.rig import NARROW, TABLE, Rig, signal_all
from devrack import daemons
from devrack.shell import run
from kit.rackleaders import cut_off, etcd_led_by, led_by

Undo = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """`strike` does it and gives the undo, which may be called long after and must not fail."""

    name: str
    strike: Callable[[Rig], Undo]
    lost: str = ""
    """The host whose VEs all end by it."""
    crashed: str = ""
    """The VE that ends by it."""
    control: bool = False
    """Only controllers and etcd members suffer."""


def killed(daemon: str, *, control: bool = False) -> Fault:
    """It stays dead until the undo, or until all is mended."""

    def strike(rig: Rig) -> Undo:
        rig.rack.kill(daemon)
        return rig.mend

    return Fault(f"SIGKILL {daemon}", strike, control=control)


def stopped(daemon: str, *, control: bool = False) -> Fault:
    def strike(rig: Rig) -> Undo:
        return _stop(rig, daemon)

    return Fault(f"SIGSTOP {daemon}", strike, control=control)


def leader_killed() -> Fault:
    def strike(rig: Rig) -> Undo:
        rig.rack.kill(led_by(rig.rack)[0].daemon)
        return rig.mend

    return Fault("SIGKILL of the leading controller", strike, control=True)


def leader_stopped() -> Fault:
    def strike(rig: Rig) -> Undo:
        return _stop(rig, led_by(rig.rack)[0].daemon)

    return Fault("SIGSTOP of the leading controller", strike, control=True)


def etcd_leader_killed() -> Fault:
    def strike(rig: Rig) -> Undo:
        rig.rack.kill(etcd_led_by(rig.rack).etcd)
        return rig.mend

    return Fault("SIGKILL of etcd's leader", strike, control=True)


def etcd_leader_cut() -> Fault:
    def strike(rig: Rig) -> Undo:
        beside = etcd_led_by(rig.rack)
        cut_off(rig.rack, beside)
        return lambda: _link(rig, beside.name, "up")

    return Fault("the machine of etcd's leader is cut off", strike, control=True)


def controller_cut(number: int) -> Fault:
    def strike(rig: Rig) -> Undo:
        cut_off(rig.rack, rig.rack.plan.controllers[number - 1])
        return lambda: _link(rig, f"c{number}", "up")

    return Fault(f"c{number} is cut off", strike, control=True)


def host_cut(host: str) -> Fault:
    def strike(rig: Rig) -> Undo:
        _link(rig, host, "down")
        return lambda: _link(rig, host, "up")

    return Fault(f"{host} is cut off", strike)


def host_deaf(host: str) -> Fault:
    return _filtered(f"{host} hears nothing", host, "prerouting", "iif eth0 drop")


def host_mute(host: str) -> Fault:
    return _filtered(f"{host} is not heard", host, "postrouting", "oif eth0 drop")


def host_lossy(host: str, percent: int) -> Fault:
    """Of what comes in; TCP feels it both ways."""
    rule = f"iif eth0 numgen random mod 100 < {percent} drop"
    return _filtered(f"{host} loses {percent} %", host, "prerouting", rule)


def host_slow(host: str, kbytes: int) -> Fault:
    rule = f"iif eth0 limit rate over {kbytes} kbytes/second drop"
    return _filtered(f"{host} hears {kbytes} kB/s", host, "prerouting", rule)


def host_lost(host: str) -> Fault:
    """As power does it: agent, vefence, monitors and VEs end at once. Coming back is a boot."""

    def strike(rig: Rig) -> Undo:
        for name in (f"{host}-vefence", f"{host}-agent"):
            rig.rack.kill(name)
        for _ in range(3):
            signal_all(rig.ve_pids(host), signal.SIGKILL)
        return lambda: rig.start_host(host)

    return Fault(f"{host} loses power", strike, lost=host)


def host_frozen(host: str) -> Fault:
    """Agent, vefence, monitors and VEs stand still."""

    def strike(rig: Rig) -> Undo:
        pids = rig.daemon_pids(host) | rig.ve_pids(host)
        signal_all(pids, signal.SIGSTOP)
        return lambda: signal_all(pids, signal.SIGCONT)

    return Fault(f"{host} stands still", strike)


def monitors_killed(host: str) -> Fault:
    """LXC ends a VE with its monitor."""

    def strike(rig: Rig) -> Undo:
        signal_all(rig.monitors(host), signal.SIGKILL)
        return lambda: None

    return Fault(f"SIGKILL of LXC's monitors on {host}", strike, lost=host)


def crashed(name: str) -> Fault:
    def strike(rig: Rig) -> Undo:
        pid = rig.rack.pids().get(name)
        signal_all([pid[0]] if pid else [], signal.SIGKILL)
        return lambda: None

    return Fault(f"SIGKILL of {name}'s init", strike, crashed=name)


def pool_full(host: str) -> Fault:
    """Nothing of it is written: the space is only taken."""

    def strike(rig: Rig) -> Undo:
        filler = f"{rig.rack.plan.host_state(rig.rack.host(host))}/pool/chaos-filler"
        script = (
            f"for s in 8G 4G 2G 1G 512M 256M 128M 64M; do fallocate -l $s {filler}-$s; done; true"
        )
        rig.rack.run_in_host(host, "sh", "-c", f"({script}) 2>/dev/null")
        return lambda: _remove(rig, host, filler)

    return Fault(f"{host}'s pool is full", strike)


def etcd_full() -> Fault:
    """Its member ends when it can't write; it is started again when there is room."""

    def strike(rig: Rig) -> Undo:
        filler = f"{rig.rack.plan.state / NARROW}/chaos-filler"
        sizes = "256M 128M 64M 32M 16M 8M 4M 2M 1M 256K 64K 16K 4K 4K 4K"
        script = f"for s in {sizes}; do fallocate -l $s {filler}-$s; done 2>/dev/null; true"
        run(["sh", "-c", script])
        return lambda: _emptied(rig, filler)

    return Fault(f"{NARROW}'s disk is full", strike, control=True)


def _emptied(rig: Rig, filler: str) -> None:
    run(["sh", "-c", f"rm -f {filler}-*"])
    rig.mend()


def random_fault(dice: random.Random, hosts: list[str], ves: list[str]) -> tuple[Fault, float]:
    """A fault, and for how many seconds."""
    host, controller, member = dice.choice(hosts), dice.randint(1, 3), dice.randint(1, 3)
    daemon = "controller" if controller == 1 else f"controller-{controller}"
    long = dice.choice([2.0, 5.0, 14.0, 18.0])
    makers: list[tuple[Fault, float]] = [
        (leader_killed(), 3.0),
        (leader_stopped(), long),
        (killed(daemon, control=True), long),
        (etcd_leader_killed(), 4.0),
        (etcd_leader_cut(), long),
        (killed(f"etcd-{member}", control=True), long),
        (stopped(f"etcd-{member}", control=True), long),
        (controller_cut(controller), long),
        (killed(f"{host}-agent"), long),
        (stopped(f"{host}-agent"), long),
        (killed(f"{host}-vefence"), 3.0),
        (host_cut(host), long),
        (host_deaf(host), long),
        (host_mute(host), long),
        (host_lossy(host, dice.choice([5, 20, 40])), long),
        (host_slow(host, dice.choice([8, 64])), long),
        (host_lost(host), long),
        (host_frozen(host), 5.0),
        (monitors_killed(host), 1.0),
        (crashed(dice.choice(ves)), 1.0),
        (pool_full(host), 6.0),
        (etcd_full(), 8.0),
    ]
    return dice.choice(makers)


def _stop(rig: Rig, daemon: str) -> Undo:
    pid = daemons.pid_of(rig.rack.plan, daemon)
    signal_all([pid] if pid else [], signal.SIGSTOP)
    return lambda: signal_all([pid] if pid else [], signal.SIGCONT)


def _link(rig: Rig, name: str, state: str) -> None:
    rig.rack.run_in("switch", "ip", "link", "set", name, state)


def _remove(rig: Rig, host: str, filler: str) -> None:
    rig.rack.run_in_host(host, "sh", "-c", f"rm -f {filler}-*")


def _filtered(name: str, host: str, hook: str, rule: str) -> Fault:
    def strike(rig: Rig) -> Undo:
        chain = f"chain c {{ type filter hook {hook} priority -400; {rule}; }};"
        rig.rack.run_in(host, "nft", f"table inet {TABLE} {{ {chain} }}")
        return lambda: _unfilter(rig, host)

    return Fault(name, strike)


def _unfilter(rig: Rig, host: str) -> None:
    rig.rack.run_in(host, "nft", "delete", "table", "inet", TABLE, check=False)
