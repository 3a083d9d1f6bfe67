"""Commits on a user's word that sit out a short loss of the store.

An embedded etcd that died is back within two seconds; a person who types in that moment should not see an error. Only
what was surely not written is sent again: an outcome that is not known is the writer's to find out, or the user's.
"""

from collections.abc import Sequence

import tenacity

from veapi.clock import Clock
from veapi.errors import Unavailable
from vecontroller.api.ports import Commits
from vecontroller.leader import NotLeader
from vecontroller.store.port import Ambiguous, Guard, Write

PAUSE_S = 0.2
ATTEMPTS = 25
"""Five seconds in all, below the deadline of clients."""


class PatientCommits:
    """The writer, tried again while the store can't be reached at all."""

    def __init__(self, writer: Commits, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock

    async def commit(
        self,
        guards: Sequence[Guard],
        writes: Sequence[Write],
        *,
        confirm: tuple[str, str] | None,
    ) -> int:
        """As the writer's; Unavailable only after five seconds."""
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_surely_not_written),
            wait=tenacity.wait_fixed(PAUSE_S),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            sleep=self._clock.sleep,
            reraise=True,
        )
        return await attempts(self._writer.commit, guards, writes, confirm=confirm)


def _surely_not_written(error: BaseException) -> bool:
    return isinstance(error, Unavailable) and not isinstance(error, Ambiguous | NotLeader)
