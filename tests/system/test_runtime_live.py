"""What changes in a real VE while it runs: processors, freezing, the disk's traffic; and kills that are heard of."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.eventually import eventually
from kit.realves import LIMITS, MIB, Lab, lab
from veagent.cgroup import Cgroups
from veagent.cgroup.disk import disk_below
from veagent.ports import Instance
from veapi.errors import Conflict, NotFound
from veapi.model import Limits

pytestmark = pytest.mark.skipif(shutil.which("lxc-start") is None, reason="lxc is not installed")
HOG = ("dd", "if=/dev/zero", "of=/dev/null", "bs=128M", "count=1")
CPUS = sorted(os.sched_getaffinity(0))


@pytest.fixture
async def ves() -> AsyncIterator[Lab]:
    async with lab() as made:
        yield made


@pytest.fixture
async def instance(ves: Lab) -> Instance:
    return await ves.runtime.start(ves.plan())


async def test_a_kill_for_memory_is_heard_of_while_it_runs(ves: Lab, instance: Instance) -> None:
    first = asyncio.create_task(instance.oom_killed(after=0))
    await ves.run(instance, *HOG)
    kills = await asyncio.wait_for(first, 10)
    assert kills >= 1
    second = asyncio.create_task(instance.oom_killed(after=kills))
    await ves.run(instance, *HOG)
    assert await asyncio.wait_for(second, 10) > kills


async def test_a_restarted_agent_hears_of_kills_too(ves: Lab, instance: Instance) -> None:
    await ves.runtime.aclose()
    later = ves.another_runtime()
    await later.setup()
    try:
        (adopted,) = await later.adopt()
        heard = asyncio.create_task(adopted.oom_killed(after=0))
        ves.runtime = later
        await ves.run(adopted, *HOG)
        assert await asyncio.wait_for(heard, 10) >= 1
    finally:
        await later.aclose()


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two processors")
async def test_a_ve_counts_the_processors_that_it_has(ves: Lab) -> None:
    plan = ves.plan(cpus=(CPUS[1],))
    instance = await ves.runtime.start(plan)
    assert (await ves.run(instance, "nproc")).out.strip() == "1"
    await ves.runtime.pin(plan.uid, CPUS[:2])
    assert (await ves.run(instance, "nproc")).out.strip() == "2"
    await ves.runtime.pin(plan.uid, [CPUS[0]])
    allowed = (await ves.run(instance, "grep", "Cpus_allowed_list", "/proc/self/status")).out
    assert allowed.split()[1] == str(CPUS[0])


async def test_a_frozen_ve_stands_still_and_goes_on_where_it_was(
    ves: Lab, instance: Instance
) -> None:
    await ves.run(
        instance,
        "sh",
        "-c",
        "(while :; do date +%s%N > /tmp/beat; sleep 0.01; done) >/dev/null 2>&1 &",
    )
    usage = ves.runtime.cgroups.usage
    await ves.runtime.freeze(instance.uid)
    await ves.runtime.freeze(instance.uid)
    assert ves.runtime.frozen(instance.uid)
    before = usage(instance.uid).cpu_seconds
    with pytest.raises(Conflict, match="is frozen"):
        await ves.run(instance, "true")
    assert usage(instance.uid).cpu_seconds == before
    await ves.runtime.thaw(instance.uid)
    assert not ves.runtime.frozen(instance.uid)
    await eventually(lambda: usage(instance.uid).cpu_seconds > before)


async def test_a_frozen_ve_is_known_as_such_after_a_restart_of_the_agent_and_stops(
    ves: Lab, instance: Instance
) -> None:
    await ves.runtime.freeze(instance.uid)
    await ves.runtime.aclose()
    later = ves.another_runtime()
    await later.setup()
    try:
        (adopted,) = await later.adopt()
        assert later.frozen(adopted.uid)
        await later.stop(adopted, timeout_s=0)
        assert not later.frozen(adopted.uid)
    finally:
        await later.aclose()


async def test_what_does_not_run_can_not_be_frozen(ves: Lab) -> None:
    with pytest.raises(NotFound):
        await ves.runtime.freeze(ves.plan().uid)


async def test_the_disks_traffic_is_limited_by_the_kernel(ves: Lab, instance: Instance) -> None:
    """The rule is in the kernel's table, with the number of the disk that the roots are on."""
    disk = disk_below(ves.folder)
    if disk is None:
        pytest.skip("temporary files are on no block device here")
    cgroups = Cgroups(ves.cgroup_root, disk=lambda: disk)
    limits = Limits(memory_bytes=64 * MIB, pids=64, cpu_millis=1000, io_write_bps=1_048_576)
    cgroups.limit(instance.uid, limits)
    assert any(f"{disk.number} " in text and "1048576" in text for text in _io_rules(ves, instance))
    cgroups.limit(instance.uid, LIMITS)
    assert not any("1048576" in text for text in _io_rules(ves, instance))


def _io_rules(ves: Lab, instance: Instance) -> list[str]:
    fs = Path("/sys/fs/cgroup")
    names = ("blkio/{}/blkio.throttle.write_bps_device", "{}/io.max")
    paths = [fs / name.format(f"{ves.cgroup_root}/ve/{instance.uid}") for name in names]
    return [path.read_text() for path in paths if path.exists()]
