"""Minds a running VE: its end, and the processes that the kernel ends in it for want of memory. Events, never polls."""

import asyncio
from collections.abc import Callable

import structlog

from veagent.ports import Ended, Instance
from veapi.clock import Clock
from veapi.errors import VerackError
from veapi.model import Uid

log = structlog.get_logger()
OOM_PAUSE_S = 10.0
"""Kills within this time are told together."""


class Watch:
    """Calls `ended` when the instance has, and `killed` with the number of its kills so far."""

    def __init__(
        self,
        uid: Uid,
        clock: Clock,
        *,
        ended: Callable[[Instance, Ended], None],
        killed: Callable[[int], None],
    ) -> None:
        self._uid = uid
        self._clock = clock
        self._ended = ended
        self._killed = killed
        self._end: asyncio.Task[None] | None = None
        self._oom: asyncio.Task[None] | None = None

    def mind(self, instance: Instance, *, oom_seen: int) -> None:
        """This one from now on. `oom_seen`: kills that are known already."""
        self.close()
        self._end = asyncio.create_task(self._watch_end(instance), name=f"end-{self._uid}")
        watch_oom = self._watch_oom(instance, oom_seen)
        self._oom = asyncio.create_task(watch_oom, name=f"oom-{self._uid}")

    @property
    def over(self) -> bool:
        """Whether the instance's end was seen."""
        return self._end is not None and self._end.done()

    def close(self) -> None:
        for task in (self._end, self._oom):
            if task is not None:
                task.cancel()

    async def _watch_end(self, instance: Instance) -> None:
        try:
            ended = await instance.ended()
        except VerackError as error:
            log.error("end of VE not seen", ve=self._uid, error=error.message)  # noqa: TRY400
            return
        if self._oom is not None:
            self._oom.cancel()
        self._ended(instance, ended)

    async def _watch_oom(self, instance: Instance, seen: int) -> None:
        try:
            while True:
                seen = await instance.oom_killed(after=seen)
                self._killed(seen)
                await self._clock.sleep(OOM_PAUSE_S)
        except VerackError as error:
            log.warning("kills for want of memory not seen", ve=self._uid, error=error.message)
