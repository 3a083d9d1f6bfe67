"""Controllers that stand for the lead, on one model store and one clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kit.manualclock import ManualClock
from kit.modelstore import ModelEtcd, ModelStore
from vecontroller import leader
from vecontroller.leader import Leadership, acquire, keep


class Candidate:
    """A controller's part of it: a store of its own on the same etcd, and a shared clock."""

    def __init__(self, etcd: ModelEtcd, clock: ManualClock, name: str) -> None:
        self.store = ModelStore(etcd)
        self.clock = clock
        self.name = name
        self.term: Leadership | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def stand(self, patience_s: float = leader.TAKEOVER_AFTER_S) -> None:
        self._spawn(self._lead(patience_s))

    def die(self) -> None:
        for task in self.tasks:
            task.cancel()

    async def _lead(self, patience_s: float) -> None:
        self.term = await acquire(
            self.store,
            name=self.name,
            address=f"{self.name}:7443",
            run_id=f"run-{self.name}",
            clock=self.clock,
            patience_s=patience_s,
        )
        await keep(self.term)

    def _spawn(self, work) -> None:
        self.tasks.add(asyncio.create_task(work))

    @property
    def won(self) -> Leadership:
        """The term, once there is one."""
        assert self.term is not None
        return self.term

    @property
    def leads(self) -> bool:
        return self.term is not None and not self.term.deposed


@asynccontextmanager
async def two_candidates() -> AsyncIterator[tuple[Candidate, Candidate, ManualClock]]:
    """On the same etcd, by the same clock; neither stands yet."""
    etcd, clock = ModelEtcd(), ManualClock()
    candidates = Candidate(etcd, clock, "c1"), Candidate(etcd, clock, "c2")
    try:
        yield *candidates, clock
    finally:
        for candidate in candidates:
            candidate.die()
