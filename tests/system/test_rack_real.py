"""A VE is real: what issue-level promises say of it, read off the kernel."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.rack import Rack, until


@pytest.fixture(scope="module")
def pair(rack: Rack) -> Iterator[list[str]]:
    """Two VEs on two hosts."""
    rack.vectl("create", "real-a", "--image", "busybox", "--host", "h1", "--cpu", "0.5", "--memory", "64M",
               "--disk", "64M", "--pids", "40", "--label", "app=real")  # fmt: skip
    rack.vectl(
        "create",
        "real-b",
        "--image",
        "busybox",
        "--host",
        "h3",
        "--memory",
        "64M",
        "--ip",
        "10.66.9.9",
    )
    yield ["real-a", "real-b"]
    rack.vectl("delete", "--purge", "--yes", "real-a", "real-b")


def inside(rack: Rack, name: str, *command: str, code: int | None = 0) -> str:
    return rack.vectl("exec", name, "--", *command, code=code).out


def test_it_has_its_own_init_and_its_root_is_nobody_on_the_host(
    rack: Rack, pair: list[str]
) -> None:
    pid = int(rack.ve("real-a")["status"]["init_pid"])
    uid = int(re.findall(r"Uid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
    assert uid >= rack.plan.id_base
    assert inside(rack, "real-a", "cat", "/proc/1/comm").strip() in {"init", "busybox"}
    assert inside(rack, "real-a", "id", "-u").strip() == "0"


def test_two_ves_never_share_an_id_range(rack: Rack, pair: list[str]) -> None:
    bases = {
        Path(f"/proc/{rack.ve(name)['status']['init_pid']}/uid_map").read_text().split()[1]
        for name in pair
    }
    assert len(bases) == 2


def test_files_that_it_writes_are_unshifted_on_disk(rack: Rack, pair: list[str]) -> None:
    inside(rack, "real-a", "touch", "/root/mine")
    assert inside(rack, "real-a", "stat", "-c", "%u", "/root/mine").strip() == "0"


def test_its_hostname_is_its_name(rack: Rack, pair: list[str]) -> None:
    assert inside(rack, "real-a", "hostname").strip() == "real-a"


def test_proc_shows_its_own_limits(rack: Rack, pair: list[str]) -> None:
    meminfo = inside(rack, "real-a", "cat", "/proc/meminfo")
    assert re.search(r"MemTotal:\s+65536 kB", meminfo), meminfo
    uptime = float(inside(rack, "real-a", "cat", "/proc/uptime").split()[0])
    host_uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert uptime < host_uptime


def test_memory_beyond_its_limit_is_refused_by_the_kernel(rack: Rack, pair: list[str]) -> None:
    script = "dd if=/dev/zero of=/dev/null bs=200M count=1"
    assert rack.vectl("exec", "real-a", "--", "sh", "-c", script, code=None).code in {1, 137}
    assert rack.ve("real-a")["status"]["state"] == "Running"


def test_processes_beyond_its_limit_are_refused_by_the_kernel(rack: Rack, pair: list[str]) -> None:
    script = "for i in $(seq 60); do sleep 2 & done; wait"
    result = rack.vectl("exec", "real-a", "--", "sh", "-c", script, code=None)
    assert "fork" in (result.err + result.out).lower(), result


def test_disk_beyond_its_limit_is_refused_by_the_kernel(rack: Rack, pair: list[str]) -> None:
    result = rack.vectl(
        "exec",
        "real-a",
        "--",
        "dd",
        "if=/dev/urandom",
        "of=/root/big",
        "bs=1M",
        "count=100",
        code=None,
    )
    assert result.code != 0
    assert "quota" in result.err.lower(), result
    inside(rack, "real-a", "rm", "-f", "/root/big")


def test_its_cpu_limit_is_set_in_the_kernel(rack: Rack, pair: list[str]) -> None:
    uid = rack.ve("real-a")["uid"]
    folder = Path("/sys/fs/cgroup/cpu") / rack.plan.cgroup / "h1/ve" / uid
    if not folder.exists():
        pytest.skip("no cgroup v1 cpu hierarchy on this machine")
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    period = int((folder / "cpu.cfs_period_us").read_text())
    assert quota * 2 == period


def test_ves_on_different_hosts_reach_each_other(rack: Rack, pair: list[str]) -> None:
    a = rack.ve("real-a")["status"]["addresses"][0]
    inside(rack, "real-a", "ping", "-c", "1", "-W", "2", "10.66.9.9")
    inside(rack, "real-b", "ping", "-c", "1", "-W", "2", a)
    assert inside(rack, "real-a", "wget", "-q", "-O", "-", "http://10.66.9.9/").strip() == "real-b"


def test_it_reaches_the_outside_through_its_host(rack: Rack, pair: list[str]) -> None:
    for name in pair:
        inside(rack, name, "ping", "-c", "1", "-W", "2", rack.plan.controller_address)


def test_it_cannot_take_another_ves_address(rack: Rack, pair: list[str]) -> None:
    inside(rack, "real-a", "ip", "addr", "add", "10.66.77.77/32", "dev", "eth0")
    spoofed = rack.vectl(
        "exec",
        "real-a",
        "--",
        "ping",
        "-c",
        "1",
        "-W",
        "1",
        "-I",
        "10.66.77.77",
        "10.66.9.9",
        code=None,
    )
    assert spoofed.code != 0
    inside(rack, "real-a", "ip", "addr", "del", "10.66.77.77/32", "dev", "eth0")


def test_a_killed_init_is_restarted_counted_and_told(rack: Rack, pair: list[str]) -> None:
    before = rack.ve("real-b")["status"]
    pid = int(before["init_pid"])
    os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        status = rack.ve("real-b")["status"]
        return status["state"] == "Running" and int(status["init_pid"]) not in {0, pid}

    until(back, within_s=5, what="the VE runs again")
    after = rack.ve("real-b")["status"]
    assert int(after["restarts"]) == int(before["restarts"]) + 1
    told = [event for event in after["events"] if event["type"] == "Warning"]
    assert any("signal 9" in event["message"] or "SIGKILL" in event["message"] for event in told), (
        told
    )
    assert after["addresses"] == ["10.66.9.9"]
