"""A host that boots again with nobody answering, and one whose pool is full."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from devrack import cgroups, daemons
from devrack.plan import RackPlan
from kit.rack import Rack, running_rack, until
from kit.vps import address, event_of, sh, state, tried, until_state
from veagent.recordfile import RecordFile

SMALL = ("--image", "busybox", "--memory", "64M", "--cpu", "0.5", "--disk", "64M")
POOL = "2G"


@pytest.fixture(scope="module")
def host(host_can_run_ves: None) -> Iterator[Rack]:
    """A rack of one host with a small pool."""
    with running_rack("h", hosts=RackPlan(name="x").hosts[:1], pool_size=POOL) as made:
        yield made


@pytest.fixture
def empty(host: Rack) -> Iterator[Rack]:
    """The rack, with every VE deleted afterwards."""
    yield host
    host.purge_all()


def group_of(rack: Rack, uid: str) -> str:
    return f"{rack.plan.cgroup}/h1/ve/{uid}"


def runs(rack: Rack, uid: str) -> bool:
    """By the kernel alone: nobody is asked."""
    return bool(cgroups.processes(group_of(rack, uid)))


def boot_again(rack: Rack) -> None:
    """What a sudden reboot leaves: files on disk, written in another boot. No process, mount, link, filter or cgroup of VEs."""
    rack.kill("h1-agent")
    ves = f"{rack.plan.cgroup}/h1"
    cgroups.kill(ves)
    cgroups.remove(ves)
    for link in json.loads(rack.run_in("h1", "ip", "-j", "link")):
        if link["ifname"] not in {"lo", "eth0"}:
            rack.run_in("h1", "ip", "link", "del", link["ifname"], check=False)
    rack.run_in("h1", "nft", "flush", "ruleset")
    state_folder = rack.plan.host_state(rack.host("h1"))
    rack.run_in_host("h1", "umount", str(state_folder / "pool"))
    shutil.rmtree(Path("/run/lxc") / state_folder.relative_to("/"), ignore_errors=True)
    file = RecordFile(state_folder / "agent/records", legacy=state_folder / "agent/record")
    records = file.load()
    file.write({uid: replace(each, boot_id="another") for uid, each in records.items()})
    rack.start_agent("h1")


def until_answers(rack: Rack, uid: str, ip: str) -> None:
    def ping() -> bool:
        said = rack.run_in("h1", "ping", "-c", "1", "-W", "1", ip, check=False)
        return "1 received" in said

    until(lambda: runs(rack, uid), within_s=120, what=f"{uid} runs")
    until(ping, within_s=60, what=f"{ip} answers")


@pytest.mark.timeout(300)
def test_a_booted_host_brings_its_ves_back_from_its_ledger_with_nobody_answering(
    empty: Rack,
) -> None:
    for name in ("one", "two"):
        empty.vectl("create", name, *SMALL)
    empty.vectl("create", "down", *SMALL, "--stopped")
    empty.vectl("create", "off", *SMALL)
    sh(empty, "one", "echo kept >/root/data; sync")
    tried(empty, "off", "poweroff")
    until_state(empty, "off", "Stopped")
    empty.vectl("create", "cold", *SMALL)
    empty.vectl("freeze", "cold")
    uids = {ve["name"]: ve["uid"] for ve in empty.ves()}
    addresses = {name: address(empty, name) for name in ("one", "two")}
    empty.kill("controller")
    boot_again(empty)
    for name, ip in addresses.items():
        until_answers(empty, uids[name], ip)
    assert not runs(empty, uids["down"])
    assert not runs(empty, uids["off"])
    empty.start_controller()
    until(lambda: empty.vectl("list", code=None).code == 0, within_s=60, what="the controller")
    for name in ("one", "two"):
        until_state(empty, name, "Running")
        assert event_of(empty, name, "HostRestarted")[1].startswith("its host restarted")
    until_state(empty, "down", "Stopped")
    until_state(empty, "off", "Stopped")
    until_state(empty, "cold", "Frozen")
    assert sh(empty, "one", "cat /root/data") == "kept"
    empty.vectl("thaw", "cold")
    empty.vectl("start", "off", "down")
    assert {ve["status"]["state"] for ve in empty.ves()} == {"Running"}


@pytest.mark.timeout(300)
def test_a_full_pool_refuses_new_ves_and_breaks_nothing_that_runs(empty: Rack) -> None:
    empty.vectl("create", "runs", *SMALL)
    empty.vectl(
        "create", "big", "--image", "busybox", "--memory", "64M", "--cpu", "0.5", "--disk", "1700M"
    )
    sh(empty, "big", "for i in $(seq 60); do fallocate -l 30M /root/$i || break; done; sync")
    before = empty.pids()

    def refused() -> bool:
        """Before its host has told of it, a new VE is placed there, and waits there."""
        answer = empty.vectl("create", "new", *SMALL, code=None)
        assert answer.code in {0, 4, 5}, answer
        assert answer.code == 0 or "pool is nearly full" in answer.err
        if answer.code != 5:
            empty.purge("new")
        return answer.code == 5

    until(refused, within_s=90, what="the pool is full")
    assert state(empty, "new") == "Pending"
    assert "pool is nearly full" in empty.vectl("show", "new").out
    sh(empty, "runs", "dd if=/dev/urandom of=/root/x bs=1M count=20 conv=fsync")
    assert "pool" in empty.vectl("snapshot", "runs", "s1", code=None).err
    empty.vectl("restart", "runs", "--force")
    assert empty.pids()["big"] == before["big"]
    sh(empty, "big", "rm /root/*; sync")
    until_state(empty, "new", "Running")
    os.kill(empty.pids()["new"][0], signal.SIGKILL)
    assert daemons.pid_of(empty.plan, "h1-agent") is not None
