"""Weights, swap, disk traffic, processors, freezing and kills for memory, on made-up cgroup trees of both versions."""

import asyncio
import os
import select
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.cgrouptree import MadeUpKernel
from veagent.cgroup import Cgroups, cpulist
from veagent.cgroup.disk import Disk, disk_below, disk_of
from veagent.cgroup.oom import FileNotice
from veagent.events import words
from veagent.runtime.lxc import LxcRuntime, LxcSettings
from veagent.runtime.oom import OomWatch
from veapi.clock import SystemClock
from veapi.errors import Conflict, NotFound, RemoteFailed, TimedOut
from veapi.model import Limits, Uid

UID = Uid("4b1b8a8e-0000-4000-8000-000000000001")
GROUP = f"verack/h1/ve/{UID}"
Made = tuple[MadeUpKernel, Cgroups]
Make = Callable[[int, Disk | None], Made]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(version: int, disk: Disk | None) -> Made:
        kernel = MadeUpKernel(tmp_path, version)
        cgroups = Cgroups("verack/h1", fs=str(tmp_path), files=kernel, disk=lambda: disk)
        cgroups.setup()
        return kernel, cgroups

    return made


@pytest.mark.parametrize(
    ("asked", "shares", "weight"),
    [
        (Limits(cpu_millis=1500), "1536", "150"),
        (Limits(cpu_millis=1500, cpu_weight=1), "10", "1"),
        (Limits(cpu_millis=1500, cpu_weight=100), "1024", "100"),
        (Limits(cpu_weight=10_000), "102400", "10000"),
    ],
)
def test_the_weight_asked_for_counts_and_else_the_cores(
    make: Make, asked: Limits, shares: str, weight: str, tmp_path: Path
) -> None:
    for version, name, value in ((1, "cpu.shares", shares), (2, "cpu.weight", weight)):
        folder = tmp_path / str(version)
        folder.mkdir()
        kernel = MadeUpKernel(folder, version)
        cgroups = Cgroups("verack/h1", fs=str(folder), files=kernel)
        cgroups.setup()
        cgroups.create(UID, asked)
        assert kernel.written(GROUP)[name] == value


def test_v1_quotas_that_a_ve_set_itself_keep_its_own_from_nothing(make: Make) -> None:
    kernel, cgroups = make(1, None)
    cgroups.create(UID, Limits(cpu_millis=1500))
    top = f"cpu/{GROUP}/ct"
    for name, quota in (("", "150000"), ("/greedy", "150000"), ("/modest", "20000")):
        kernel.mkdir(str(kernel.fs / f"{top}{name}"))
        kernel.write(str(kernel.fs / f"{top}{name}/cpu.cfs_quota_us"), quota)
    cgroups.limit(UID, Limits(cpu_millis=500))
    found = [
        kernel.read(str(kernel.fs / f"{top}{name}/cpu.cfs_quota_us"))
        for name in ("/..", "", "/greedy", "/modest")
    ]
    assert found == ["50000", "50000", "-1", "20000"]


def test_v1_swap_is_on_top_of_memory(make: Make) -> None:
    kernel, cgroups = make(1, None)
    cgroups.create(UID, Limits(memory_bytes=8000, swap_bytes=2000))
    assert kernel.written(GROUP)["memory.memsw.limit_in_bytes"] == "10000"
    cgroups.limit(UID, Limits(memory_bytes=20_000, swap_bytes=0))
    assert kernel.written(GROUP)["memory.memsw.limit_in_bytes"] == "20000"
    cgroups.limit(UID, Limits(memory_bytes=4000, swap_bytes=90_000))
    assert kernel.written(GROUP)["memory.memsw.limit_in_bytes"] == "94000"


def test_v2_swap_is_its_own_limit(make: Make) -> None:
    kernel, cgroups = make(2, None)
    cgroups.create(UID, Limits(memory_bytes=8000, swap_bytes=2000))
    assert kernel.written(GROUP)["memory.swap.max"] == "2000"
    cgroups.limit(UID, Limits(memory_bytes=8000))
    assert kernel.written(GROUP)["memory.swap.max"] == "0"


def test_v1_traffic_is_limited_at_the_pools_disk_and_freed_again(make: Make) -> None:
    kernel, cgroups = make(1, Disk("7:3"))
    cgroups.create(UID, Limits(io_read_bps=5_000_000))
    assert kernel.written(GROUP)["blkio.throttle.read_bps_device"] == "7:3 5000000"
    assert "blkio.throttle.write_bps_device" not in kernel.written(GROUP)
    cgroups.limit(UID, Limits())
    assert kernel.written(GROUP)["blkio.throttle.read_bps_device"] == "7:3 0"


def test_v2_traffic_is_limited_at_the_pools_disk_and_freed_again(make: Make) -> None:
    kernel, cgroups = make(2, Disk("7:3", weights=True))
    cgroups.create(UID, Limits(io_write_bps=5_000_000, io_weight=300))
    assert kernel.written(GROUP)["io.max"] == "7:3 rbps=max wbps=5000000"
    assert kernel.written(GROUP)["io.bfq.weight"] == "default 300"
    cgroups.limit(UID, Limits())
    assert kernel.written(GROUP)["io.max"] == "7:3 rbps=max wbps=max"
    assert kernel.written(GROUP)["io.bfq.weight"] == "default 100"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("asked", "disk"),
    [
        (Limits(io_read_bps=1), None),
        (Limits(io_write_bps=1), None),
        (Limits(io_weight=50), None),
        (Limits(io_weight=50), Disk("7:3")),
    ],
)
def test_what_the_disk_can_not_do_is_refused_before_anything_changes(
    make: Make, version: int, asked: Limits, disk: Disk | None
) -> None:
    kernel, cgroups = make(version, disk)
    cgroups.create(UID, Limits(memory_bytes=8000))
    before = list(kernel.writes)
    with pytest.raises(Conflict, match="io_"):
        cgroups.limit(UID, asked)
    assert kernel.writes == before
    allowed = cgroups.holdable(asked)
    assert (allowed.io_read_bps, allowed.io_write_bps, allowed.io_weight) == (0, 0, 0)
    cgroups.limit(UID, allowed)


def nested(kernel: MadeUpKernel, *names: str) -> list[str]:
    path, found = f"cpuset/{GROUP}", []
    for name in names:
        path = f"{path}/{name}"
        kernel.mkdir(str(kernel.fs / path))
        kernel.set(f"{path}/cpuset.cpus", kernel.read(str(kernel.fs / path / "../cpuset.cpus")))
        found.append(f"{path}/cpuset.cpus")
    return found


def test_v1_processors_change_all_the_way_down_whatever_the_ve_made(make: Make) -> None:
    kernel, cgroups = make(1, None)
    cgroups.create(UID, Limits(), cpus="0")
    paths = [f"cpuset/{GROUP}/cpuset.cpus", *nested(kernel, "ct", "a", "b")]
    for cpus in ("1", "0-1", "0"):
        cgroups.pin(UID, cpus)
        assert {kernel.read(str(kernel.fs / path)).strip() for path in paths} == {cpus}
    writes = len(kernel.writes)
    cgroups.pin(UID, "0")
    assert len(kernel.writes) == writes, "what is so already costs no write"


def test_v1_groups_that_a_ve_removes_meanwhile_keep_nothing_from_being_pinned(make: Make) -> None:
    kernel, cgroups = make(1, None)
    cgroups.create(UID, Limits(), cpus="0")
    nested(kernel, "ct", "fleeting")
    listed = kernel.folders

    def late(path: str) -> list[str]:
        found = listed(path)
        if found and path.endswith("/ct"):
            shutil.rmtree(found[0])
        return found

    kernel.folders = late  # type: ignore[method-assign]
    cgroups.pin(UID, "0-1")
    assert kernel.read(str(kernel.fs / f"cpuset/{GROUP}/ct/cpuset.cpus")).strip() == "0-1"


def test_v1_more_groups_than_can_be_pinned_in_a_moment_are_refused(make: Make) -> None:
    kernel, cgroups = make(1, None)
    cgroups.create(UID, Limits(), cpus="0")
    nested(kernel, "ct")
    for number in range(300):
        (kernel.fs / f"cpuset/{GROUP}/ct/{number}").mkdir()
    with pytest.raises(Conflict, match="256 cpuset groups"):
        cgroups.pin(UID, "0-1")


def test_v1_kills_are_counted_in_so_many_groups_and_no_more(make: Make) -> None:
    kernel, cgroups = make(1, None)
    cgroups.create(UID, Limits())
    for number in range(1100):
        folder = kernel.fs / f"memory/{GROUP}/{number}"
        folder.mkdir()
        (folder / "memory.oom_control").write_text("oom_kill 1\n")
    kernel.machine_kills = 1100
    assert cgroups.oom_kills(UID) == 1023


def test_what_a_ve_calls_its_groups_is_told_in_text_that_can_be_sent(make: Make) -> None:
    kernel, cgroups = make(1, None)
    cgroups.create(UID, Limits(), cpus="0")
    kernel.mkdir(f"{kernel.fs}/cpuset/{GROUP}/ct")
    odd = f"{kernel.fs}/cpuset/{GROUP}/ct/" + os.fsdecode(b"\xff")
    kernel.mkdir(odd)
    Path(f"{odd}/cpuset.cpus").unlink()
    Path(f"{odd}/cpuset.cpus").symlink_to("cpuset.cpus")
    with pytest.raises(RemoteFailed) as refused:
        cgroups.pin(UID, "0-1")
    assert "\\xff" in refused.value.message
    assert words(refused.value).encode()


def test_v2_processors_are_set_at_the_top(make: Make) -> None:
    kernel, cgroups = make(2, None)
    cgroups.create(UID, Limits(), cpus="0")
    cgroups.pin(UID, "1-2")
    assert kernel.written(GROUP)["cpuset.cpus"] == "1-2"


@pytest.mark.parametrize("version", [1, 2])
async def test_a_ve_is_frozen_and_thawed(make: Make, version: int) -> None:
    _, cgroups = make(version, None)
    cgroups.create(UID, Limits())
    assert not cgroups.suspended(UID)
    await cgroups.freeze(UID)
    assert cgroups.suspended(UID)
    cgroups.thaw(UID)
    assert not cgroups.suspended(UID)


async def test_a_ve_that_does_not_freeze_runs_on(make: Make) -> None:
    kernel, cgroups = make(1, None)
    cgroups.create(UID, Limits())
    write = kernel.write

    def stuck(path: str, value: str) -> None:
        write(path, "FREEZING" if value == "FROZEN" else value)

    kernel.write = stuck  # type: ignore[method-assign]
    with pytest.raises(TimedOut, match="did not freeze"):
        await cgroups.freeze(UID, timeout_s=0.05)
    assert kernel.read(str(kernel.fs / f"freezer/{GROUP}/freezer.state")).strip() == "THAWED"


@pytest.mark.parametrize("version", [1, 2])
async def test_what_does_not_run_is_neither_frozen_nor_pinned(make: Make, version: int) -> None:
    _, cgroups = make(version, None)
    with pytest.raises(NotFound):
        await cgroups.freeze(UID)
    with pytest.raises(NotFound):
        cgroups.pin(UID, "0")
    with pytest.raises(NotFound):
        cgroups.oom_notice(UID)
    assert not cgroups.suspended(UID)


def test_v2_kills_are_noticed_when_the_counts_change(make: Make) -> None:
    kernel, cgroups = make(2, None)
    cgroups.create(UID, Limits())
    notice = cgroups.oom_notice(UID)
    try:
        assert select.select([notice], [], [], 0)[0] == []
        kernel.set(f"{GROUP}/memory.events", "oom_kill 2\n")
        assert select.select([notice], [], [], 5)[0] == [notice]
        notice.take()
        assert select.select([notice], [], [], 0)[0] == []
        assert cgroups.oom_kills(UID) == 2
    finally:
        notice.close()


async def test_a_waiter_hears_of_kills_that_are_counted_after_the_notice(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("")
    kills = 0
    watch = OomWatch(FileNotice(str(tmp_path)), lambda: kills)
    waiter = asyncio.create_task(watch.beyond(0))
    (tmp_path / "memory.events").write_text("changed")
    await asyncio.sleep(0.01)
    assert not waiter.done()
    kills = 3
    assert await asyncio.wait_for(waiter, 5) == 3
    watch.close()
    watch.close()


async def test_a_ve_at_its_limit_is_looked_at_now_and_then_not_at_every_word() -> None:
    class Chatterbox:
        """Always has something to say."""

        def __init__(self) -> None:
            self.taken = 0
            self._fd = os.eventfd(1)

        def fileno(self) -> int:
            return self._fd

        def take(self) -> None:
            self.taken += 1

        def close(self) -> None:
            os.close(self._fd)

    notice, looks = Chatterbox(), 0

    def count() -> int:
        nonlocal looks
        looks += 1
        return looks > 3

    watch = OomWatch(notice, count)
    assert await asyncio.wait_for(watch.beyond(0), 10) == 1
    assert notice.taken <= 2
    watch.close()


async def test_the_agent_goes_on_while_the_kernel_takes_memory_back(tmp_path: Path) -> None:
    goes_on = threading.Event()

    class Slow(Cgroups):
        def limit(self, uid: Uid, limits: Limits) -> None:
            assert goes_on.wait(10), f"nothing else ran while {uid} was limited to {limits}"

    cgroups = Slow("verack/h1", fs=str(tmp_path), files=MadeUpKernel(tmp_path, 1))
    settings = LxcSettings(state=tmp_path, cgroup_root="verack/h1")
    runtime = LxcRuntime(settings, SystemClock(), cgroups=cgroups)
    limiting = asyncio.create_task(runtime.limit(UID, Limits()))
    asyncio.get_running_loop().call_soon(goes_on.set)
    await limiting


def test_a_disk_is_known_by_its_device_or_a_folder_on_it(tmp_path: Path) -> None:
    assert disk_of(tmp_path) is None
    assert disk_of(tmp_path / "missing") is None
    found = disk_below(Path("/"))
    assert found is None or found.number.count(":") == 1
    assert disk_below(Path("/proc/self")) is None
    assert os.path.ismount("/proc")


@given(st.sets(st.integers(0, 300)))
def test_lists_of_processors_come_back_as_they_were(cpus: set[int]) -> None:
    assert cpulist.parse(cpulist.render(cpus)) == cpus


def test_lists_of_processors_are_short() -> None:
    assert cpulist.render([3, 0, 2, 5]) == "0,2-3,5"
    assert cpulist.union("0-1", "2") == "0-2"
    assert cpulist.parse("") == frozenset()
