"""What tests ask of an agent's core that has an image and takes wishes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kit.agenthost import U1, AgentHost, entry, host_set
from veapi.model import Uid, VEState


def reasons(host: AgentHost) -> list[str]:
    return [event.reason for event in host.status().events]


def id_base(host: AgentHost, uid: Uid = U1) -> int:
    worker = host.manager.worker(uid)
    assert worker is not None
    assert worker.record is not None
    return worker.record.id_base


def next_try_at(host: AgentHost) -> float:
    """On the host's clock since boot."""
    worker = host.manager.worker(U1)
    assert worker is not None
    assert worker._trouble is not None
    return worker._trouble.until


def has_set_up(host: AgentHost, times: int) -> bool:
    return host.network.count("setup") == times


async def run_one(host: AgentHost, **changes) -> None:
    await host.manager.apply(host_set(1, entry(**changes)))
    await host.until(lambda: host.status().state is VEState.RUNNING)


@asynccontextmanager
async def ready_host(folder: Path) -> AsyncIterator[AgentHost]:
    """It has booted and holds the image."""
    host = AgentHost(folder)
    await host.boot()
    await host.hold_image()
    host.keeper.refresh()
    yield host
    await host.close()
