"""Nothing stops because a part of us did: each part killed and started again, with twelve VEs running."""

import os
import signal
from collections.abc import Iterator

import pytest

from kit.rack import Rack, until


@pytest.fixture(scope="module")
def twelve(rack: Rack) -> Iterator[list[str]]:
    names = [f"twelve-{i}" for i in range(12)]
    rack.vectl(
        "create",
        "twelve",
        "--count",
        "12",
        "--image",
        "busybox",
        "--memory",
        "48M",
        "--cpu",
        "0.25",
    )
    yield names
    rack.vectl("delete", "--purge", "--yes", *names)


def all_running(rack: Rack, names: list[str]) -> bool:
    states = {ve["name"]: ve["status"]["state"] for ve in rack.ves()}
    return all(states.get(name) == "Running" for name in names)


def test_a_killed_agent_adopts_its_ves_and_does_what_was_asked_meanwhile(
    rack: Rack, twelve: list[str]
) -> None:
    before = rack.pids()
    rack.kill("h1-agent")
    rack.vectl(
        "create", "meanwhile", "--image", "busybox", "--host", "h1", "--memory", "48M", "--detach"
    )
    rack.start_agent("h1")
    until(lambda: all_running(rack, twelve), within_s=10, what="h1's VEs are Running again")
    rack.vectl("wait", "meanwhile", "--for", "state=Running", "--timeout", "20s")
    after = rack.pids()
    assert {name: after[name] for name in twelve} == {name: before[name] for name in twelve}
    rack.vectl("delete", "--purge", "--yes", "meanwhile")


def test_a_killed_controller_comes_back_to_the_same(rack: Rack, twelve: list[str]) -> None:
    before = rack.pids()
    rack.kill("controller")
    victim = before["twelve-3"][0]
    os.kill(victim, signal.SIGKILL)  # restarted by its agent alone
    rack.start_controller()
    until(
        lambda: rack.vectl("list", code=None).code == 0, within_s=20, what="the controller answers"
    )
    until(lambda: all_running(rack, twelve), within_s=20, what="all are Running")
    after = rack.pids()
    unchanged = set(twelve) - {"twelve-3"}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}
    assert after["twelve-3"][0] != victim


def test_a_killed_etcd_is_restarted_and_nothing_is_lost(rack: Rack, twelve: list[str]) -> None:
    before = rack.pids()
    (etcd,) = rack.processes("etcd", "--data-dir")
    os.kill(etcd, signal.SIGKILL)
    rack.vectl("create", "after-etcd", "--image", "busybox", "--memory", "48M", "--timeout", "30s")
    after = rack.pids()
    assert {name: after[name] for name in twelve} == {name: before[name] for name in twelve}
    rack.vectl("delete", "--purge", "--yes", "after-etcd")


def test_a_killed_lxcfs_is_bound_again_in_running_ves(rack: Rack, twelve: list[str]) -> None:
    before = rack.pids()
    rack.kill("lxcfs")
    rack.start_lxcfs()

    def show_their_limits() -> bool:
        runs = [
            rack.vectl("exec", name, "--", "cat", "/proc/meminfo", code=None) for name in twelve
        ]
        return all("49152 kB" in run.out for run in runs)

    until(show_their_limits, within_s=20, what="/proc/meminfo shows every VE's limit again")
    assert rack.pids() == before
