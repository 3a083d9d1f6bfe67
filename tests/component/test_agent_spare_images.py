"""Which images an agent lets go: only by a set that a controller sent in this run."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from kit.agenthost import DIGEST, AgentHost, entry, host_set
from veapi.errors import RemoteFailed
from veapi.model import HostSet, WantedImage


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[AgentHost]:
    host = AgentHost(tmp_path)
    await host.boot()
    yield host
    await host.close()


def spare(made: HostSet) -> HostSet:
    image = WantedImage(digest=DIGEST, blob_digest=DIGEST, spare=True)
    return msgspec.structs.replace(made, images=(image,))


async def test_what_a_set_calls_spare_is_spare_until_the_next_one(host: AgentHost) -> None:
    assert host.manager.spare_images() == frozenset()
    await host.manager.apply(spare(host_set(1)))
    assert host.manager.spare_images() == {DIGEST}
    await host.manager.apply(host_set(2))
    assert host.manager.spare_images() == frozenset()


async def test_an_older_set_and_one_of_the_ledger_call_nothing_spare(host: AgentHost) -> None:
    await host.manager.apply(spare(host_set(5)))
    await host.crash()
    await host.boot()
    assert host.manager.spare_images() == frozenset()
    await host.manager.apply(spare(host_set(4)))
    assert host.manager.spare_images() == frozenset()
    await host.manager.apply(spare(host_set(5)))
    assert host.manager.spare_images() == {DIGEST}


async def test_a_spare_image_is_not_fetched(host: AgentHost) -> None:
    await host.manager.apply(spare(host_set(1)))
    await host.clock.advance(1)
    assert host.peers.asked == 0


async def test_the_image_of_a_ve_here_is_used_also_after_its_entry_has_gone(
    host: AgentHost,
) -> None:
    await host.hold_image()
    host.manager.image_added()
    await host.manager.apply(host_set(1, entry()))
    await host.until(lambda: host.manager.worker(entry().uid).record)  # type: ignore[union-attr]
    assert host.manager.used_images() == {DIGEST}
    await host.manager.apply(spare(host_set(2)))
    assert host.manager.used_images() == {DIGEST}


async def test_an_image_that_is_wanted_again_while_it_goes_is_fetched_again(
    host: AgentHost,
) -> None:
    await host.hold_image()
    host.manager.image_added()
    await host.images.delete(DIGEST)
    await host.manager.apply(host_set(1, entry()))  # the keeper does not know yet that it went
    host.manager.image_added()
    await host.until(lambda: host.peers.asked)
    await host.until(lambda: host.keeper.holds(DIGEST))


async def test_a_host_whose_disk_fails_takes_nothing_new_and_says_so(host: AgentHost) -> None:
    def fails() -> int:
        raise RemoteFailed("reading the size of the pool: Input/output error")

    host.roots.capacity_bytes = fails  # type: ignore[method-assign]
    facts = host.manager.facts()
    assert "Input/output error" in facts.refuses
    assert facts.capacity.disk_bytes == 0


async def test_without_a_session_nothing_is_spare_until_a_controller_says_so_again(
    host: AgentHost,
) -> None:
    await host.manager.apply(spare(host_set(1)))
    host.manager.unheard()
    assert host.manager.spare_images() == frozenset()
    await host.manager.apply(spare(host_set(1)))
    assert host.manager.spare_images() == {DIGEST}
