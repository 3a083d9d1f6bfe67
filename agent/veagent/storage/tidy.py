"""Quota groups that nothing has any more are removed, though not at once: btrfs lets go of them late.

A deleted subvolume leaves its group when the cleaner has been there (30 s), or when the last snapshot or clone that holds what
it wrote has gone. Then the clone takes over what it holds of a deleted VE's bytes (`quotas.hand_over`). So each change looks again, at most twice a minute, and after the last one a task looks some times more.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import structlog

from veagent.storage import quotas
from veagent.storage.threads import to_end
from veapi.clock import Clock

log = structlog.get_logger()
_EVERY_S = 30.0
_PAUSES_S = (35.0, 35.0, 70.0, 140.0, 280.0)


class Tidier:
    """`uids`: the VEs of which something is here. `heirs`: who pays for what deleted ones leave, by groups."""

    def __init__(
        self,
        base: Path,
        uids: Callable[[], Iterable[str]],
        clock: Clock,
        *,
        heirs: Callable[[], Mapping[int, int]],
    ) -> None:
        self._base = base
        self._uids = uids
        self._clock = clock
        self._heirs = heirs
        self._next = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def settle(self, *, at_once: bool = False) -> bool:
        """Blocks. Also has wrong counts of full qgroups read anew. False: something is left for later."""
        quotas.recount(self._base)
        now = self._clock.boot()
        if now < self._next and not at_once:
            return False
        self._next = now + _EVERY_S
        stale = quotas.stale(self._base, self._uids)
        self._hand_over(filter(quotas.is_of_a_ve, stale))
        left = [group for group in stale if not quotas.remove_group(self._base, group)]
        return not left

    def _hand_over(self, deleted: Iterable[int]) -> None:
        """Also groups of VEs of another agent are among them: they have no heir here, and stay as they are."""
        groups = tuple(deleted)
        heirs = self._heirs() if groups else {}
        for group in groups:
            if group in heirs:
                quotas.hand_over(self._base, group, heirs[group])

    def later(self) -> None:
        """After something was removed: looks again when btrfs may have let go of it."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._settle_later(), name="quota-groups")

    async def _settle_later(self) -> None:
        for pause_s in _PAUSES_S:
            await self._clock.sleep(pause_s)
            try:
                if await to_end(self.settle, at_once=True):
                    return
            except OSError as error:
                log.warning("quota groups can't be looked at", error=str(error))

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
