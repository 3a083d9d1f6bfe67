"""`vectl set` on a running VE, each limit read off the kernel or felt inside; and what is refused."""

import json
import re
from collections.abc import Iterator

import pytest

from kit.rack import Rack, until
from kit.vps import event_of, group, meminfo_kib, sh, state, tried, unrestarted

HOG = "dd if=/dev/zero of=/dev/shm/hog bs=1M count=60"
CROWD = "for i in $(seq 40); do usleep 300000 & done; wait"


@pytest.fixture(scope="module")
def made(rack: Rack) -> Iterator[Rack]:
    """The rack with one VE, `vps`, on h1."""
    rack.vectl("create", "vps", "--image", "busybox", "--host", "h1", "--cpu", "1", "--memory", "128M",
               "--disk", "256M", "--pids", "100")  # fmt: skip
    yield rack
    rack.purge("vps")


@pytest.fixture
def vps(made: Rack) -> Iterator[Rack]:
    """The VE is not restarted by what the test does."""
    with unrestarted(made, "vps"):
        yield made


def buckets(rack: Rack) -> dict[str, int]:
    """Bits a second of every token bucket on h1, by device."""
    shown = json.loads(rack.run_in("h1", "tc", "-j", "qdisc", "show"))
    return {each["dev"]: each["options"]["rate"] * 8 for each in shown if each["kind"] == "tbf"}


def test_cores(vps: Rack) -> None:
    vps.vectl("set", "vps", "--cpu", "2")
    assert sh(vps, "vps", "nproc") == "2"
    assert sh(vps, "vps", "grep -c ^processor /proc/cpuinfo") == "2"
    vps.vectl("set", "vps", "--cpu", "0.5")
    assert sh(vps, "vps", "nproc") == "1"
    assert group(vps, "vps", "cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"


def test_the_weight_of_the_cores(vps: Rack) -> None:
    vps.vectl("set", "vps", "--cpu-weight", "50")
    assert group(vps, "vps", "cpu/cpu.shares", "cpu.weight") in {"512", "50"}
    vps.vectl("set", "vps", "--cpu-weight", "0")


def test_memory_grows_and_shrinks(vps: Rack) -> None:
    for mib in (192, 96):
        vps.vectl("set", "vps", "--memory", f"{mib}M")
        assert meminfo_kib(vps, "vps") == mib << 10


def test_swap_comes_on_top_of_the_memory(vps: Rack) -> None:
    vps.vectl("set", "vps", "--memory", "96M", "--swap", "32M")
    found = group(vps, "vps", "memory/memory.memsw.limit_in_bytes", "memory.swap.max")
    assert int(found) in {128 << 20, 32 << 20}
    vps.vectl("set", "vps", "--swap", "0")
    found = group(vps, "vps", "memory/memory.memsw.limit_in_bytes", "memory.swap.max")
    assert int(found) in {96 << 20, 0}


def test_memory_below_what_is_in_use_is_refused_and_needs_a_restart(made: Rack) -> None:
    made.vectl("set", "vps", "--memory", "96M")
    with unrestarted(made, "vps"):
        sh(made, "vps", HOG)
        refused = made.vectl("set", "vps", "--memory", "32M", code=4)
        assert "LimitsRefused" in refused.err
        assert re.search(r"in use .* does not fit into the new limit", refused.err)
        assert "--restart" in refused.err
        assert state(made, "vps") == "Running"
        assert meminfo_kib(made, "vps") == 96 << 10
        assert event_of(made, "vps", "LimitsRefused")[0] == "Warning"
    before = made.pids()["vps"]
    made.vectl("set", "vps", "--memory", "32M", "--restart", "--timeout", "5s")
    assert made.pids()["vps"] != before
    assert meminfo_kib(made, "vps") == 32 << 10


def test_a_refused_shrink_is_carried_out_by_itself_once_the_memory_is_free(vps: Rack) -> None:
    vps.vectl("set", "vps", "--memory", "96M")
    sh(vps, "vps", HOG)
    vps.vectl("set", "vps", "--memory", "40M", code=4)
    sh(vps, "vps", "rm /dev/shm/hog")
    until(lambda: meminfo_kib(vps, "vps") == 40 << 10, within_s=60, what="the memory is 40M")
    vps.vectl("set", "vps", "--memory", "96M")


def test_processes(vps: Rack) -> None:
    vps.vectl("set", "vps", "--pids", "30")
    assert "fork" in tried(vps, "vps", CROWD).err
    assert group(vps, "vps", "pids/pids.max", "pids.max") == "30"
    vps.vectl("set", "vps", "--pids", "100")
    assert tried(vps, "vps", CROWD) == tried(vps, "vps", "true")


def test_the_disk_grows_and_shrinks_down_to_what_is_in_use(vps: Rack) -> None:
    write = "dd if=/dev/urandom of=/root/big bs=1M count=80 conv=fsync"
    vps.vectl("set", "vps", "--disk", "64M")
    assert "quota" in tried(vps, "vps", write).err.lower()
    sh(vps, "vps", "rm -f /root/big")
    vps.vectl("set", "vps", "--disk", "256M")
    sh(vps, "vps", write)
    refused = vps.vectl("set", "vps", "--disk", "64M", code=4)
    assert "LimitsRefused" in refused.err
    assert re.search(
        r"root and snapshots of the VE hold 8\d(\.\d+)?M, more than the 64M", refused.err
    )
    sh(vps, "vps", "echo more >/root/more && sync")
    vps.vectl("set", "vps", "--disk", "256M")
    sh(vps, "vps", "rm /root/big /root/more")


def test_bytes_a_second_of_the_disk(vps: Rack) -> None:
    vps.vectl("set", "vps", "--io-read", "20M", "--io-write", "10M")
    read = group(vps, "vps", "blkio/blkio.throttle.read_bps_device", "io.max")
    write = group(vps, "vps", "blkio/blkio.throttle.write_bps_device", "io.max")
    assert str(20 << 20) in read
    assert str(10 << 20) in write
    vps.vectl("set", "vps", "--io-read", "0", "--io-write", "none")
    write = group(vps, "vps", "blkio/blkio.throttle.write_bps_device", "io.max")
    assert str(10 << 20) not in write


def test_the_weight_of_the_disk_is_set_or_refused_with_what_to_do(vps: Rack) -> None:
    answer = vps.vectl("set", "vps", "--io-weight", "200", code=None)
    if answer.code == 0:
        assert "200" in group(vps, "vps", "blkio/blkio.bfq.weight", "io.bfq.weight")
    else:
        assert answer.code == 4
        assert "has no weights" in answer.err
    vps.vectl("set", "vps", "--io-weight", "0")
    assert state(vps, "vps") == "Running"


def test_bits_a_second_of_the_network(vps: Rack) -> None:
    vps.vectl("set", "vps", "--net-in", "20M", "--net-out", "8M")
    assert sorted(buckets(vps).values()) == [8_000_000, 20_000_000]
    sh(vps, "vps", "ping -c 1 -W 5 10.66.0.1")
    vps.vectl("set", "vps", "--net-in", "0", "--net-out", "none")
    assert buckets(vps) == {}
    assert vps.run_in("h1", "ip", "-j", "link", "show", "type", "ifb").strip() in {"", "[]"}


def test_an_address_changes_with_a_restart_and_is_free_afterwards(made: Rack) -> None:
    old = made.ve("vps")["status"]["addresses"][0]
    with unrestarted(made, "vps"):
        assert "--restart" in made.vectl("set", "vps", "--ip", "10.66.8.8", code=4).err
    made.vectl("set", "vps", "--ip", "10.66.8.8", "--restart", "--timeout", "5s")
    assert "10.66.8.8/16" in sh(made, "vps", "ip -o -4 addr show eth0")
    assert old not in sh(made, "vps", "ip -o -4 addr show eth0")
    sh(made, "vps", "ping -c 1 -W 5 10.66.0.1")
    made.vectl("set", "vps", "--ip", old, "--restart", "--timeout", "5s")
    assert f"{old}/16" in sh(made, "vps", "ip -o -4 addr show eth0")


def test_a_variable_and_a_command_of_init_change_with_a_restart(made: Rack) -> None:
    with unrestarted(made, "vps"):
        assert "--restart" in made.vectl("set", "vps", "--env", "MODE=fast", code=4).err
    made.vectl("set", "vps", "--env", "MODE=fast", "--command", "sleep 100000", "--restart",
               "--timeout", "5s")  # fmt: skip
    assert "MODE=fast" in sh(made, "vps", "tr '\\0' '\\n' </proc/1/environ")
    assert sh(made, "vps", "tr '\\0' ' ' </proc/1/cmdline").split() == ["sleep", "100000"]
    made.vectl("set", "vps", "--env", "MODE-", "--command", "", "--restart", "--timeout", "5s")
    assert "MODE" not in sh(made, "vps", "tr '\\0' '\\n' </proc/1/environ")


def test_what_was_set_lasts_over_restarts_of_the_ve_and_its_agent(made: Rack) -> None:
    made.vectl("set", "vps", "--memory", "80M", "--pids", "77", "--net-out", "9M")
    made.kill("h1-agent")
    made.start_agent("h1")
    made.until_ready()
    made.vectl("restart", "vps", "--force")
    assert meminfo_kib(made, "vps") == 80 << 10
    assert group(made, "vps", "pids/pids.max", "pids.max") == "77"
    assert list(buckets(made).values()) == [9_000_000]
    made.vectl("set", "vps", "--net-out", "0")


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--memory", "10 apples", "10 apples"),
        ("--memory", "0", "memory"),
        ("--cpu", "nan", "cpu"),
        ("--cpu-weight", "10001", "cpu_weight"),
        ("--swap", "-1", "swap"),
        ("--pids", "9223372036854775807", "pids"),
        ("--disk", "1", "disk"),
        ("--io-weight", "1001", "io_weight"),
        ("--io-read", "1", "io_read"),
        ("--net-in", "1", "net_in"),
        ("--ip", "192.0.2.1", "ip"),
        ("--env", "=x", "env"),
        ("--snapshots", "every 5s keep 1", "every 5s"),
    ],
)
def test_a_value_that_can_not_be_is_refused_and_changes_nothing(
    vps: Rack, option: str, value: str, word: str
) -> None:
    before = vps.ve("vps")
    refused = vps.vectl("set", "vps", option, value, "--restart", code=2)
    assert word.replace("_", "") in re.sub("[_-]", "", refused.err)
    assert "Hint" in refused.err
    assert vps.ve("vps")["generation"] == before["generation"]
