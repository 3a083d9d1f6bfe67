"""`make rack` and `make down`, also when they are cut half way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from devrack.down import down, leftovers
from devrack.plan import REPOSITORY, RackPlan
from devrack.up import up
from kit.rack import Rack, sweep_stale


@pytest.fixture
def plan(host_can_run_ves: None) -> Iterator[RackPlan]:
    sweep_stale()
    plan = RackPlan(name=f"t{os.getpid()}m", uplink=False)
    yield plan
    down(plan)


def devrack(plan: RackPlan, verb: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "devrack", verb, "--isolated", "--name", plan.name],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "deploy/dev")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: "subprocess.Popen[str]") -> str:
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0, out
    assert "Traceback" not in out
    return out


@pytest.mark.timeout(400)
def test_a_rack_comes_up_with_twelve_ves_and_goes_without_a_trace(plan: RackPlan) -> None:
    out = finished(devrack(plan, "up"))
    assert out.count("Running") >= 12
    assert ":7480/metrics" in out
    assert ":7481/metrics" in out
    assert len(Rack(plan).ves()) == 12
    again = finished(devrack(plan, "up"))
    assert "up already" in again
    finished(devrack(plan, "down"))
    assert leftovers(plan) == []
    finished(devrack(plan, "down"))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("after_s", [0.7, 2.0, 4.0])
def test_a_rack_cut_half_way_is_taken_away_wholly(plan: RackPlan, after_s: float) -> None:
    process = devrack(plan, "up")
    time.sleep(after_s)  # the moment of the cut, not a wait for anything
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    finished(devrack(plan, "down"))
    assert leftovers(plan) == []


@pytest.mark.timeout(400)
def test_a_rack_without_its_ves_is_no_whole_rack(plan: RackPlan) -> None:
    up(plan, lambda text: None)
    finished(devrack(plan, "up"))
    assert len(Rack(plan).ves()) == 12


@pytest.mark.timeout(400)
def test_a_rack_comes_up_after_a_crash_half_way(plan: RackPlan) -> None:
    process = devrack(plan, "up")
    time.sleep(3)  # the moment of the cut, not a wait for anything
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    finished(devrack(plan, "up"))
    assert len(Rack(plan).ves()) == 12
