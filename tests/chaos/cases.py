"""The fixed cases, by their number in the list of what systems like this one must survive. Each gives its figure, or raises Violation."""

import resource
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from chaos import checks, control, faults
from chaos.checks import Violation
from chaos.faults import Fault
from chaos.rig import IMAGE, SMALL, Rig
from chaos.waiting import all_again, seconds_until, untouched, whole
from devrack import daemons
from devrack.shell import run

Case = Callable[[Rig], str]
ELSEWHERE_S = 45.0
"""18 s on an idle machine; ours may be busy."""


def agents_killed(rig: Rig) -> str:
    before, worst = rig.oracle.starts(), 0.0
    for host in rig.hosts():
        rig.rack.kill(f"{host}-agent")
        rig.rack.start_agent(host)
        worst = max(worst, checks.converged(rig))
    untouched(rig, before)
    return f"5 agents killed, all as asked after {worst:.1f} s at most"


def monitors_killed(rig: Rig) -> str:
    """LXC ends a VE with its monitor: each is started again, once."""
    before, host = rig.oracle.starts(), rig.hosts()[1]
    names = set(rig.on(host))
    faults.monitors_killed(host).strike(rig)
    took = seconds_until(lambda: all_again(rig, names, before), 20, "they run again")
    checks.converged(rig)
    wanted = {name: count + (name in names) for name, count in before.items()}
    if rig.oracle.starts() != wanted:
        raise Violation(f"started {rig.oracle.starts()}, not {wanted}")
    return f"{len(names)} VEs run again after {took:.1f} s"


def vefence_killed(rig: Rig) -> str:
    before = rig.oracle.starts()
    for host in rig.hosts():
        rig.rack.kill(f"{host}-vefence")
    time.sleep(1)
    whole(rig)
    untouched(rig, before)
    return "5 killed at once, no VE ended"


def busiest(rig: Rig) -> tuple[str, set[str]]:
    """The host with the most VEs that may move, and those."""
    found = {host: set(rig.on(host, "recreate")) for host in rig.hosts()}
    host = max(found, key=lambda name: len(found[name]))
    assert found[host], "no VE may move"
    return host, found[host]


def moved(rig: Rig, fault_of: Callable[[str], Fault]) -> str:
    """A host's VEs that may move are ended, then run elsewhere; the others stay as they are."""
    host, names = busiest(rig)
    before, fault = rig.oracle.starts(), fault_of(host)
    began = time.monotonic()
    heal = fault.strike(rig)
    ended = _ended(rig, names, fault)
    seconds_until(lambda: _started(rig, names, before), ELSEWHERE_S, "they run elsewhere")
    elsewhere = time.monotonic() - began
    heal()
    took = whole(rig)
    checks.stays_untouched(rig, before, lost=[fault.lost] if fault.lost else [])
    return f"{len(names)} ended after {ended:.1f} s, elsewhere after {elsewhere:.1f} s; all as asked {took:.1f} s after"


def _ended(rig: Rig, names: set[str], fault: Fault) -> float:
    if "is not heard" in fault.name or "hears nothing" in fault.name:
        return seconds_until(lambda: True, 1, "")
    return seconds_until(lambda: not rig.oracle.held() & names, 15, "fenced VEs are ended")


def _started(rig: Rig, names: set[str], before: dict[str, int]) -> bool:
    starts = rig.oracle.starts()
    return all(starts[name] > before[name] for name in names) and names <= rig.oracle.held()


def agent_stopped(rig: Rig) -> str:
    return moved(rig, lambda host: faults.stopped(f"{host}-agent"))


def host_cut(rig: Rig) -> str:
    return moved(rig, faults.host_cut)


def host_deaf(rig: Rig) -> str:
    return moved(rig, faults.host_deaf)


def host_mute(rig: Rig) -> str:
    return moved(rig, faults.host_mute)


def host_lost(rig: Rig) -> str:
    return moved(rig, faults.host_lost)


def host_frozen(rig: Rig) -> str:
    """Copies that stood still hold their locks, so the oracle sees two; what counts is how long they go on after the thaw."""
    (host, names), before = busiest(rig), rig.oracle.starts()
    rig.frozen_copies |= names
    old = {name: pid for name, (pid, _) in rig.rack.pids().items() if name in names}
    heal = faults.host_frozen(host).strike(rig)
    seconds_until(lambda: all_again(rig, names, before), ELSEWHERE_S, "they run elsewhere")
    heal()
    overlap = seconds_until(lambda: not _alive(old.values()), 10, "old copies are ended")
    whole(rig)
    checks.stays_untouched(rig, before)
    return f"{len(names)} moved; old copies gone {overlap * 1000:.0f} ms after the thaw"


def _alive(pids: Iterable[int]) -> bool:
    """One that only waits to be buried does not live."""
    return any(_state(pid) not in {"", "Z", "X"} for pid in pids)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def loss(rig: Rig) -> str:
    """20 % loss on each host for 30 s fences nobody."""
    before = rig.oracle.starts()
    heals = [faults.host_lossy(host, 20).strike(rig) for host in rig.hosts()]
    time.sleep(30)
    for heal in heals:
        heal()
    whole(rig)
    untouched(rig, before)
    return "20 % on 5 hosts for 30 s: nothing was fenced"


def storm(rig: Rig) -> str:
    """Three of five hosts are cut at once: nothing is moved until an operator says so."""
    before, hosts = rig.oracle.starts(), rig.hosts()[:3]
    names = {name for host in hosts for name in rig.on(host, "recreate")}
    heals = [faults.host_cut(host).strike(rig) for host in hosts]
    time.sleep(25)
    starts = rig.oracle.starts()
    if ran := [name for name in names if starts[name] != before[name]]:
        raise Violation(f"moved in a storm: {ran}")
    if not checks.stopped_moves(rig):
        raise Violation("moves are not stopped")
    for heal in heals:
        heal()
    took = whole(rig)
    checks.stays_untouched(rig, before)
    return f"{len(names)} were not moved; all as asked {took:.1f} s after"


def flapping(rig: Rig) -> str:
    """5 s up and 15 s down, four times: no VE starts more often than twice elsewhere."""
    (host, names), before = busiest(rig), rig.oracle.starts()
    for _ in range(4):
        heal = faults.host_cut(host).strike(rig)
        time.sleep(15)
        heal()
        time.sleep(5)
    whole(rig)
    worst = max((rig.oracle.starts()[name] - before[name] for name in names), default=0)
    checks.stays_untouched(rig, before)
    return f"{len(names)} VEs, each started {worst} times at most"


def all_lost(rig: Rig) -> str:
    """All hosts boot at once."""
    heals = [faults.host_lost(host).strike(rig) for host in rig.hosts()]
    for heal in heals:
        heal()
    took = whole(rig)
    return f"{len(rig.oracle.held())} VEs run {took:.1f} s after"


def few_files(rig: Rig) -> str:
    """An agent that may open no more files than it has, for 10 s."""
    before = rig.oracle.starts()
    pid = daemons.pid_of(rig.rack.plan, "h2-agent")
    assert pid is not None
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, usual[1]))
    time.sleep(6)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
    whole(rig)
    checks.stays_untouched(rig, before)
    return "64 files for 6 s: no VE of policy stay ended"


def pools_full(rig: Rig) -> str:
    """No room on a host's pool for 10 s: no VE ends, and creates go on once there is room."""
    before = rig.oracle.starts()
    heal = faults.pool_full("h1").strike(rig)
    name = f"full-{time.monotonic_ns()}"
    rig.vectl("create", name, "--image", IMAGE, *SMALL, "--host", "h1", "--detach")
    time.sleep(10)
    heal()
    took = whole(rig)
    untouched(rig, before)
    rig.rack.purge(name)
    return f"no VE ended; what was asked meanwhile runs {took:.1f} s after"


def old_ledger(rig: Rig) -> str:
    """An agent gets its files of before two deletes back: what is deleted stays so, the others run on."""
    host, state = "h5", rig.rack.plan.host_state(rig.rack.host("h5"))
    names = [f"old-{time.monotonic_ns()}-{i}" for i in range(2)]
    for name in names:
        rig.rack.vectl("create", name, "--image", IMAGE, *SMALL, "--host", host)
    before = rig.oracle.starts()
    with _without_agent(rig, host):
        run(["cp", "-a", f"{state}/agent", f"{state}/agent-kept"])
    rig.rack.purge(*names)
    with _without_agent(rig, host):
        run(["rm", "-r", f"{state}/agent"])
        run(["mv", f"{state}/agent-kept", f"{state}/agent"])
    took = whole(rig)
    untouched(rig, before)
    return f"two deleted VEs stayed so; all as asked after {took:.1f} s"


@contextmanager
def _without_agent(rig: Rig, host: str) -> Iterator[None]:
    rig.rack.kill(f"{host}-agent")
    try:
        yield
    finally:
        rig.rack.start_agent(host)


def last_room(rig: Rig) -> str:
    """Many creates at once for the last room of a host: no more are placed than fit."""
    asked = ("--image", IMAGE, "--memory", "3G", "--cpu", "0.05", "--disk", "48M")
    names = [f"room-{time.monotonic_ns()}-{i}" for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        list(
            pool.map(
                lambda name: rig.vectl("create", name, *asked, "--host", "h1", "--detach"), names
            )
        )
    time.sleep(3)
    placed = [name for name in rig.on("h1") if name in names]
    rig.rack.purge(*names)
    if len(placed) != 2:
        raise Violation(f"{len(placed)} of 3 GiB are on a host of 8 GiB: {placed}")
    return "2 of 6 were placed"


CASES: dict[str, tuple[str, Case]] = {
    "C1": ("each agent is killed", agents_killed),
    "C2": ("LXC's monitors are killed", monitors_killed),
    "C3": ("every vefence is killed", vefence_killed),
    "C4": ("an agent stands still, its vefence lives", agent_stopped),
    "C6": ("a host is cut off", host_cut),
    "C7a": ("a host hears nothing", host_deaf),
    "C7b": ("a host is not heard", host_mute),
    "C9": ("the leading controller is killed", control.controller_killed),
    "C10": ("the leading controller stands still, then wakes", control.zombie),
    "C11": ("etcd's leader is killed, then cut off", control.etcd_lost),
    "C12": ("two of three etcd members are down", control.no_quorum),
    "C13": ("the whole control plane is gone", control.no_control_plane),
    "C17": ("an etcd member's disk is full", control.etcd_full),
    "C19": ("a host's pool is full", pools_full),
    "C27": ("an agent's files are old ones", old_ledger),
    "C20": ("an agent runs out of files", few_files),
    "C22": ("packets are lost", loss),
    "C23": ("three of five hosts are cut at once", storm),
    "C35": ("creates race for the last room", last_room),
    "C38": ("a host loses power", host_lost),
    "C25": ("all hosts boot at once", all_lost),
    "C5": ("a whole host stands still, then wakes", host_frozen),
    "C24": ("a host flaps", flapping),
}
"""In the order in which they are played: what makes the brakes count comes last."""
CI = ("C1", "C2", "C3", "C4", "C9", "C11", "C23")
"""Those that each `make test` plays."""
