"""An agent that is killed before or after any call of its ports or of its ledger, in a life with everything in it."""

import asyncio
from collections.abc import Awaitable, Collection
from pathlib import Path

import pytest
from hypothesis import settings

from kit.agenthost import U1, U2, AgentHost, host_set
from kit.lifestory import Chapter, story
from kit.mortal import Deathbed
from veagent.ledger import Ledger
from veagent.reconcile import Nothing
from veagent.record import beside_disk_and_rates
from veapi.model import SetEntry, Uid

State = dict[str, dict[str, object]]


class Life:
    """One agent after the other on one host, until the story is over."""

    def __init__(self, folder: Path, at: Collection[int], *, after: bool) -> None:
        self.host = AgentHost(folder)
        self.bed = Deathbed(at, after=after, die=self._die)
        self.host.mortal = self.bed.mortal
        self._dead = asyncio.Event()

    async def _die(self, _: str) -> None:
        self._dead.set()
        await asyncio.get_running_loop().create_future()

    async def tell(self) -> list[State]:
        """The host's state after each chapter."""
        await self.host.hold_image()
        await self._boot()
        states = []
        for number, chapter in enumerate(story(), start=1):
            if chapter.name in ("rebuild", "clone"):
                self.host.roots.write(U1, f"as of {chapter.name}")
            await self._live(number, chapter)
            states.append(await self._state())
        return states

    async def close(self) -> None:
        self.host.mortal = lambda port: port
        await self.host.close()

    async def _boot(self) -> None:
        while not await self._survives(self.host.boot()):
            await self._bury()
        self.host.keeper.refresh()

    async def _live(self, number: int, chapter: Chapter) -> None:
        while not await self._survives(self._carry_out(number, chapter)):
            await self._bury()
            await self._boot()

    async def _carry_out(self, number: int, chapter: Chapter) -> None:
        await self.host.manager.apply(host_set(number, *chapter.wishes))
        await self.host.until(lambda: all(self._is_over(wish) for wish in chapter.wishes))

    async def _survives(self, work: Awaitable[object]) -> bool:
        task, death = asyncio.ensure_future(work), asyncio.ensure_future(self._dead.wait())
        await asyncio.wait((task, death), return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if not self._dead.is_set():
            await task
            return True
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return False

    async def _bury(self) -> None:
        await self.host.crash()
        self._dead.clear()

    def _is_over(self, wish: SetEntry) -> bool:
        worker = self.host.manager.worker(wish.uid)
        if worker is None or not isinstance(worker.step_now(), Nothing):
            return False
        report = worker.report()
        return report.gone or report.status.observed_generation == wish.generation

    async def _state(self) -> State:
        """All that a user or the kernel could tell."""
        return {uid: await self._state_of(uid) for uid in (U1, U2)}

    async def _state_of(self, uid: Uid) -> dict[str, object]:
        host = self.host
        report = host.manager.report(uid)
        running = host.runtime.running.get(uid)
        status = report.status if report else None
        return {
            "report": report and (report.gone, report.kept),
            "status": status
            and (
                status.state,
                status.reason,
                status.observed_root_seq,
                status.observed_restart_seq,
                status.restarts,
                [(each.tag, each.seq, each.error) for each in status.snapshots],
            ),
            "running": running
            and (beside_disk_and_rates(running.limits), running.frozen, running.hostname),
            "root": host.roots.read(uid) if await host.roots.exists(uid) else None,
            "disk": uid in host.roots.usage() and host.roots.usage()[uid].limit_bytes,
            "attached": uid in host.network.attached and (running is not None or status is None),
            "rates": host.network.rates.get(uid, (0, 0)) if running else None,
        }


async def told(folder: Path, at: Collection[int], *, after: bool) -> tuple[Life, list[State]]:
    life = Life(folder, at, after=after)
    try:
        return life, await life.tell()
    finally:
        await life.close()


def _difference(one: State, other: State) -> list[tuple[str, object, object]]:
    return [
        (key, one[uid][key], other[uid][key])
        for uid in one
        for key in one[uid]
        if one[uid][key] != other[uid][key]
    ]


def nothing_is_left(life: Life) -> bool:
    host = life.host
    left = [
        *host.runtime.running,
        *host.runtime.known,
        *host.network.attached,
        *host.roots.path(U1).parent.iterdir(),
        *Ledger(host.folder, sleep=host.clock.sleep).load()[1],
    ]
    assert not left
    return True


def _stride() -> int:
    """Each call in `make test`, one in eight at a desk: see conftest."""
    return 1 if settings.default is not None and settings.default.max_examples >= 100 else 8


@pytest.mark.parametrize("again", [None, 1, 4], ids=["once", "and at once again", "and again"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_an_agent_killed_at_any_call_leaves_the_same_host_in_the_end(
    tmp_path: Path, *, after: bool, again: int | None
) -> None:
    undisturbed, states = await told(tmp_path / "undisturbed", (), after=after)
    assert nothing_is_left(undisturbed)
    calls = len(undisturbed.bed.calls)
    assert calls > 60
    for number in range(1 + (again or 0) % _stride(), calls + 1, _stride()):
        at = {number} if again is None else {number, number + again}
        life, found = await told(tmp_path / str(number), at, after=after)
        for chapter, one, other in zip(story(), found, states, strict=True):
            assert _difference(one, other) == [], f"{chapter.name}: killed at {life.bed.deaths}"
        assert nothing_is_left(life)
        assert life.bed.deaths
