"""Work on a frozen copy of the cluster that takes seconds: in threads beside the loop, and of few calls at once."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from veapi.errors import Conflict
from vecontroller.api.ports import ApiDeps
from vecontroller.whatif import World, world_of

T = TypeVar("T")


class Aside:
    """`what` it is, for people, e.g. "plans"; `at_once`: each holds a copy of the cluster and, for a while, a thread."""

    def __init__(self, what: str, *, at_once: int) -> None:
        self._what = what
        self._at_once = at_once
        self._under_way = 0

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives. Conflict while too many are under way.

        A thread can't be stopped: that of a caller who has gone counts until it ends by itself.
        """
        if self._under_way >= self._at_once:
            raise Conflict(
                f"{self._under_way} {self._what} are under way",
                hint="try again in some seconds",
            )
        thread = asyncio.ensure_future(asyncio.to_thread(work))
        self._under_way += 1
        thread.add_done_callback(self._ended)
        return await asyncio.shield(thread)

    def _ended(self, thread: object) -> None:
        del thread
        self._under_way -= 1


def world_now(deps: ApiDeps) -> World:
    """The cluster as the scheduler would decide from it at this moment."""
    return world_of(deps.mirror.view, deps.scheduler.board().hosts, deps.rules)
