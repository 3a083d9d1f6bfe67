"""Fencing on real VEs: what may not outlive the lease is dead in time, and nothing else is touched.

Bounds are judged by the boot clock: of vefence's notes and of the processes' ends, as seen from here.
"""

import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devrack import daemons
from kit.rack import Rack, running_rack, until
from vefence import notes
from vefence.notes import Beat, KillList, Lease

HOST = "h1"
SLACK_S = 1.0
"""Two looks of vefence, and how late this machine may be."""


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class FenceRack:
    """One rack for all of it; each test leaves h1 as it was."""

    def __init__(self, rack: Rack) -> None:
        self.rack = rack
        self.folder = rack.plan.fence(rack.host(HOST))

    def make(self, name: str, policy: str, more: str = "") -> int:
        spec = "image: busybox, cpu: 0.2, memory: 48M, disk: 256M, pids: 100"
        text = f"kind: VE\nmetadata: {{name: {name}}}\nspec: {{{spec}, host: {HOST}, on_host_loss: {policy}{more}}}\n"
        self.rack.vectl("apply", "-f", "-", text_in=text)
        return self.pid(name)

    def pid(self, name: str) -> int:
        return int(self.rack.ve(name)["status"].get("init_pid", 0))

    def reason(self, name: str) -> str:
        return str(self.rack.ve(name)["status"].get("reason", ""))

    def note(self, name: str, kind: type) -> Lease | KillList | Beat:
        found = notes.read(self.folder / name, kind)
        assert found is not None, f"no note {name}"
        return found

    def daemon(self, name: str) -> int:
        pid = daemons.pid_of(self.rack.plan, f"{HOST}-{name}")
        assert pid is not None
        return pid

    def unfenced(self) -> bool:
        """Whether some host's vefence, as the controller knows, does not run."""
        return bool(self.rack.vectl("cluster", "status", "-o", "json").json().get("unconfirmed"))

    def cut(self) -> None:
        """No packet leaves the host or reaches it; its VEs' own network is as it was."""
        rules = "table inet cut { chain i { type filter hook input priority -300; iifname eth0 drop; }; chain o { type filter hook output priority -300; oifname eth0 drop; }; }"
        self.rack.run_in(HOST, "nft", rules)

    def mend(self) -> None:
        self.rack.run_in(HOST, "nft", "delete table inet cut", check=False)

    def cgroup_is_empty(self, uid: str) -> bool:
        root = f"{self.rack.plan.cgroup}/{HOST}"
        folders = list(Path("/sys/fs/cgroup").glob(f"*/{root}/*/{uid}"))
        folders += list(Path("/sys/fs/cgroup").glob(f"{root}/*/{uid}"))
        return not any(folder.joinpath("cgroup.procs").read_text() for folder in folders)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def dead_by(pid: int, deadline: float, kill_s: float) -> None:
    """Not before the deadline, and within the time for killing."""
    until(lambda: gone(pid), within_s=30, what=f"{pid} is dead")
    assert deadline <= now() + 0.05, "killed before its time"
    assert now() <= deadline + kill_s + SLACK_S, "killed too late"


@pytest.fixture(scope="module")
def shared(host_can_run_ves: None) -> Iterator[FenceRack]:
    with running_rack("f") as rack:
        yield FenceRack(rack)


@pytest.fixture
def fence(shared: FenceRack) -> Iterator[FenceRack]:
    yield shared
    shared.mend()
    for name in ("agent", "vefence"):
        pid = daemons.pid_of(shared.rack.plan, f"{HOST}-{name}")
        if pid is not None:
            os.kill(pid, signal.SIGCONT)
    if daemons.pid_of(shared.rack.plan, f"{HOST}-vefence") is None:
        daemons.start_vefence(shared.rack.plan, shared.rack.host(HOST))
    if daemons.pid_of(shared.rack.plan, f"{HOST}-agent") is None:
        shared.rack.start_agent(HOST)
    shared.rack.until_ready()
    until(lambda: not shared.unfenced(), within_s=30, what="each vefence runs")
    shared.rack.purge_all()


@dataclass(frozen=True, slots=True)
class Term:
    """Until when fenced VEs may run, by the boot clock; they are dead this long after it."""

    deadline: float
    kill_within_s: float


def lease_of(fence: FenceRack) -> Term:
    lease = fence.note(notes.LEASE, Lease)
    assert isinstance(lease, Lease)
    assert lease.deadline is not None
    return Term(lease.deadline, lease.kill_within_s)


def test_a_host_that_is_cut_off_ends_the_fenced_ve_in_time_and_starts_it_again_when_it_is_back(
    fence: FenceRack,
) -> None:
    doomed, stays = fence.make("doomed", "recreate"), fence.make("stays", "stay")
    fence.cut()
    until(lambda: now() > lease_of(fence).deadline - 5, within_s=10, what="no answers any more")
    lease = lease_of(fence)
    dead_by(doomed, lease.deadline, lease.kill_within_s)
    assert not gone(stays)
    fence.mend()
    until(lambda: fence.rack.ve("doomed")["status"]["state"] == "Running", within_s=30, what="back")
    assert fence.pid("doomed") not in (0, doomed)
    assert fence.pid("stays") == stays
    assert re.search(r"Warning\s+Fenced", fence.rack.vectl("show", "doomed").out)


def test_an_agent_that_hangs_does_not_keep_a_fenced_ve_alive(fence: FenceRack) -> None:
    doomed, stays = fence.make("doomed", "recreate"), fence.make("stays", "stay")
    uid = fence.rack.ve("doomed")["uid"]
    os.kill(fence.daemon("agent"), signal.SIGSTOP)
    lease = lease_of(fence)
    dead_by(doomed, lease.deadline, lease.kill_within_s)
    until(lambda: fence.cgroup_is_empty(uid), within_s=5, what="its cgroup is empty")
    assert not gone(stays)
    os.kill(fence.daemon("agent"), signal.SIGCONT)
    until(lambda: fence.pid("doomed") not in (0, doomed), within_s=30, what="started again")
    assert fence.pid("stays") == stays


def test_without_vefence_no_fenced_ve_starts_and_the_reason_is_told(fence: FenceRack) -> None:
    runs = fence.make("runs", "recreate")
    fence.rack.kill(f"{HOST}-vefence")
    time.sleep(2.5)  # what it said last is too old by then
    os.kill(runs, signal.SIGKILL)
    until(lambda: fence.reason("runs") == "NoFence", within_s=20, what="the reason is told")
    daemons.start_vefence(fence.rack.plan, fence.rack.host(HOST))
    until(lambda: fence.pid("runs") not in (0, runs), within_s=20, what="started again")


def test_without_vefence_the_agent_ends_what_may_not_run(fence: FenceRack) -> None:
    doomed = fence.make("doomed", "recreate")
    fence.rack.kill(f"{HOST}-vefence")
    fence.cut()
    until(lambda: now() > lease_of(fence).deadline - 5, within_s=10, what="no answers any more")
    lease = lease_of(fence)
    dead_by(doomed, lease.deadline, lease.kill_within_s)


def test_vefence_begun_anew_goes_by_its_notes_while_the_agent_is_gone(fence: FenceRack) -> None:
    doomed = fence.make("doomed", "recreate")
    fence.rack.kill(f"{HOST}-agent")
    fence.rack.kill(f"{HOST}-vefence")
    daemons.start_vefence(fence.rack.plan, fence.rack.host(HOST))
    lease = lease_of(fence)
    dead_by(doomed, lease.deadline, lease.kill_within_s)


def test_an_agent_that_is_back_in_time_costs_nothing(fence: FenceRack) -> None:
    runs = fence.make("runs", "recreate")
    fence.rack.kill(f"{HOST}-agent")
    fence.rack.start_agent(HOST)
    deadline = lease_of(fence).deadline
    until(lambda: now() > deadline + 1, within_s=15, what="the old deadline has passed")
    assert fence.pid("runs") == runs
    assert not gone(runs)


@pytest.mark.parametrize("kind", ["reboots", "frozen"])
def test_neither_reboots_nor_a_freezer_save_it(fence: FenceRack, kind: str) -> None:
    more = ', command: ["/bin/sh", "-c", "sleep 0.5; reboot -f"]' if kind == "reboots" else ""
    fence.make("doomed", "recreate", more)
    uid = fence.rack.ve("doomed")["uid"]
    if kind == "frozen":
        fence.rack.vectl("freeze", "doomed")
    os.kill(fence.daemon("agent"), signal.SIGSTOP)
    lease = lease_of(fence)
    after = lease.deadline + lease.kill_within_s + SLACK_S
    until(lambda: now() > after, within_s=20, what="the time for killing has passed")
    for _ in range(10):
        assert fence.cgroup_is_empty(uid)
        time.sleep(0.2)
