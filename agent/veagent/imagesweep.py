"""Lets images go that nobody needs on this host.

Absence destroys nothing, here too: only an image that the controller's set *calls* spare may go, and only by a set of the
session that is open, never by one of the ledger or of a controller that speaks no more. Spare is said of a copy when
enough other hosts hold the image, or when somebody deleted it. And none goes that a VE here was made of, or that is being
read.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from veagent.ports import Images
from veapi.clock import Clock
from veapi.errors import VerackError
from veapi.model import Digest

log = structlog.get_logger()
ROUND_S = 10.0
LEAST_IDLE_S = 60.0
"""Not even a short pool takes one that came a moment ago: who imported it may not have said so yet."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the host knows: `spare` as the controller says, `used` by VEs, roots and snapshots here."""

    spare: Callable[[], frozenset[Digest]]
    used: Callable[[], frozenset[Digest]]
    gone: Callable[[], None]
    """Called after each that went."""


class ImageSweeper:
    """`keep_s`: for how long a spare image stays after its last use, as long as the pool has room."""

    def __init__(self, images: Images, needs: Needs, clock: Clock, *, keep_s: float) -> None:
        self._images = images
        self._needs = needs
        self._clock = clock
        self._keep_s = keep_s

    async def run(self) -> None:
        while True:
            await self._clock.sleep(ROUND_S)
            try:
                await self.sweep()
            except (VerackError, OSError) as error:
                log.warning("images not looked at", error=str(error))

    async def sweep(self) -> None:
        """One round. Of a short pool one image goes a round: its room comes back only some seconds later."""
        for digest in self._needs.used():
            self._images.touch(digest)
        idle = self._idle()
        least_s = self._keep_s
        due = [digest for seconds, digest in idle if seconds >= least_s]
        if not due and self._images.short():
            least_s = min(LEAST_IDLE_S, least_s)
            due = [digest for seconds, digest in idle if seconds >= least_s][:1]
        for digest in due:
            if self._is_idle(digest, least_s):  # nobody brought it again while another was removed
                await self._remove(digest)

    def _idle(self) -> list[tuple[float, Digest]]:
        """Those that may go and how long they were not used, the longest first."""
        may_go = self._needs.spare() - self._needs.used()
        found = [(self._images.idle_s(digest), digest) for digest in may_go]
        return sorted(((s, digest) for s, digest in found if s is not None), reverse=True)

    def _is_idle(self, digest: Digest, least_s: float) -> bool:
        idle_s = self._images.idle_s(digest)
        return idle_s is not None and idle_s >= least_s

    async def _remove(self, digest: Digest) -> None:
        if digest not in self._needs.spare() or digest in self._needs.used():
            return  # a newer set, while another was removed
        try:
            await self._images.delete(digest)
        except VerackError as error:
            log.warning("image not removed", image=digest, error=error.message)
            return
        log.info("image removed", image=digest)
        self._needs.gone()
