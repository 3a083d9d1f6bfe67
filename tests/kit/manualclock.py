"""A clock that goes on only when the test says so."""

import asyncio
import heapq
import itertools


class ManualClock:
    """Implements `veapi.clock.Clock`. Boot time starts at 1,000 s, wall time at 1,700,000,000."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def boot(self) -> float:
        return self._now

    def wall(self) -> float:
        return 1_700_000_000.0 + self._now

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._numbers), future))
        await future

    def jump(self, seconds: float) -> None:
        """Time passes and nobody runs meanwhile: a stall."""
        self._now += seconds

    async def advance(self, seconds: float) -> None:
        """Time passes; everybody who sleeps wakes at his time, and all get to run in between."""
        end = self._now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            if not future.done():
                future.set_result(None)
            await self.settle()
        self._now = max(self._now, end)
        await self.settle()

    @staticmethod
    async def settle() -> None:
        """Lets everybody run who can."""
        for _ in range(20):
            await asyncio.sleep(0)
