"""Kills for want of memory in a running VE, told by the kernel.

The kernel may tell a hundred times a second of a VE that lives at its limit, without any kill. So after each word we look a
few times, and listen again after the last look.
"""

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
        self._listen()

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

    def _listen(self) -> None:
        self._loop.add_reader(self._notice.fileno(), self._noticed)

    def _noticed(self) -> None:
        self._loop.remove_reader(self._notice.fileno())
        self._notice.take()
        self._timers = [self._loop.call_later(delay, self._looked.set) for delay in _LOOKS_S]
        self._timers.append(self._loop.call_later(_LOOKS_S[-1], self._listen))
