"""An asyncio loop without a machine: virtual time, an order of ready callbacks that a seed gives, and processes that die.

Time passes only when nothing is ready. Whatever asyncio or the product keeps in sets is kept in an order that does not
depend on addresses: tasks and futures hash as the number in which they were made. What belongs to a dead process is not
run any more, not even its `finally`: that is what SIGKILL does.
"""

import asyncio
import contextlib
import heapq
import itertools
from asyncio import base_events
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar
from random import Random
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from sim.process import Process

CURRENT: ContextVar["Process | None"] = ContextVar("process", default=None)
STEPS_LIMIT = 3_000_000
_numbers = itertools.count(1)


class Stuck(Exception):
    """Nothing is ready and nothing will ever be, or the story takes more steps than any should."""


class SimFuture(asyncio.Future):
    """Hashes the same in each run."""

    number: int

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        self = super().__new__(cls)
        self.number = next(_numbers)
        return self

    def __hash__(self) -> int:
        return self.number


class SimTask(asyncio.Task):
    """Hashes the same in each run."""

    number: int
    _log_destroy_pending: bool

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        self = super().__new__(cls)
        self.number = next(_numbers)
        return self

    def __hash__(self) -> int:
        return self.number


class SimLoop(base_events.BaseEventLoop):
    """`order`: shuffles what is ready at one moment; None: first come, first served."""

    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool
    _timer_cancelled_count: int

    def __init__(self, order: Random | None) -> None:
        global _numbers  # noqa: PLW0603 - one story at a time
        _numbers = itertools.count(1)
        super().__init__()
        self._clock_resolution = 1e-9
        self._now = 0.0
        self._order = order
        self.steps = 0
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _loop, context: self.errors.append(context))

    def time(self) -> float:
        return self._now

    def create_future(self) -> SimFuture:
        return SimFuture(loop=self)

    def create_task(
        self, coro: Any, *, name: Any = None, context: Context | None = None
    ) -> SimTask:
        task = SimTask(coro, loop=self, name=name, context=context)
        task._log_destroy_pending = False  # the dead leave theirs
        process = CURRENT.get() if context is None else context.get(CURRENT)
        if process is not None:
            process.own(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> SimFuture:
        """As a thread of the process that asks: it ends some time later, or dies with it."""
        process = CURRENT.get()
        assert process is not None, "threads are of processes"
        return process.work(func, args)

    def _run_once(self) -> None:
        self._let_time_pass()
        ready = self._ready
        batch = list(ready)
        ready.clear()
        if self._order is not None and len(batch) > 1:
            self._order.shuffle(batch)
        for index, handle in enumerate(batch):
            if handle._cancelled:
                continue
            process = handle._context.get(CURRENT)
            if process is not None and not process.takes(handle):
                continue
            self.steps += 1
            handle._run()
            if self._stopping:
                ready.extendleft(reversed(batch[index + 1 :]))
                return
        if self.steps > STEPS_LIMIT:
            raise Stuck(f"more than {STEPS_LIMIT} steps")

    def _let_time_pass(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            self._forget_timer()
        if not self._ready and not self._stopping:
            if not scheduled:
                raise Stuck("nothing will ever happen")
            self._now = max(self._now, scheduled[0]._when)
        end = self._now + self._clock_resolution
        while scheduled and (scheduled[0]._cancelled or scheduled[0]._when < end):
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if handle._cancelled:
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(handle)

    def _forget_timer(self) -> None:
        handle = heapq.heappop(self._scheduled)
        handle._scheduled = False
        self._timer_cancelled_count -= 1

    def _process_events(self, event_list: object) -> None:
        """There are no files."""

    def _write_to_self(self) -> None:
        """There is nobody to wake."""


@contextlib.contextmanager
def running(order: Random | None) -> Iterator[SimLoop]:
    """The loop of one story."""
    loop = SimLoop(order)
    asyncio.set_event_loop(loop)
    try:
        yield loop
    finally:
        asyncio.set_event_loop(None)
        loop._ready.clear()
        loop._scheduled.clear()
        loop.close()
