"""What creates on their way will take, so that they don't take it from each other.

The store decides in the end: a transaction asks that an address is free. This is what spares a hundred creates at once
from fighting about the lowest free address, and keeps an image from being deleted under a VE that is being created. What
a create of unknown outcome would have taken stays reserved for a while.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from veapi.clock import Clock
from veapi.errors import TimedOut
from veapi.model import Digest
from vecontroller.store.port import Ambiguous

UNKNOWN_HELD_S = 60.0
"""Longer than a write to the store can be under way."""


@dataclass(slots=True)
class _Taken:
    ip: str
    digest: Digest
    until: float = float("inf")


class InFlight:
    """In memory only: of this leader's creates."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._taken: list[_Taken] = []

    def addresses(self) -> set[str]:
        return {taken.ip for taken in self._live()}

    def uses(self, digest: Digest) -> bool:
        """Whether a VE may be on its way that uses the image."""
        return any(taken.digest == digest for taken in self._live())

    @contextmanager
    def holding(self, ip: str, digest: Digest) -> Iterator[None]:
        """Within it both are taken; after an outcome that nobody knows for 60 s more."""
        taken = _Taken(ip, digest)
        self._taken.append(taken)
        try:
            yield
        except (Ambiguous, TimedOut, asyncio.CancelledError):
            taken.until = self._clock.boot() + UNKNOWN_HELD_S
            raise
        except BaseException:
            self._taken.remove(taken)
            raise
        self._taken.remove(taken)

    def _live(self) -> list[_Taken]:
        now = self._clock.boot()
        self._taken = [taken for taken in self._taken if taken.until > now]
        return self._taken
