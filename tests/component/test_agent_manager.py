"""What an agent's core does with sets, crashes and its own death: on fakes and a clock that is told to move."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from kit.agenthost import DIGEST, U1, U2, AgentHost, entry, host_set
from kit.managed import has_set_up, id_base, ready_host, reasons, run_one
from kit.manualclock import ManualClock
from veagent.manager import GRACE_S, NETWORK_RECHECK_S
from veagent.worker import STEPS_AT_ONCE
from veapi.errors import Conflict
from veapi.model import Action, HostName, HostSet, Order, PeerHost, Uid, VEState


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[AgentHost]:
    async with ready_host(tmp_path) as host:
        yield host


async def test_a_wanted_ve_runs_with_its_own_address_and_ids(host: AgentHost) -> None:
    await host.manager.apply(host_set(1, entry(), entry(U2)))
    await host.until(lambda: len(host.runtime.running) == 2)
    status = host.status()
    assert (status.state, status.addresses) == (VEState.RUNNING, ("10.66.1.1",))
    assert status.observed_generation == 1
    assert status.init_pid > 0
    first, second = id_base(host, U1), id_base(host, U2)
    assert abs(first - second) >= 65_536
    assert reasons(host) == ["Started"]


async def test_the_way_up_is_reported_as_creating_then_running(host: AgentHost) -> None:
    host.runtime.slow("start", 1.0)
    await host.manager.apply(host_set(1, entry()))
    await host.until(lambda: host.status().reason == "Starting")
    assert host.status().state is VEState.CREATING
    await host.until(lambda: host.runtime.count("start") == 1)
    await host.clock.advance(1.0)
    assert host.status().state is VEState.RUNNING


async def test_an_older_set_loses(host: AgentHost) -> None:
    await host.manager.apply(host_set(5, entry()))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    held = await host.manager.apply(host_set(4, entry(action=Action.PURGE)))
    await ManualClock.settle()
    assert held == Order(incarnation=1, epoch=1, revision=5)
    assert host.status().state is VEState.RUNNING
    held = await host.manager.apply(host_set(1, entry(action=Action.STOP), epoch=2))
    await host.until(lambda: host.status().state is VEState.STOPPED)
    assert held.epoch == 2


async def test_absence_destroys_nothing_and_is_told(host: AgentHost) -> None:
    await run_one(host)
    await host.manager.apply(host_set(2))
    await ManualClock.settle()
    assert host.status().state is VEState.RUNNING
    assert host.report().orphan
    assert host.runtime.count("stop") + host.runtime.count("kill") + host.roots.count("delete") == 0
    await host.manager.apply(host_set(3, entry()))
    await ManualClock.settle()
    assert not host.report().orphan
    assert host.runtime.count("start") == 1


async def test_a_restart_is_carried_out_once_and_counts_as_none(host: AgentHost) -> None:
    await run_one(host)
    await host.manager.apply(host_set(2, entry(restart_seq=7)))
    await host.until(lambda: host.status().observed_restart_seq == 7)
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert host.runtime.calls[-2:] == [("stop", U1), ("start", U1)]
    assert host.status().restarts == 0
    assert reasons(host)[-1] == "Restarted"
    await host.manager.apply(host_set(3, entry(restart_seq=7)))
    await ManualClock.settle()
    assert host.runtime.count("start") == 2


async def test_limits_change_while_it_runs(host: AgentHost) -> None:
    await run_one(host)
    wish = entry(memory_bytes=128 << 20, disk_bytes=3 << 30, generation=2)
    await host.manager.apply(host_set(2, wish))
    await host.until(lambda: host.status().observed_generation == 2)
    assert host.runtime.running[U1].limits.memory_bytes == 128 << 20
    assert host.roots.usage()[U1].limit_bytes == 3 << 30
    assert host.runtime.count("start") == 1


async def test_a_refused_limit_is_told_and_tried_again(host: AgentHost) -> None:
    await run_one(host)
    host.runtime.fail("limit", U1, error=Conflict("64M are in use", hint="stop it first"))
    await host.manager.apply(host_set(2, entry(memory_bytes=1 << 20, generation=2)))
    await host.until(lambda: host.status().reason == "LimitsRefused")
    status = host.status()
    assert status.state is VEState.RUNNING
    assert status.observed_generation == 2
    assert "64M are in use" in status.message
    await host.clock.advance(1.0)
    await host.until(lambda: host.status().reason == "")
    assert host.runtime.running[U1].limits.memory_bytes == 1 << 20


async def test_stop_is_clean_and_purge_leaves_nothing(host: AgentHost) -> None:
    await run_one(host)
    await host.manager.apply(host_set(2, entry(action=Action.STOP)))
    await host.until(lambda: host.status().state is VEState.STOPPED)
    assert host.runtime.calls[-1] == ("stop", U1)
    await host.manager.apply(host_set(3, entry(action=Action.PURGE)))
    await host.until(lambda: host.report().gone)
    assert not host.runtime.known
    assert not await host.roots.all()
    assert not host.network.attached
    assert not host.ledger.load()[1]
    await host.manager.apply(host_set(4))
    assert host.manager.report(U1) is None


async def test_purge_does_not_wait_for_a_clean_stop_that_hangs(host: AgentHost) -> None:
    await run_one(host)
    host.runtime.slow("stop", 30.0)
    await host.manager.apply(host_set(2, entry(action=Action.STOP)))
    await host.until(lambda: host.status().reason == "Stopping")
    await host.manager.apply(host_set(3, entry(action=Action.PURGE)))
    await host.until(lambda: host.report().gone)


async def test_a_released_ve_leaves_its_root(host: AgentHost) -> None:
    await run_one(host)
    await host.manager.apply(host_set(2, entry(action=Action.RELEASE)))
    await host.until(lambda: host.report().gone)
    assert await host.roots.all() == [U1]
    assert not host.runtime.known
    await host.manager.apply(host_set(3))
    assert host.report().orphan
    assert await host.roots.all() == [U1]


async def test_a_purge_of_what_was_never_here_is_gone_at_once(host: AgentHost) -> None:
    await host.manager.apply(host_set(1, entry(action=Action.PURGE)))
    await ManualClock.settle()
    assert host.report().gone


async def test_ids_come_back_only_when_the_ve_is_gone(host: AgentHost) -> None:
    await run_one(host)
    base = id_base(host)
    host.roots.fail("delete", U1)
    await host.manager.apply(host_set(2, entry(action=Action.PURGE)))
    await host.until(lambda: host.status().reason == "DeleteFailed")
    assert host.status().state is VEState.DELETING
    assert base in host.manager._ground.ids._taken
    await host.clock.advance(1.0)
    await host.until(lambda: host.report().gone)
    assert base not in host.manager._ground.ids._taken


async def test_a_missing_image_is_fetched_once_for_all_who_wait(tmp_path: Path) -> None:
    host = AgentHost(tmp_path)
    host.peers.missing = True
    await host.boot()
    await host.manager.apply(host_set(1, entry(), entry(U2)))
    await host.until(lambda: "no host holds it" in host.status().message)
    assert (host.status().state, host.status().reason) == (VEState.CREATING, "ImageFetching")
    host.peers.missing = False
    await host.clock.advance(1.0)
    await host.until(lambda: len(host.runtime.running) == 2)
    assert host.peers.asked == 2
    assert [image.digest for image in host.manager.facts().images] == [DIGEST]
    await host.close()


async def test_the_network_is_looked_after_for_ever(host: AgentHost) -> None:
    """A filter that somebody flushed comes back."""
    await run_one(host)
    rounds = asyncio.create_task(host.manager.run())
    try:
        await ManualClock.settle()
        await host.clock.advance(GRACE_S)
        for _ in range(3):
            before = host.network.count("setup")
            await host.clock.advance(NETWORK_RECHECK_S)
            await host.until(partial(has_set_up, host, before + 1))
    finally:
        rounds.cancel()
        await asyncio.gather(rounds, return_exceptions=True)


async def test_few_start_at_once(tmp_path: Path) -> None:
    host = AgentHost(tmp_path)
    host.starts = 1
    await host.boot()
    await host.hold_image()
    host.keeper.refresh()
    host.runtime.slow("start", 1.0)
    await host.manager.apply(host_set(1, entry(), entry(U2)))
    await host.until(lambda: host.runtime.count("start") == 1)
    await ManualClock.settle()
    assert host.roots.count("create") == 1
    await host.clock.advance(1.0)
    await host.until(lambda: host.runtime.count("start") == 2)
    assert host.roots.count("create") == 2
    await host.clock.advance(1.0)
    await host.close()


async def test_an_unsafe_uid_is_no_path(host: AgentHost) -> None:
    await host.manager.apply(host_set(1, entry(Uid("1/../../x")), entry(U2)))
    await host.until(lambda: len(host.runtime.running) == 1)
    assert host.manager.report(Uid("1/../../x")) is None


async def test_a_running_ve_without_a_record_keeps_its_ids_to_itself(host: AgentHost) -> None:
    await run_one(host)
    taken = id_base(host, U1)
    await host.crash()
    for lost in (host.folder / "set", host.folder / "records"):
        lost.unlink()
    host.kernel_bases[U1] = taken
    await host.boot()
    await host.manager.apply(host_set(2, entry(U2)))
    await host.until(lambda: host.status(U2).state is VEState.RUNNING)
    assert id_base(host, U2) != taken


async def cut_while_wiring(host: AgentHost, newest: HostSet) -> None:
    """A session that breaks while the network of its set is being made."""
    before = host.network.count("setup")
    host.network.slow("setup", 1000.0)
    applying = asyncio.create_task(host.manager.apply(newest))
    await host.until(partial(has_set_up, host, before + 1))
    applying.cancel()
    await asyncio.gather(applying, return_exceptions=True)
    host.network.slow("setup", 0.0)


async def test_a_set_whose_session_broke_while_wiring_counts_after_15_s_without_controller(
    host: AgentHost,
) -> None:
    await cut_while_wiring(host, host_set(1, entry()))
    rounds = asyncio.create_task(host.manager.run())
    await ManualClock.settle()
    await host.clock.advance(GRACE_S)
    await host.until(lambda: host.status().state is VEState.RUNNING)
    rounds.cancel()


async def test_a_later_set_whose_session_broke_while_wiring_is_taken_up_too(
    host: AgentHost,
) -> None:
    await run_one(host)
    rounds = asyncio.create_task(host.manager.run())
    await ManualClock.settle()
    await host.clock.advance(GRACE_S)
    newer = host_set(2, entry(action=Action.STOP))
    peers = (PeerHost(name=HostName("h2"), address="10.88.0.12"),)
    await cut_while_wiring(host, msgspec.structs.replace(newer, peers=peers))
    await ManualClock.settle()
    await host.clock.advance(NETWORK_RECHECK_S)
    await host.until(lambda: host.status().state is VEState.STOPPED)
    rounds.cancel()


async def test_a_step_that_never_brings_what_it_should_costs_the_other_ves_nothing(
    host: AgentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = itertools.count()
    cpusets = host.manager._ground.cpusets
    monkeypatch.setattr(cpusets, "of", lambda uid: (next(places) if uid == U1 else 0,))
    await host.manager.apply(host_set(1, entry(), entry(U2)))
    await host.until(lambda: host.status(U2).state is VEState.RUNNING)
    assert host.runtime.count("pin") < 2 * STEPS_AT_ONCE
