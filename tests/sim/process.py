"""A process of the simulated cluster: its tasks, its clock and its threads, which die, stand still and start together."""

from collections.abc import Callable, Coroutine
from contextvars import copy_context
from random import Random
from typing import Any

from sim.loop import CURRENT, SimFuture, SimLoop, SimTask


class SimClock:
    """veapi.clock.Clock. `rate` near 1: boot seconds a true second; `offset`: when the machine booted, so to speak."""

    def __init__(self, loop: SimLoop, *, rate: float = 1.0, offset: float = 0.0) -> None:
        self._loop = loop
        self._rate = rate
        self._offset = offset
        self.wall_offset = 1_800_000_000.0

    def boot(self) -> float:
        return self._offset + self._loop.time() * self._rate

    def wall(self) -> float:
        return self.wall_offset + self._loop.time()

    async def sleep(self, seconds: float) -> None:
        future = self._loop.create_future()
        timer = self._loop.call_later(max(0.0, seconds) / self._rate, _wake, future)
        try:
            await future
        finally:
            timer.cancel()


def _wake(future: SimFuture) -> None:
    if not future.done():
        future.set_result(None)


class Process:
    """`die` is SIGKILL, `pause` SIGSTOP. `on_death` is called at once, from outside."""

    def __init__(self, loop: SimLoop, name: str, clock: SimClock, rng: Random) -> None:
        self.loop = loop
        self.name = name
        self.clock = clock
        self.rng = rng
        self.alive = True
        self.paused = False
        self.thread_s: Callable[[], float] = lambda: 0.0005
        self.on_death: list[Callable[[], None]] = []
        self.on_exit: Callable[[BaseException | None], None] = lambda _error: None
        self._held: list[Any] = []
        self._tasks: list[SimTask] = []
        self._jobs: dict[SimFuture, Callable[[], object]] = {}
        self._context = copy_context()
        self._context.run(CURRENT.set, self)

    def own(self, task: SimTask) -> None:
        """Keeps it from being collected: a collected coroutine would run its `finally`."""
        self._tasks.append(task)
        if len(self._tasks) > 4096:
            self._tasks = [task for task in self._tasks if not task.done()]

    def takes(self, handle: Any) -> bool:
        """Whether it can run something now; if it is only paused it will later."""
        if self.paused and self.alive:
            self._held.append(handle)
        return self.alive and not self.paused

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "") -> SimTask:
        return self.loop.create_task(work, name=name, context=self._context.copy())

    def main(self, work: Coroutine[Any, Any, Any]) -> None:
        """When it ends, so does the process."""
        self.spawn(work, self.name).add_done_callback(self._exited, context=copy_context())

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Within its context, now: only what a kernel does for it."""
        return self._context.copy().run(function, *args)

    def work(self, function: Callable[..., Any], args: tuple[Any, ...]) -> SimFuture:
        """A thread's job."""
        future = self.loop.create_future()

        def job() -> None:
            self._jobs.pop(future, None)
            if future.cancelled():
                function(*args)  # a thread goes on
                return
            try:
                result = function(*args)
            except Exception as error:  # noqa: BLE001 - as an executor
                future.set_exception(error)
            else:
                future.set_result(result)

        self._jobs[future] = lambda: function(*args)
        self.loop.call_later(self.thread_s(), job, context=self._context)
        return future

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        if self.paused and self.alive:
            self.paused = False
            held, self._held = self._held, []
            self.loop._ready.extend(held)

    def die(self) -> list[Callable[[], object]]:
        """The jobs that its threads were at."""
        self.alive = False
        self._held.clear()
        jobs = list(self._jobs.values())
        self._jobs.clear()
        callbacks, self.on_death = self.on_death, []
        for callback in callbacks:
            callback()
        return jobs

    def _exited(self, task: SimTask) -> None:
        if self.alive:
            self.die()
            self.on_exit(None if task.cancelled() else task.exception())
