"""Limits of real VEs are the kernel's."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from kit.eventually import eventually
from kit.realves import LIMITS, MIB, Lab, lab
from veagent.ports import ExecCommand, Instance, Nic
from veapi.errors import Conflict, NotFound
from veapi.model import Limits, Uid

pytestmark = pytest.mark.skipif(shutil.which("lxc-start") is None, reason="lxc is not installed")
HOG = ("dd", "if=/dev/zero", "of=/dev/null", "bs=128M", "count=1")
FILL = "dd if=/dev/zero of=/dev/shm/fill bs=1M count={} 2>/dev/null"


@pytest.fixture
async def ves() -> AsyncIterator[Lab]:
    async with lab() as made:
        yield made


@pytest.fixture
async def instance(ves: Lab) -> Instance:
    return await ves.runtime.start(ves.plan())


async def test_more_memory_than_the_limit_is_killed_and_counted(
    ves: Lab, instance: Instance
) -> None:
    hog = await ves.run(instance, *HOG)
    assert hog.code == 128 + signal.SIGKILL
    usage = ves.runtime.cgroups.usage(instance.uid)
    await eventually(lambda: ves.runtime.cgroups.usage(instance.uid).oom_kills >= 1)
    assert usage.memory_limit_bytes == LIMITS.memory_bytes
    assert (await ves.run(instance, "true")).code == 0


async def test_oom_kills_are_counted_on_over_a_restart(ves: Lab) -> None:
    plan = ves.plan()
    usage = ves.runtime.cgroups.usage
    for kills in (1, 2):
        instance = await ves.runtime.start(plan)
        await ves.run(instance, *HOG)
        await eventually(partial(lambda wanted: usage(plan.uid).oom_kills >= wanted, kills))
        await ves.runtime.stop(instance, timeout_s=0)
    with pytest.raises(NotFound):
        ves.runtime.cgroups.usage(plan.uid)


async def test_more_processes_than_the_limit_are_refused(ves: Lab, instance: Instance) -> None:
    await ves.run(instance, "sh", "-c", "for i in $(seq 100); do sleep 60 & done")
    usage = ves.runtime.cgroups.usage(instance.uid)
    assert usage.pids_refused > 0
    assert usage.pids_limit == LIMITS.pids


async def test_cpu_time_is_throttled_to_the_limit(ves: Lab) -> None:
    plan = ves.plan(limits=Limits(cpu_millis=100, memory_bytes=64 * MIB, pids=64))
    instance = await ves.runtime.start(plan)
    process = await ves.runtime.execute(instance, ExecCommand(["sh", "-c", "while :; do :; done"]))
    usage = ves.runtime.cgroups.usage
    await eventually(lambda: usage(plan.uid).cpu_throttled_periods > 2)
    assert usage(plan.uid).cpu_throttled_seconds > 0
    assert usage(plan.uid).cpu_seconds > 0
    await process.close()


async def test_limits_change_live(ves: Lab, instance: Instance) -> None:
    bigger = Limits(cpu_millis=2000, memory_bytes=128 * MIB, pids=128)
    await ves.runtime.limit(instance.uid, bigger)
    usage = ves.runtime.cgroups.usage(instance.uid)
    assert (usage.memory_limit_bytes, usage.pids_limit) == (128 * MIB, 128)
    assert (await ves.run(instance, "sh", "-c", FILL.format(90))).code == 0
    with pytest.raises(Conflict, match="does not fit"):
        await ves.runtime.limit(instance.uid, LIMITS)
    assert ves.runtime.cgroups.usage(instance.uid).memory_limit_bytes == 128 * MIB
    await ves.run(instance, "rm", "/dev/shm/fill")
    await ves.runtime.limit(instance.uid, LIMITS)
    assert ves.runtime.cgroups.usage(instance.uid).memory_limit_bytes == LIMITS.memory_bytes


async def test_limits_of_a_ve_that_does_not_run_are_refused(ves: Lab) -> None:
    with pytest.raises(NotFound):
        await ves.runtime.limit(Uid("00000000-0000-4000-8000-000000000000"), LIMITS)


async def test_the_ve_can_not_raise_its_own_limits(ves: Lab, instance: Instance) -> None:
    script = """
        mkdir -p /tmp/c; mount -t cgroup -o memory none /tmp/c || mount -t cgroup2 none /tmp/c
        for f in $(find /tmp/c -name memory.limit_in_bytes -o -name memory.max); do
            echo 1000000000 >$f && echo raised $f
        done"""
    ran = await ves.run(instance, "sh", "-c", script)
    assert "raised" not in ran.out
    assert ves.runtime.cgroups.usage(instance.uid).memory_limit_bytes == LIMITS.memory_bytes


async def test_devices_of_the_host_can_not_be_opened(ves: Lab, instance: Instance) -> None:
    ran = await ves.run(
        instance, "sh", "-c", "mknod /tmp/disk b 254 0; cat /tmp/disk; echo x >/dev/null"
    )
    assert ran.out == ""
    assert (
        await ves.run(instance, "sh", "-c", "head -c 4 /dev/urandom | wc -c")
    ).out.strip() == "4"


async def test_dangerous_system_calls_are_denied(ves: Lab, instance: Instance) -> None:
    assert (await ves.run(instance, "unshare", "--user", "true")).code != 0
    assert (await ves.run(instance, "unshare", "--mount", "true")).code == 0


async def test_a_ve_has_loopback_without_a_card(ves: Lab, instance: Instance) -> None:
    assert (await ves.run(instance, "ping", "-c", "1", "127.0.0.1")).code == 0
    assert (await ves.run(instance, "ls", "/sys/class/net")).out.split() == ["lo"]


async def test_a_card_that_can_not_be_made_fails_the_start_with_the_reason(ves: Lab) -> None:
    nic = Nic("vrnobridge", "vrtest0", "02:00:00:00:00:07", "10.99.0.7", 24, "10.99.0.1", 1450)
    with pytest.raises(Exception, match="vrnobridge") as caught:
        await ves.runtime.start(ves.plan(nic=nic))
    assert "network" in caught.value.hint  # type: ignore[attr-defined]
    assert ves.groups() == []


@pytest.fixture
async def bridge() -> AsyncIterator[str]:
    """A bridge of our own name, without any port to the outside."""
    name = f"vrt{os.getpid() % 100_000}"
    await _ip("link", "add", name, "type", "bridge")
    try:
        await _ip("link", "set", name, "up")
        yield name
    finally:
        await _ip("link", "del", name)


def link_exists(name: str) -> bool:
    return Path(f"/sys/class/net/{name}").exists()


async def _ip(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec("ip", *argv)
    assert await process.wait() == 0


async def test_a_card_is_as_it_was_asked_for(ves: Lab, bridge: str) -> None:
    device = f"{bridge}v"
    nic = Nic(bridge, device, "02:00:00:00:00:07", "10.99.0.7", 24, "10.99.0.1", 1450)
    instance = await ves.runtime.start(ves.plan(nic=nic))
    shown = (await ves.run(instance, "ip", "addr", "show", "eth0")).out
    assert "inet 10.99.0.7/24" in shown
    assert "02:00:00:00:00:07" in shown
    assert "mtu 1450" in shown
    assert "default via 10.99.0.1" in (await ves.run(instance, "ip", "route")).out
    assert link_exists(device)
    await ves.runtime.stop(instance, timeout_s=0)
    await eventually(lambda: not link_exists(device))
