"""Ends the time of deleted VEs: woken by the clock alone, decides from the whole view.

A deleted VE whose time has come is marked; its host then removes it and says so, and only that takes the mark away
(`vecontroller.observed`). Time is the wall clock's here, the one place where that decides: hours have to outlive every
process. A clock that is wrong purges early or late, at most by as much as it is wrong; so a host's clock never counts,
only that of the controller.
"""

from collections.abc import Callable, Iterator
from itertools import chain

import msgspec
import structlog

from veapi.clock import Clock
from veapi.errors import Conflict, Unavailable
from veapi.model import Deleted
from vecontroller.incarnation import is_unconfirmed
from vecontroller.leader import NotLeader
from vecontroller.ports import Commits, Mirrored
from vecontroller.snapshotting import unmade_clones
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.view import Held, View

log = structlog.get_logger()
BATCH = 40
LONGEST_S = 10.0
"""Between two looks: what is deleted meanwhile, or a clock that was set, is noticed so late at most."""
SHORTEST_S = 1.0
"""Also after a failure."""


def due(view: View, now: float) -> list[Held[Deleted]]:
    """Those whose time has come, the oldest first; but for those of which a clone is still to be made.

    What can't be read is left alone: it is not in the view.
    """
    found = [held for held in _kept(view) if held.value.purge_at <= now]
    sources = {clone.value.root.from_uid for clone in unmade_clones(view)} if found else set()
    free = (held for held in found if held.value.left or held.value.ve.uid not in sources)
    return sorted(free, key=lambda held: (held.value.purge_at, held.value.ve.uid))


def _kept(view: View) -> Iterator[Held[Deleted]]:
    """Those whose time is counted: that of what a moved VE left begins when its host is back."""
    for held in chain(view.deleted.values(), view.left.values()):
        if not held.value.purging and not held.value.unconfirmed:
            yield held


def key_of(kept: Deleted) -> str:
    """Where the store has it."""
    if kept.left:
        return keys.ve_left(kept.placement.host, kept.ve.uid)
    return keys.ve_deleted(kept.ve.uid)


def next_look_s(view: View, now: float) -> float:
    """Seconds until the next one may be due."""
    waits = [held.value.purge_at - now for held in _kept(view)]
    return min(max(min(waits, default=LONGEST_S), SHORTEST_S), LONGEST_S)


def marked(held: Held[Deleted], op_id: str) -> tuple[Guard, Put]:
    """What has its host remove it. Lost when it was brought back meanwhile."""
    key = key_of(held.value)
    value = msgspec.structs.replace(held.value, purging=True, op_id=op_id)
    guard = Guard(key=key, mod_revision=held.mod_revision)
    return guard, Put(key=key, value=values.encode_deleted(value))


class Purging:
    """Beside the API the only one that marks."""

    def __init__(
        self,
        mirror: Mirrored,
        writer: Commits,
        clock: Clock,
        *,
        new_op_id: Callable[[], str],
    ) -> None:
        self._mirror = mirror
        self._writer = writer
        self._clock = clock
        self._new_op_id = new_op_id

    async def run(self) -> None:
        """For ever; raises NotLeader when it is no longer ours to decide."""
        while True:
            await self.purge_once()
            await self._clock.sleep(next_look_s(self._mirror.view, self._clock.wall()))

    async def purge_once(self) -> None:
        """Marks what is due. What could not be written is due again at the next look."""
        if is_unconfirmed(self._mirror.view):
            return
        waiting = due(self._mirror.view, self._clock.wall())
        for start in range(0, len(waiting), BATCH):
            await self._mark(waiting[start : start + BATCH])

    async def _mark(self, batch: list[Held[Deleted]]) -> None:
        op_id = self._new_op_id()
        guards, writes = zip(*(marked(held, op_id) for held in batch), strict=True)
        try:
            await self._writer.commit(guards, writes, confirm=(writes[0].key, op_id))
        except NotLeader:
            raise
        except (Conflict, Unavailable) as error:
            log.info("deleted ves not purged yet", ves=len(batch), error=error.message)
            return
        log.info("deleted ves purged", ves=[held.value.ve.uid for held in batch])
