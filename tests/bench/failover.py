"""How long the API is away: three controllers on an etcd cluster of three, of which a leader is lost."""

import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.sides import SMALL
from devrack import daemons
from kit.rack import Rack, until
from kit.rackleaders import cut_off, etcd_led_by, led_by, mend, send

Lose = Callable[[Rack], float]
"""Makes the loss; gives the time of the monotonic clock just before it."""
WHAT = ("a read is answered", "a write is done", "all hosts are Ready")


def bench_failover(rack: Rack, runs: int) -> None:
    """Each kind of loss `runs` times; what was lost is back before the next."""
    rack.vectl("create", "base", "--count", "12", "--image", "busybox", *SMALL)
    before = rack.pids()
    kinds: dict[str, Lose] = {
        "the leading controller, killed": _controller,
        "etcd's leader, killed": _etcd,
        "both, killed together": _both,
        "a machine with both, cut off": _machine,
        "the leading controller, standing still": _frozen,
    }
    print(f"from the loss until the API is back, p50 (worst) of {runs}, s:")
    with _probe(rack) as probe:
        for name, lose in kinds.items():
            rounds = [_watched(rack, probe, lose) for _ in range(runs)]
            print(f"  {name}")
            for what, values in zip(WHAT, zip(*rounds, strict=True), strict=True):
                print(f"    {what:22} {statistics.median(values):5.2f} ({max(values):.2f})")
    unchanged = "no VE was restarted" if rack.pids() == before else "VES WERE RESTARTED"
    print(f"  {unchanged}")


def _watched(rack: Rack, probe: "subprocess.Popen[str]", lose: Lose) -> list[float]:
    """A round; when the API does not come back, what the controllers logged."""
    try:
        return _round(rack, probe, lose)
    except AssertionError:
        for each in rack.plan.controllers:
            print(f"{each.daemon}: {daemons.pid_of(rack.plan, each.daemon)}", file=sys.stderr)
            print(rack.log(each.daemon)[-4000:], file=sys.stderr)
        raise


def _round(rack: Rack, probe: "subprocess.Popen[str]", lose: Lose) -> list[float]:
    assert probe.stdin is not None
    assert probe.stdout is not None
    began = lose(rack)
    probe.stdin.write(f"{began}\n")
    probe.stdin.flush()
    found = [float(word) for word in probe.stdout.readline().split()]
    mend(rack)
    rack.until_ready()
    time.sleep(1.0)  # standbys have seen a beat, and one that woke up as deposed has ended
    mend(rack)
    return found


@contextmanager
def _probe(rack: Rack) -> Iterator["subprocess.Popen[str]"]:
    argv = daemons.inside(rack.plan.switch, [sys.executable, "-m", "bench.probe"])
    env = {**rack.env, "PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(
        argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as probe:
        try:
            yield probe
        finally:
            probe.kill()


def _controller(rack: Rack) -> float:
    leader, _ = led_by(rack)
    began = time.monotonic()
    send(rack, leader.daemon, signal.SIGKILL)
    return began


def _etcd(rack: Rack) -> float:
    member = etcd_led_by(rack).etcd
    began = time.monotonic()
    send(rack, member, signal.SIGKILL)
    return began


def _both(rack: Rack) -> float:
    leader, member = led_by(rack)[0].daemon, etcd_led_by(rack).etcd
    began = time.monotonic()
    send(rack, leader, signal.SIGKILL)
    send(rack, member, signal.SIGKILL)
    return began


def _machine(rack: Rack) -> float:
    """The controller is made to lead beside etcd's leader first: others are ended one after the other."""
    beside = etcd_led_by(rack)
    while led_by(rack)[0] != beside:
        daemons.end(rack.plan, led_by(rack)[0].daemon)
        until(lambda: rack.vectl("version", code=None).code == 0, within_s=30, what="a leader")
        mend(rack)
    rack.until_ready()
    time.sleep(1.0)
    began = time.monotonic()
    cut_off(rack, beside)
    return began


def _frozen(rack: Rack) -> float:
    leader, _ = led_by(rack)
    began = time.monotonic()
    send(rack, leader.daemon, signal.SIGSTOP)
    return began
