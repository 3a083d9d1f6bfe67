"""A host that was lost and is back: what it has of VEs that live elsewhere since, and of one that comes back to it."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.agenthost import U1, U2, AgentHost, entry, host_set
from kit.managed import ready_host, reasons
from veapi.model import Action, Network, PeerHost, SetEntry, VEState


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[AgentHost]:
    async with ready_host(tmp_path) as host:
        yield host


def placed(generation: int, *, since: int = 0, **changes: Any) -> SetEntry:
    return msgspec.structs.replace(
        entry(**changes), placement_generation=generation, root_since=since
    )


async def test_a_ve_that_comes_back_begins_anew_and_only_once(host: AgentHost) -> None:
    await host.manager.apply(host_set(1, placed(1)))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    await host.manager.apply(host_set(2, placed(3, since=3)))
    await host.until(lambda: "RootReplaced" in reasons(host))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    await host.manager.apply(host_set(3, placed(4, since=3)))
    await host.until(lambda: host.status().placement_generation == 4)
    assert reasons(host).count("RootReplaced") == 1


async def test_one_whose_old_root_is_kept_here_begins_anew_too(host: AgentHost) -> None:
    await host.manager.apply(host_set(1, placed(1)))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    await host.manager.apply(host_set(2, placed(1, action=Action.KEEP)))
    await host.until(lambda: host.manager.report(U1).kept)  # type: ignore[union-attr]
    await host.manager.apply(host_set(3, placed(3, since=3)))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert reasons(host).count("RootReplaced") == 1


async def test_what_ends_here_waits_neither_for_the_network_nor_for_starts(
    host: AgentHost,
) -> None:
    await host.manager.apply(host_set(1, placed(1)))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    seen: list[bool] = []
    setup = host.network.setup

    async def look(network: Network, peers: Sequence[PeerHost]) -> None:
        await host.until(lambda: U1 not in host.runtime.running)
        seen.append(U2 in host.runtime.running)
        await setup(network, peers)

    host.network.setup = look  # type: ignore[method-assign]
    host.manager._wires = None
    await host.manager.apply(host_set(2, placed(1, action=Action.KEEP), entry(U2)))
    await host.until(lambda: U2 in host.runtime.running)
    assert seen == [False]


async def test_a_ve_that_begins_is_announced(host: AgentHost) -> None:
    await host.manager.apply(host_set(1, placed(2, since=2)))
    await host.until(lambda: host.status().state is VEState.RUNNING)
    assert host.network.announced == [U1]
