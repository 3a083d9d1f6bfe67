"""What creates on their way will take, so that they don't take it from each other.

The store decides in the end: a transaction asks that an address is free. This is what spares a hundred creates at once
from fighting about the lowest free address, and keeps an image from being deleted under a VE that is being created, and a
VE from being purged under its clone. What a create of unknown outcome would have taken stays reserved for a while.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from veapi.clock import Clock
from veapi.model import Digest, Uid
from vecontroller.holding import UNKNOWN_HELD_S, Holding

__all__ = ["UNKNOWN_HELD_S", "InFlight"]
NOBODY = Uid("")


class InFlight:
    """In memory only: of this leader's creates."""

    def __init__(self, clock: Clock) -> None:
        self._holding: Holding[tuple[str, Digest, Uid]] = Holding(clock)

    def addresses(self) -> set[str]:
        return {ip for ip, _, _ in self._holding.live()}

    def uses(self, digest: Digest) -> bool:
        """Whether a VE may be on its way that uses the image."""
        return any(used == digest for _, used, _ in self._holding.live())

    def clones(self, uid: Uid) -> bool:
        """Whether a clone of that VE may be on its way."""
        return any(source == uid for _, _, source in self._holding.live())

    @contextmanager
    def holding(self, ip: str, digest: Digest, source: Uid = NOBODY) -> Iterator[None]:
        """Within it all are taken; after an outcome that nobody knows for 60 s more. `source`: what a clone is made of."""
        with self._holding.holding((ip, digest, source)):
            yield
