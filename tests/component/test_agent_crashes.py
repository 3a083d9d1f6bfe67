"""What an agent's core does about VEs that end, fail or were switched off: on fakes and a clock that is told to move."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.agenthost import U1, AgentHost, entry, host_set
from kit.managed import next_try_at, ready_host, reasons, run_one
from kit.manualclock import ManualClock
from veapi.model import EventType, VEState


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[AgentHost]:
    async with ready_host(tmp_path) as host:
        yield host


async def test_a_crash_is_answered_at_once_and_told(host: AgentHost) -> None:
    await run_one(host)
    await host.clock.advance(60)
    first_pid = host.status().init_pid
    host.runtime.kill(U1)
    await host.until(lambda: host.runtime.count("start") == 2)
    await host.until(lambda: host.status().state is VEState.RUNNING)
    status = host.status()
    assert status.restarts == 1
    assert status.init_pid != first_pid
    event = status.events[-1]
    assert (event.type, event.reason) == (EventType.WARNING, "Crashed")
    assert event.message == "init was killed by signal 9; restarted"


async def test_a_crash_right_after_the_start_is_answered_at_once_too(host: AgentHost) -> None:
    await run_one(host)
    host.runtime.kill(U1)
    await host.until(lambda: host.status().restarts == 1)


async def test_ends_right_after_the_start_are_backed_off(host: AgentHost) -> None:
    await run_one(host)
    host.runtime.kill(U1, wait_status=1 << 8)
    await host.until(lambda: host.status().restarts == 1)
    waits = []
    for _ in range(8):
        host.runtime.kill(U1, wait_status=1 << 8)
        await host.until(lambda: host.status().state is VEState.FAILED)
        status = host.status()
        assert status.reason == "ExitedAtOnce"
        assert "init exited with 1 right after its start" in status.message
        assert "next try at" in status.message
        waits.append(next_try_at(host) - host.clock.boot())
        starts = host.runtime.count("start")
        await host.clock.advance(waits[-1] - 0.5)
        assert host.runtime.count("start") == starts
        await host.clock.advance(0.5)
        await host.until(lambda: host.status().state is VEState.RUNNING)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_long_life_ends_the_back_off(host: AgentHost) -> None:
    await run_one(host)
    for _ in range(2):
        host.runtime.kill(U1)
        await ManualClock.settle()
        await host.clock.advance(5)
        await host.until(lambda: host.status().state is VEState.RUNNING)
    await host.clock.advance(100)
    host.runtime.kill(U1)
    await host.until(lambda: host.status().restarts == 3)


async def test_a_ve_that_its_guest_switched_off_stays_off_until_its_user_starts_it(
    host: AgentHost,
) -> None:
    await run_one(host)
    host.runtime.power_off(U1)
    await host.until(lambda: host.status().state is VEState.STOPPED)
    assert host.status().reason == "PoweredOff"
    await host.manager.apply(host_set(2, entry()))
    await host.clock.advance(100)
    assert host.status().reason == "PoweredOff"
    await host.manager.apply(host_set(3, entry(generation=2)))
    await host.until(lambda: host.status().observed_generation == 2)
    assert host.status().reason == "PoweredOff"
    await host.manager.apply(host_set(4, entry(generation=3, run_generation=3)))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert host.status().restarts == 0


async def test_a_reboot_from_inside_starts_it_again(host: AgentHost) -> None:
    await run_one(host)
    host.runtime.reboot(U1)
    await host.until(lambda: host.status().restarts == 1)
    assert reasons(host)[-1] == "Rebooted"


async def test_a_failed_start_is_told_and_tried_again(host: AgentHost) -> None:
    host.runtime.fail("start", U1, times=2)
    await host.manager.apply(host_set(1, entry()))
    await host.until(lambda: host.status().state is VEState.FAILED)
    status = host.status()
    assert status.reason == "StartFailed"
    assert "start failed on command" in status.message
    assert status.observed_generation == 1
    await host.clock.advance(1.0)
    await host.until(lambda: host.runtime.count("start") == 2)
    await host.clock.advance(1.0)
    assert host.runtime.count("start") == 2
    await host.clock.advance(1.0)
    await host.until(lambda: host.status().state is VEState.RUNNING)


async def test_a_new_wish_ends_the_back_off(host: AgentHost) -> None:
    host.runtime.fail("start", U1, times=1)
    await host.manager.apply(host_set(1, entry()))
    await host.until(lambda: host.status().state is VEState.FAILED)
    await host.manager.apply(host_set(2, entry(generation=2)))
    await host.until(lambda: host.status().state is VEState.RUNNING)


async def test_an_orphan_that_crashes_stays_down_and_is_told(host: AgentHost) -> None:
    await run_one(host)
    await host.manager.apply(host_set(2))
    host.runtime.kill(U1)
    await host.until(lambda: host.status().state is VEState.STOPPED)
    assert host.status().events[-1].message == "init was killed by signal 9; no set names it"
    assert host.runtime.count("start") == 1


async def test_a_nudge_during_a_back_off_wakes_the_worker_once(host: AgentHost) -> None:
    host.runtime.fail("start", U1, times=9)
    await host.manager.apply(host_set(1, entry()))
    await host.until(lambda: host.status().state is VEState.FAILED)
    worker = host.manager.worker(U1)
    assert worker is not None
    turns = 0
    look = worker.step_now

    def counted() -> object:
        nonlocal turns
        turns += 1
        return look()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "step_now", counted)
        host.manager.images_changed()
        await ManualClock.settle()
    assert turns <= 2
