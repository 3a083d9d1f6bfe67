"""An agent whose set is of a restored store: nothing changes before it is confirmed, all of it does afterwards."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from kit.agenthost import U1, U2, AgentHost, entry, host_set
from kit.managed import ready_host, run_one
from veapi.model import Action, HostSet, VEState


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[AgentHost]:
    async with ready_host(tmp_path) as made:
        yield made


def restored(made: HostSet) -> HostSet:
    order = msgspec.structs.replace(made.order, incarnation=2)
    return msgspec.structs.replace(made, order=order, unconfirmed=True)


def confirmed(made: HostSet) -> HostSet:
    order = msgspec.structs.replace(made.order, incarnation=2)
    return msgspec.structs.replace(made, order=order)


async def test_nothing_is_removed_or_made_until_the_store_is_confirmed(host: AgentHost) -> None:
    await run_one(host)
    asked = (entry(action=Action.PURGE), entry(U2))
    await host.manager.apply(restored(host_set(1, *asked)))
    await host.clock.advance(1.0)
    assert host.status().state is VEState.RUNNING
    assert host.status().reason == "Unconfirmed"
    assert (host.status(U2).state, host.status(U2).reason) == (VEState.STOPPED, "Unconfirmed")
    assert [report.gone for report in host.manager.reports()] == [False, False]
    assert host.manager.spare_images() == frozenset()

    await host.manager.apply(confirmed(host_set(2, *asked)))
    await host.until(lambda: host.status(U2).state is VEState.RUNNING)
    await host.until(lambda: host.report(U1).gone)


async def test_what_was_deleted_before_is_not_called_gone_to_a_store_that_forgot(
    host: AgentHost,
) -> None:
    await host.manager.apply(restored(host_set(1, entry(action=Action.PURGE))))
    await host.clock.advance(1.0)
    assert not host.report(U1).gone


async def test_a_crash_is_answered_as_it_ran(host: AgentHost) -> None:
    await run_one(host, generation=5)
    await host.manager.apply(restored(host_set(1, entry(generation=3, ip="10.66.7.7"))))
    host.runtime.kill(U1)
    await host.until(lambda: host.status().restarts == 1)
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert host.status().addresses == (entry().ip,)
    assert host.status().observed_generation == 5


async def test_a_new_agent_goes_by_it_too(host: AgentHost) -> None:
    await run_one(host)
    await host.manager.apply(restored(host_set(1, entry(action=Action.STOP), entry(U2))))
    await host.crash()
    manager = await host.boot()
    running = asyncio.create_task(manager.run())
    await host.clock.advance(60)
    running.cancel()
    await host.clock.advance(1.0)
    assert host.status().state is VEState.RUNNING
    assert host.status(U2).state is VEState.STOPPED
