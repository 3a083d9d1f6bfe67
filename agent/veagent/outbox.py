"""What changed since the session last looked: marks, never a queue that grows."""

import asyncio

from veapi.model import Uid


class Outbox:
    """One reader: the session that is open now."""

    def __init__(self) -> None:
        self._uids: dict[Uid, None] = {}
        self._facts = False
        self._wake = asyncio.Event()

    def mark(self, uid: Uid) -> None:
        self._uids[uid] = None
        self._wake.set()

    def mark_facts(self) -> None:
        """What the host says of itself changed: its images."""
        self._facts = True
        self._wake.set()

    async def wait(self) -> None:
        """Until something is marked."""
        await self._wake.wait()

    def take(self) -> tuple[list[Uid], bool]:
        """All that is marked, in the order of the first marks, and whether the facts are."""
        taken = list(self._uids), self._facts
        self._uids = {}
        self._facts = False
        self._wake.clear()
        return taken
