"""Ranges of host ids: every VE has 65,536 of its own, never shared, never given again before the VE is fully gone.

The records of the ledger are what is taken; this only finds what is free.
"""

import heapq
from collections.abc import Iterable

from veapi.errors import InvalidInput, RemoteFailed

RANGE_SIZE = 65_536
_IDS_END = 2**32 - 1


class IdRanges:
    """`count` ranges from the host id `base` on (of users and groups alike)."""

    def __init__(self, *, base: int, count: int) -> None:
        if base < RANGE_SIZE or count < 1 or base + count * RANGE_SIZE > _IDS_END:
            raise InvalidInput(
                f"ids: {count} ranges of {RANGE_SIZE} from {base} on are not within {RANGE_SIZE} and {_IDS_END}",
                hint="base = 1000000 and count = 4000 fit most hosts",
            )
        self._base = base
        self._limit = count
        self._next = 0
        self._free: list[int] = []
        self._taken: set[int] = set()

    def take(self, bases: Iterable[int]) -> None:
        """Marks ranges that are in use already, also ones that an earlier configuration gave."""
        self._taken.update(bases)

    def allocate(self) -> int:
        """First id of a range that nobody has. RemoteFailed when all are taken."""
        while True:
            base = self._candidate()
            if not self._overlaps(base):
                self._taken.add(base)
                return base

    def release(self, base: int) -> None:
        """The VE is gone; ranges outside of the configured ones are not given again."""
        if base not in self._taken:
            return
        self._taken.discard(base)
        index, offset = divmod(base - self._base, RANGE_SIZE)
        if offset == 0 and 0 <= index < self._next:
            heapq.heappush(self._free, index)

    def _candidate(self) -> int:
        if self._next < self._limit:
            index = self._next
            self._next += 1
        elif self._free:
            index = heapq.heappop(self._free)
        else:
            raise RemoteFailed(
                f"no id range is left on this host ({self._limit} are in use)",
                hint="raise `count` of [ids] in the agent's configuration, or delete VEs of this host",
            )
        return self._base + index * RANGE_SIZE

    def _overlaps(self, base: int) -> bool:
        if base in self._taken:
            return True
        return any(abs(base - taken) < RANGE_SIZE for taken in self._odd())

    def _odd(self) -> list[int]:
        return [base for base in self._taken if (base - self._base) % RANGE_SIZE]
