"""A task group that leaves no trace in the task that it was in.

When a task of a group fails while its parent waits for the others, the group cancels the parent to wake it, and before
Python 3.13 that request stays counted. Debian 12's 3.11.2 then takes the next `asyncio.timeout` of that task, when it is
over, for a cancellation: a loop that should have tried again ends without a word.
"""

import asyncio
import sys
from types import TracebackType

_MENDED = sys.version_info >= (3, 13)


class TaskGroup(asyncio.TaskGroup):
    """As asyncio's; to be used in its place everywhere."""

    _parent_cancel_requested: bool
    _parent_task: "asyncio.Task[object] | None"

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Takes back the group's own request to cancel the parent, where asyncio forgets it: in its wait for the tasks."""
        forgotten = kind is None and not self._parent_cancel_requested
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            if forgotten and self._parent_cancel_requested and not _MENDED:
                assert self._parent_task is not None
                self._parent_task.uncancel()
