"""A host with twenty VEs of policy recreate is lost without a word: how long until all of them run elsewhere."""

import statistics
import time

from bench.sides import SMALL
from kit.rack import Rack, until

VES = 20
LOST = "h1"


def bench_hostloss(rack: Rack, runs: int) -> None:
    """Always the same host is lost, and the VEs are new each time: what was moved lately waits longer."""
    took = []
    for number in range(runs):
        _fill(rack, f"r{number}")
        took.append(_lose(rack))
        rack.run_in(LOST, "ip", "link", "set", "eth0", "up")
        rack.until_ready()
        rack.purge_all()
    shown = ", ".join(f"{seconds:.1f}" for seconds in took)
    print(f"from the loss of a host until its {VES} VEs run elsewhere, s: {shown}")
    print(f"  p50 {statistics.median(took):.1f}, worst {max(took):.1f} of {runs}")


def _fill(rack: Rack, name: str) -> None:
    others = [host.name for host in rack.plan.hosts if host.name != LOST]
    for host in others:
        rack.vectl("host", "cordon", host)
    fenced = ("--on-host-loss", "recreate")
    rack.vectl("create", name, "--count", str(VES), "--image", "busybox", *SMALL, *fenced)
    for host in others:
        rack.vectl("host", "uncordon", host)


def _lose(rack: Rack) -> float:
    """By its link: its agent and its vefence live, and do what they shall."""
    began = time.monotonic()
    rack.run_in(LOST, "ip", "link", "set", "eth0", "down")
    until(lambda: _all_elsewhere(rack), within_s=60, what="all run elsewhere")
    return time.monotonic() - began


def _all_elsewhere(rack: Rack) -> bool:
    return all(
        ve["status"]["state"] == "Running" and ve["placement"]["host"] != LOST for ve in rack.ves()
    )
