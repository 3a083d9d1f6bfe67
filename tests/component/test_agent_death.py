"""An agent that dies, at any step, and comes back."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from kit.agenthost import U1, U2, AgentHost, entry, host_set
from kit.manualclock import ManualClock
from veagent.ledger import Ledger
from veapi.errors import RemoteFailed
from veapi.model import Action, SetEntry, VEState


async def booted(folder: Path) -> AgentHost:
    host = AgentHost(folder)
    await host.boot()
    await host.hold_image()
    host.keeper.refresh()
    return host


async def running(folder: Path) -> AgentHost:
    host = await booted(folder)
    await host.manager.apply(host_set(1, entry()))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    await host.ledger.sync()
    return host


async def test_adopts_what_runs_and_restarts_nothing(tmp_path: Path) -> None:
    host = await running(tmp_path)
    pid = host.status().init_pid
    await host.crash()
    await host.boot()
    status = host.status()
    assert (status.state, status.init_pid) == (VEState.RUNNING, pid)
    assert not host.report().orphan
    await host.manager.apply(host_set(1, entry()))
    await ManualClock.settle()
    assert host.runtime.count("start") == 1
    await host.close()


async def test_answers_a_crash_of_an_adopted_ve_before_any_controller_speaks(
    tmp_path: Path,
) -> None:
    host = await running(tmp_path)
    await host.crash()
    await host.boot()
    host.runtime.kill(U1)
    await host.until(lambda: host.status().restarts == 1)
    await host.close()


async def test_a_crash_while_the_agent_was_away_is_answered_and_counted(tmp_path: Path) -> None:
    host = await running(tmp_path)
    await host.crash()
    host.runtime.kill(U1)
    await host.boot()
    await host.manager.apply(host_set(1, entry()))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    status = host.status()
    assert status.restarts == 1
    assert status.events[-1].message == "it ended while the agent was away; restarted"
    await host.close()


async def test_a_guest_that_powered_off_while_the_agent_was_away_stays_off_until_its_user_starts_it(
    tmp_path: Path,
) -> None:
    host = await running(tmp_path)
    await host.crash()
    host.runtime.power_off(U1)
    for _ in range(2):  # it is off for good, not for one start of the agent
        await host.boot()
        await host.manager.apply(host_set(1, entry()))
        await host.clock.advance(100)
        assert (host.status().state, host.status().reason) == (VEState.STOPPED, "PoweredOff")
        assert host.status().events[-1].message == "it powered itself off while the agent was away"
        await host.ledger.sync()
        await host.crash()
    await host.boot()
    await host.manager.apply(host_set(2, entry(generation=2, run_generation=2)))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert host.status().restarts == 0
    await host.close()


async def test_a_guest_that_rebooted_while_the_agent_was_away_comes_back(tmp_path: Path) -> None:
    host = await running(tmp_path)
    await host.crash()
    host.runtime.reboot(U1)
    await host.boot()
    await host.manager.apply(host_set(1, entry()))
    await host.until(lambda: host.status().restarts == 1)
    event = host.status().events[-1]
    assert event.reason == "Rebooted"
    assert event.message == "it rebooted itself while the agent was away; started again"
    await host.close()


async def test_a_guest_that_ended_as_its_host_went_down_comes_back_with_it(tmp_path: Path) -> None:
    host = await running(tmp_path)
    await host.crash()
    host.runtime.power_off(U1)
    host.boot_id = "boot-2"
    await host.boot()
    await host.manager.apply(host_set(1, entry()))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert host.status().events[-1].reason == "HostRestarted"
    await host.close()


async def test_after_a_reboot_without_controller_the_ledger_counts_after_15_s(
    tmp_path: Path,
) -> None:
    host = await running(tmp_path)
    await host.crash()
    host.runtime.kill(U1)
    host.boot_id = "boot-2"
    manager = await host.boot()
    task = asyncio.create_task(manager.run())
    await host.clock.advance(14.9)
    assert host.status().state is not VEState.RUNNING
    await host.clock.advance(0.2)
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert host.status().restarts == 0
    assert host.status().events[-1].reason == "HostRestarted"
    task.cancel()
    await host.close()


async def test_without_a_controller_the_ledger_stops_and_purges_as_it_says(tmp_path: Path) -> None:
    host = await running(tmp_path)
    host.runtime.slow("stop", 1000.0)
    await host.manager.apply(host_set(2, entry(action=Action.STOP), entry(U2)))
    await host.until(lambda: host.status().reason == "Stopping")
    await host.crash()
    await host.boot()
    await ManualClock.settle()
    assert host.status().reason == ""
    host.runtime.slow("stop", 0.0)
    await host.manager.apply(host_set(2, entry(action=Action.STOP), entry(U2)))
    await host.until(lambda: host.status().state is VEState.STOPPED)
    await host.close()


async def test_a_damaged_record_of_a_running_ve_costs_no_restart(tmp_path: Path) -> None:
    host = await running(tmp_path)
    await host.crash()
    path = tmp_path / "records"
    path.write_bytes(path.read_bytes().replace(U1.encode(), b"?" * 36))
    await host.boot()
    await host.manager.apply(host_set(2, entry(generation=2)))
    await host.until(lambda: host.status().observed_generation == 2)
    assert host.runtime.count("start") == 1
    assert (tmp_path / "records.bad").exists()
    await host.close()


@pytest.mark.parametrize("action", [Action.RUN, Action.PURGE])
async def test_a_partial_root_is_completed_before_a_start_and_goes_with_a_purge(
    tmp_path: Path, action: Action
) -> None:
    host = await booted(tmp_path)
    await host.crash()
    host.roots.leave_partial(U1)
    await host.boot()
    host.keeper.refresh()
    await host.manager.apply(host_set(1, entry(action=action)))
    await host.until(lambda: _settled(host, entry(action=action)))
    assert await host.roots.exists(U1) is (action is Action.RUN)
    assert await host.roots.all() == ([U1] if action is Action.RUN else [])
    await host.close()


STEPS = ["create", "attach", "start", "stop", "kill", "forget", "detach", "delete"]


class Killed(RemoteFailed):
    """Stands for the moment of death."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("action", STEPS)
async def test_death_at_any_step_of_a_life_converges(
    tmp_path: Path, action: str, *, after: bool
) -> None:
    """A life: create, start, restart, stop, purge. The agent dies once, at `action`, before or after its effect."""
    host = await booted(tmp_path)
    death = _die_at(host, action, after=after)
    for revision, wish in enumerate(
        [entry(), entry(restart_seq=1), entry(action=Action.STOP), entry(action=Action.PURGE)],
        start=1,
    ):
        for _ in range(2):
            await host.manager.apply(host_set(revision, wish))
            await host.until(partial(_over, host, death, wish))
            if not death.pending:
                break
            await host.crash()
            death.pending = False
            await host.boot()
        assert _settled(host, wish)
    assert death.happened or action == "kill"
    assert not host.runtime.known
    assert not host.network.attached
    assert not await host.roots.all()
    assert not Ledger(tmp_path, sleep=host.clock.sleep).load()[1]
    await host.close()


def _settled(host: AgentHost, wish: SetEntry) -> bool:
    report = host.report()
    match wish.action:
        case Action.RUN:
            seq = report.status.observed_restart_seq
            return report.status.state is VEState.RUNNING and seq == wish.restart_seq
        case Action.STOP:
            return report.status.state is VEState.STOPPED
        case _:
            return report.gone


class _Death:
    pending = False
    happened = False


def _over(host: AgentHost, death: _Death, wish: SetEntry) -> bool:
    return death.pending or _settled(host, wish)


def _die_at(host: AgentHost, action: str, *, after: bool) -> _Death:
    death = _Death()
    for fake in (host.runtime, host.roots, host.network):
        for name in (action,) if action != "kill" else ("stop",):
            real = getattr(fake, name, None)
            if real is None or name in ("call", "fail"):
                continue

            async def dying(
                *args: object, real: Callable[..., Awaitable[object]] = real, **kwargs: object
            ) -> object:
                if death.happened:
                    return await real(*args, **kwargs)
                death.happened = True
                if after:
                    await real(*args, **kwargs)
                death.pending = True
                return await asyncio.get_running_loop().create_future()

            setattr(fake, name, dying)
    return death
