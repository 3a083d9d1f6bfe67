"""How many VEs may be on their way up at once: more only lengthen the wait of each."""

import asyncio

from veapi.model import Uid


class Slots:
    """A place is kept from the root's creation to the end of the start, and given by whoever needs it no more."""

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)
        self._holders: set[Uid] = set()

    async def take(self, uid: Uid) -> None:
        """First come, first served; at once when it has one."""
        if uid in self._holders:
            return
        await self._free.acquire()
        self._holders.add(uid)

    def give(self, uid: Uid) -> None:
        """Nothing when it has none."""
        if uid in self._holders:
            self._holders.discard(uid)
            self._free.release()
