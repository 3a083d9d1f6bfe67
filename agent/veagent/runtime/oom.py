"""Kills for want of memory in a running VE, told by the kernel."""

import asyncio
from collections.abc import Callable

from veagent.cgroup.oom import OomNotice

_LOOKS_S = (0.0, 0.05, 0.5)
"""On v1 the kernel tells before it has counted: so looks follow."""


class OomWatch:
    """`count` gives the kills so far. Needs the running event loop; `close` when the VE has ended."""

    def __init__(self, notice: OomNotice, count: Callable[[], int]) -> None:
        self._notice = notice
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._looked = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        self._closed = False
        self._loop.add_reader(notice.fileno(), self._noticed)

    async def beyond(self, after: int) -> int:
        """Waits until there were more than `after` kills, and gives how many there were."""
        while True:
            self._looked.clear()
            kills = self._count()
            if kills > after:
                return kills
            await self._looked.wait()

    def close(self) -> None:
        """Who waits still waits for ever."""
        if self._closed:
            return
        self._closed = True
        for timer in self._timers:
            timer.cancel()
        self._loop.remove_reader(self._notice.fileno())
        self._notice.close()

    def _noticed(self) -> None:
        self._notice.take()
        for timer in self._timers:
            timer.cancel()
        self._timers = [self._loop.call_later(delay, self._looked.set) for delay in _LOOKS_S]
