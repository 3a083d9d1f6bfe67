"""Limits, usage and leftovers on made-up cgroup trees of both versions."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from kit.cgrouptree import MadeUpKernel
from veagent.cgroup import Cgroups, Files, Usage
from veagent.cgroup.layout import DEVICES
from veapi.errors import Conflict, InvalidInput, NotFound, RemoteFailed
from veapi.model import Limits, Uid

UID = Uid("4b1b8a8e-0000-4000-8000-000000000001")
LIMITS = Limits(cpu_millis=1500, memory_bytes=8000, pids=100)
GROUP = f"verack/h1/ve/{UID}"
USAGE = Usage(
    cpu_seconds=7.0,
    cpu_user_seconds=3.0,
    cpu_system_seconds=2.0,
    cpu_periods=10,
    cpu_throttled_periods=4,
    cpu_throttled_seconds=2.5,
    memory_current_bytes=1000,
    memory_limit_bytes=8000,
    memory_swap_bytes=5,
    memory_working_set_bytes=900,
    memory_anon_bytes=600,
    memory_file_bytes=300,
    oom_kills=1,
    pids_current=3,
    pids_limit=100,
    pids_refused=2,
    io_read_bytes=11,
    io_write_bytes=20,
    io_reads=3,
    io_writes=4,
)


def made(tmp_path: Path, version: int) -> tuple[MadeUpKernel, Cgroups]:
    kernel = MadeUpKernel(tmp_path, version)
    cgroups = Cgroups("verack/h1", fs=str(tmp_path), files=kernel)
    cgroups.setup()
    return kernel, cgroups


@pytest.fixture(params=[1, 2])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[MadeUpKernel, Cgroups]:
    return made(tmp_path, request.param)


@pytest.fixture
def v1(tmp_path: Path) -> tuple[MadeUpKernel, Cgroups]:
    return made(tmp_path, 1)


@pytest.fixture
def v2(tmp_path: Path) -> tuple[MadeUpKernel, Cgroups]:
    return made(tmp_path, 2)


def test_v1_sets_every_limit(v1: tuple[MadeUpKernel, Cgroups]) -> None:
    kernel, cgroups = v1
    cgroups.create(UID, LIMITS)
    written = kernel.written(GROUP)
    assert written["cpu.cfs_quota_us"] == "150000"
    assert written["cpu.shares"] == "1536"
    assert written["memory.limit_in_bytes"] == "8000"
    assert written["memory.memsw.limit_in_bytes"] == "8000"
    assert written["pids.max"] == "100"
    devices = [(path, value) for path, value in kernel.writes if "devices" in path]
    assert [value for _, value in devices] == ["a", *DEVICES]
    assert all("verack/h1/ve/devices." in path for path, _ in devices), "once, for all VEs"


def test_v1_devices_are_set_for_each_where_running_ves_keep_the_parent_from_it(
    tmp_path: Path,
) -> None:
    kernel = MadeUpKernel(tmp_path, 1)
    for path in ("verack", "verack/h1", "verack/h1/ve", f"verack/h1/ve/{UID}"):
        kernel.mkdir(str(tmp_path / "devices" / path))
    cgroups = Cgroups("verack/h1", fs=str(tmp_path), files=kernel)
    cgroups.setup()
    other = Uid("4b1b8a8e-0000-4000-8000-000000000002")
    cgroups.create(other, LIMITS)
    assert [value for path, value in kernel.writes if f"{other}/devices" in path] == ["a", *DEVICES]


def test_v2_sets_every_limit(v2: tuple[MadeUpKernel, Cgroups]) -> None:
    kernel, cgroups = v2
    cgroups.create(UID, LIMITS)
    written = kernel.written(GROUP)
    assert written == {
        "cgroup.subtree_control": "+cpu +memory +pids +io +cpuset",
        "cpu.max": "150000 100000",
        "cpu.weight": "150",
        "memory.max": "8000",
        "memory.swap.max": "0",
        "pids.max": "100",
    }


def test_zero_means_no_limit(both: tuple[MadeUpKernel, Cgroups]) -> None:
    kernel, cgroups = both
    cgroups.create(UID, Limits())
    written = kernel.written(GROUP)
    assert written["pids.max"] == "max"
    assert written.get("cpu.cfs_quota_us", "-1") == "-1"
    assert written.get("cpu.max", "max 100000") == "max 100000"
    assert cgroups.usage(UID).pids_limit == -1


def test_the_least_cpu_limit_is_what_the_kernel_takes(v1: tuple[MadeUpKernel, Cgroups]) -> None:
    kernel, cgroups = v1
    cgroups.create(UID, replace_cpu(1))
    assert kernel.written(GROUP)["cpu.cfs_quota_us"] == "1000"
    assert kernel.written(GROUP)["cpu.shares"] == "10"


@pytest.mark.parametrize("millis", [500, 1500, 3000, 0])
def test_lxcs_own_folder_follows_the_cpu_limit(
    both: tuple[MadeUpKernel, Cgroups], millis: int
) -> None:
    kernel, cgroups = both
    cgroups.create(UID, LIMITS)
    top = "" if kernel.version == 2 else "cpu/"
    kernel.mkdir(str(kernel.fs / f"{top}{GROUP}/ct"))
    cgroups.limit(UID, LIMITS)
    cgroups.limit(UID, replace_cpu(millis))
    name = "cpu.max" if kernel.version == 2 else "cpu.cfs_quota_us"
    outer = (kernel.fs / f"{top}{GROUP}" / name).read_text()
    assert (kernel.fs / f"{top}{GROUP}/ct" / name).read_text() == outer
    assert outer.removesuffix(" 100000") in {str(millis * 100), "-1", "max"}


def replace_cpu(millis: int) -> Limits:
    return Limits(cpu_millis=millis, memory_bytes=8000, pids=10)


def test_v1_cpusets_are_inherited_from_above(v1: tuple[MadeUpKernel, Cgroups]) -> None:
    kernel, _ = v1
    for group in ("verack", "verack/h1", "verack/h1/ve"):
        assert (kernel.fs / "cpuset" / group / "cpuset.cpus").read_text() == "0-1"
        assert (kernel.fs / "cpuset" / group / "cpuset.mems").read_text() == "0"
        assert (kernel.fs / "cpuset" / group / "cgroup.clone_children").read_text() == "1"


def test_v2_delegates_controllers_all_the_way(v2: tuple[MadeUpKernel, Cgroups]) -> None:
    kernel, _ = v2
    for group in ("", "verack", "verack/h1", "verack/h1/ve"):
        assert "+memory" in (kernel.fs / group / "cgroup.subtree_control").read_text()


@pytest.mark.parametrize("memory", [2000, 8000, 16_000, 0])
@pytest.mark.parametrize("interrupted", [False, True])
def test_memory_limits_may_move_from_any_to_any(
    both: tuple[MadeUpKernel, Cgroups],
    memory: int,
    interrupted: bool,  # noqa: FBT001
) -> None:
    kernel, cgroups = both
    cgroups.create(UID, LIMITS)
    if interrupted and kernel.version == 1:
        kernel.set(f"memory/{GROUP}/memory.memsw.limit_in_bytes", "12000")
    cgroups.limit(UID, Limits(cpu_millis=1000, memory_bytes=memory, pids=10))
    file = f"{GROUP}/memory.max" if kernel.version == 2 else f"memory/{GROUP}/memory.limit_in_bytes"
    text = (kernel.fs / file).read_text()
    assert text == str(memory) or (memory == 0 and text in {"max", "9223372036854771712"})


def test_a_limit_below_memory_in_use_is_a_conflict_and_changes_nothing(
    both: tuple[MadeUpKernel, Cgroups],
) -> None:
    kernel, cgroups = both
    cgroups.create(UID, LIMITS)
    with pytest.raises(Conflict, match="1000 bytes"):
        cgroups.limit(UID, Limits(cpu_millis=1000, memory_bytes=500, pids=10))
    if kernel.version == 2:
        assert (kernel.fs / GROUP / "memory.max").read_text() == "8000"
        assert (kernel.fs / GROUP / "memory.high").read_text() == "max"
    else:
        for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
            assert (kernel.fs / "memory" / GROUP / name).read_text() == "8000"


def test_v2_reclaims_before_it_lowers(v2: tuple[MadeUpKernel, Cgroups]) -> None:
    kernel, cgroups = v2
    cgroups.create(UID, LIMITS)
    kernel.reclaimable_bytes = 700
    cgroups.limit(UID, Limits(cpu_millis=1000, memory_bytes=500, pids=10))
    assert (kernel.fs / GROUP / "memory.max").read_text() == "500"
    assert (kernel.fs / GROUP / "memory.high").read_text() == "max"


def test_v1_without_swap_accounting_limits_memory_alone(tmp_path: Path) -> None:
    kernel = MadeUpKernel(tmp_path, 1)
    (tmp_path / "memory/memory.memsw.limit_in_bytes").unlink()
    cgroups = Cgroups("verack/h1", fs=str(tmp_path), files=kernel)
    cgroups.setup()
    cgroups.create(UID, LIMITS)
    assert "memory.memsw.limit_in_bytes" not in kernel.written(GROUP)


def test_limits_of_an_unknown_ve_are_refused(both: tuple[MadeUpKernel, Cgroups]) -> None:
    _, cgroups = both
    with pytest.raises(NotFound):
        cgroups.limit(UID, LIMITS)
    with pytest.raises(NotFound):
        cgroups.usage(UID)


def test_usage_means_the_same_on_both_versions(both: tuple[MadeUpKernel, Cgroups]) -> None:
    kernel, cgroups = both
    cgroups.create(UID, LIMITS)
    usage = cgroups.usage(UID)
    if kernel.version == 1:
        usage = replace(usage, oom_kills=1, memory_limit_bytes=8000)
    assert usage == USAGE


def test_v1_sums_up_the_kills_of_all_folders_and_keeps_those_of_gone_ones(
    v1: tuple[MadeUpKernel, Cgroups],
) -> None:
    kernel, cgroups = v1
    cgroups.create(UID, LIMITS)
    assert cgroups.usage(UID).oom_kills == 0
    memory = f"memory/{GROUP}"
    for path in ("ct", "ct/unit"):
        kernel.mkdir(str(kernel.fs / memory / path))
    assert cgroups.usage(UID).oom_kills == 0
    assert cgroups.usage(UID).oom_kills == 0
    kernel.machine_kills = 3
    kernel.set(f"{memory}/ct/memory.oom_control", "oom_kill 2\n")
    kernel.set(f"{memory}/ct/unit/memory.oom_control", "oom_kill 1\n")
    assert cgroups.usage(UID).oom_kills == 3
    kernel.set(f"{memory}/ct/memory.oom_control", "oom_kill 4\n")
    assert cgroups.usage(UID).oom_kills == 5
    kernel.rmdir(str(kernel.fs / memory / "ct/unit"))
    kernel.machine_kills = 7
    assert cgroups.usage(UID).oom_kills == 5


def test_kills_are_counted_on_over_a_restart_and_gone_with_the_ve(
    v2: tuple[MadeUpKernel, Cgroups],
) -> None:
    _, cgroups = v2
    for kills in (1, 2):
        cgroups.create(UID, LIMITS)
        assert cgroups.usage(UID).oom_kills == kills
        assert cgroups.remove(UID)
    cgroups.forget(UID)
    cgroups.create(UID, LIMITS)
    assert cgroups.usage(UID).oom_kills == 1


def test_leftovers_are_found_and_removed_with_all_below(
    both: tuple[MadeUpKernel, Cgroups],
) -> None:
    kernel, cgroups = both
    assert cgroups.present() == set()
    cgroups.create(UID, LIMITS)
    top = kernel.fs if kernel.version == 2 else kernel.fs / "pids"
    for path in (f"{GROUP}/ct", f"{GROUP}/ct/unit", f"verack/h1/mon/{UID}"):
        kernel.mkdir(str(top / path))
    assert cgroups.present() == {UID}
    assert cgroups.remove(UID)
    assert cgroups.present() == set()
    cgroups.remove_root()
    assert not (top / "verack").exists()


@pytest.mark.parametrize("name", ["d", "d" * 200], ids=["by path", "deeper than paths reach"])
def test_leftovers_nested_a_thousand_times_are_removed(
    both: tuple[MadeUpKernel, Cgroups], name: str
) -> None:
    kernel, cgroups = both
    cgroups.create(UID, LIMITS)
    top = kernel.fs if kernel.version == 2 else kernel.fs / "pids"
    nest(top / GROUP, name, 1000)
    try:
        assert cgroups.remove(UID)
        assert cgroups.present() == set()
    finally:  # too deep for pytest to tidy up
        subprocess.run(["/bin/rm", "-rf", str(top / "verack")], check=True)


@pytest.mark.parametrize("name", ["d", "d" * 200], ids=["by path", "deeper than paths reach"])
def test_what_a_ve_froze_itself_is_thawed_when_it_is_killed(
    v1: tuple[MadeUpKernel, Cgroups], name: str
) -> None:
    kernel, cgroups = v1
    cgroups.create(UID, LIMITS)
    top = kernel.fs / "freezer" / GROUP
    nest(top, name, 100)
    deepest = os.open(top, os.O_RDONLY)
    try:
        for _ in range(100):
            below = os.open(name, os.O_RDONLY, dir_fd=deepest)
            os.close(deepest)
            deepest = below
        state = Path(f"/proc/self/fd/{deepest}/freezer.state")
        state.write_text("FROZEN\n")
        Cgroups("verack/h1", fs=str(kernel.fs), files=Files()).kill(UID)
        assert state.read_text().strip() == "THAWED"
    finally:
        os.close(deepest)
        subprocess.run(["/bin/rm", "-rf", str(kernel.fs / "freezer/verack")], check=True)


def nest(folder: Path, name: str, levels: int) -> None:
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(os.open("cgroup.procs", os.O_CREAT | os.O_WRONLY, dir_fd=below))
        os.close(fd)
        fd = below
    os.close(fd)


async def test_a_folder_with_a_process_that_does_not_die_is_reported(
    both: tuple[MadeUpKernel, Cgroups],
) -> None:
    kernel, cgroups = both
    cgroups.create(UID, LIMITS)
    prefix = "" if kernel.version == 2 else "pids/"
    kernel.set(f"{prefix}{GROUP}/cgroup.procs", "99999999\n")
    assert not cgroups.remove(UID)
    with pytest.raises(RemoteFailed, match="does not go away"):
        await cgroups.sweep(UID, timeout_s=0.03)


def test_frozen_is_seen(both: tuple[MadeUpKernel, Cgroups]) -> None:
    kernel, cgroups = both
    cgroups.create(UID, LIMITS)
    assert not cgroups.frozen(UID)
    top = kernel.fs if kernel.version == 2 else kernel.fs / "freezer"
    kernel.mkdir(str(top / GROUP / "ct"))
    assert not cgroups.frozen(UID)
    (top / GROUP / "ct/cgroup.events").write_text("populated 1\nfrozen 1\n")
    (top / GROUP / "ct/freezer.state").write_text("FREEZING\n")
    assert cgroups.frozen(UID)


@pytest.mark.parametrize("version", [1, 2])
def test_missing_controllers_are_named(tmp_path: Path, version: int) -> None:
    kernel = MadeUpKernel(tmp_path, version)
    if version == 2:
        kernel.set("cgroup.controllers", "cpu memory\n")
    else:
        kernel.rmdir(str(tmp_path / "pids"))
    with pytest.raises(RemoteFailed, match="pids"):
        Cgroups("verack/h1", fs=str(tmp_path), files=kernel)


@pytest.mark.parametrize("root", ["", "/", "/verack", "verack/", "verack/../x"])
def test_roots_outside_are_refused(tmp_path: Path, root: str) -> None:
    with pytest.raises(InvalidInput):
        Cgroups(root, fs=str(tmp_path), files=MadeUpKernel(tmp_path, 2))
