"""The clock port. Only `boot` decides anything; `wall` is for people."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Time as the cores see it."""

    def boot(self) -> float:
        """Seconds since boot, also while suspended (CLOCK_BOOTTIME)."""
        ...

    def wall(self) -> float:
        """Unix seconds."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The kernel's clocks."""

    def boot(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
