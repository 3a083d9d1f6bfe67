"""An agent that dies before it could write down what it has just done: the next one tells and does what is right."""

import asyncio
from pathlib import Path

import pytest

from kit.agenthost import U1, AgentHost, entry, host_set
from kit.manualclock import ManualClock
from veapi.model import Action, SetEntry, VEState


async def booted(folder: Path) -> AgentHost:
    host = AgentHost(folder)
    await host.boot()
    await host.hold_image()
    host.keeper.refresh()
    return host


async def just_started(folder: Path) -> AgentHost:
    """Dead at the moment at which the VE is up."""
    host = await booted(folder)
    await host.manager.apply(host_set(1, entry()))
    await host.until(lambda: host.runtime.running)
    await host.crash()
    return host


async def running(folder: Path) -> AgentHost:
    host = await booted(folder)
    await host.manager.apply(host_set(1, entry()))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    await host.ledger.sync()
    return host


def story(host: AgentHost) -> list[str]:
    return [event.reason for event in host.status().events]


def never_durable(host: AgentHost) -> None:
    """Records stay in memory, and whoever waits for them waits for ever."""

    async def sync() -> None:
        await asyncio.get_running_loop().create_future()

    host.ledger.sync = sync  # type: ignore[method-assign]


async def test_a_start_that_was_not_written_down_is_told_once(tmp_path: Path) -> None:
    host = await just_started(tmp_path)
    for _ in range(2):
        await host.boot()
        await host.manager.apply(host_set(1, entry()))
        await host.until(lambda: host.status().observed_generation == 1)
        assert (host.status().state, story(host)) == (VEState.RUNNING, ["Started"])
        await host.ledger.sync()
        await host.crash()
    assert host.runtime.count("start") == 1


async def test_a_guest_that_powers_off_right_after_a_start_stays_off(tmp_path: Path) -> None:
    host = await just_started(tmp_path)
    host.runtime.power_off(U1)
    await host.boot()
    await host.manager.apply(host_set(1, entry()))
    await host.clock.advance(100)
    assert (host.status().state, host.status().reason) == (VEState.STOPPED, "PoweredOff")
    assert story(host) == ["Started", "PoweredOff"]
    assert host.runtime.count("start") == 1
    await host.close()


async def test_a_ve_that_is_killed_right_after_a_start_is_restarted_and_counted(
    tmp_path: Path,
) -> None:
    host = await just_started(tmp_path)
    host.runtime.kill(U1)
    await host.boot()
    await host.manager.apply(host_set(1, entry()))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert (host.status().restarts, story(host)) == (1, ["Started", "Crashed"])
    await host.close()


async def test_a_start_that_never_came_about_is_no_end(tmp_path: Path) -> None:
    """Though the run before it ended by the guest's own poweroff."""
    host = await running(tmp_path)
    host.runtime.power_off(U1)
    await host.until(lambda: host.status().reason == "PoweredOff")
    host.runtime.slow("start", 1000.0)
    wish = entry(generation=2, run_generation=2)
    await host.manager.apply(host_set(2, wish))
    await host.until(lambda: host.runtime.count("start") == 2)
    await host.crash()
    host.runtime.slow("start", 0.0)
    await host.boot()
    await host.manager.apply(host_set(2, wish))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert host.status().restarts == 0
    assert story(host) == ["Started", "PoweredOff", "Started"]
    await host.close()


async def test_a_restart_after_a_crash_is_counted_though_the_agent_died_in_it(
    tmp_path: Path,
) -> None:
    host = await running(tmp_path)
    host.runtime.slow("start", 1000.0)
    host.runtime.kill(U1)
    await host.until(lambda: host.runtime.count("start") == 2)
    await host.crash()
    host.runtime.slow("start", 0.0)
    await host.boot()
    await host.manager.apply(host_set(1, entry()))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert (host.status().restarts, story(host)) == (1, ["Started", "Crashed"])
    await host.close()


@pytest.mark.parametrize(
    ("wish", "state"),
    [
        (entry(action=Action.STOP, generation=2), VEState.STOPPED),
        (entry(restart_seq=1), VEState.RUNNING),
    ],
    ids=["stop", "restart"],
)
async def test_what_we_stopped_is_no_crash_though_it_was_not_written_down(
    tmp_path: Path, wish: SetEntry, state: VEState
) -> None:
    host = await running(tmp_path)
    never_durable(host)
    await host.manager.apply(host_set(2, wish))
    await host.until(lambda: not host.runtime.running)
    await host.crash()
    await host.boot()
    await host.manager.apply(host_set(2, wish))
    await host.until(lambda: host.status().state is state)
    await ManualClock.settle()
    assert "Crashed" not in story(host)
    assert "Stopped" in story(host)
    assert host.status().restarts == 0
    await host.close()


async def test_a_stop_and_a_live_change_wait_for_no_disk(tmp_path: Path) -> None:
    host = await running(tmp_path)
    never_durable(host)
    await host.manager.apply(host_set(2, entry(generation=2, memory_bytes=96 << 20)))
    await host.until(lambda: host.runtime.running[U1].limits.memory_bytes == 96 << 20)
    await host.manager.apply(host_set(3, entry(action=Action.STOP, generation=3)))
    await host.until(lambda: host.status().state is VEState.STOPPED)
    await host.crash()


async def test_a_limit_that_was_set_and_not_written_down_is_set_back_when_it_is_not_wanted(
    tmp_path: Path,
) -> None:
    host = await running(tmp_path)
    never_durable(host)
    more = entry(generation=2, memory_bytes=96 << 20)
    await host.manager.apply(host_set(2, more))
    await host.until(lambda: host.runtime.running[U1].limits.memory_bytes == 96 << 20)
    back = entry(generation=3)
    await host.ledger.save_set(host_set(3, back))
    await host.crash()
    await host.boot()
    await host.manager.apply(host_set(3, back))
    await host.until(lambda: host.status().observed_generation == 3)
    assert host.runtime.running[U1].limits.memory_bytes == back.spec.memory_bytes
    await host.close()
