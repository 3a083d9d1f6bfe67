"""A vefence for VEs that only seem to run: the real one's decisions, in this process, by the clock that it is given.

Like the real one it outlives its agent, if what made it does.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from veagent.fake.runtime import FakeRuntime
from veapi.clock import Clock
from veapi.model import Uid
from vefence.core import BUSY_S, IDLE_S, Told, decide, expired_since, next_look_s
from vefence.notes import Beat, KillList, Lease


class FakeVefence:
    """A `Door` with the one behind it. `notes`: what the files would hold; `turn` is one look, `run` does that for ever."""

    def __init__(self, runtime: FakeRuntime, clock: Clock) -> None:
        self.notes: tuple[Lease | None, KillList | None] = (None, None)
        self.beat: Beat | None = None
        self.up = True
        """It runs: false for one that was killed or stands still."""
        self._runtime = runtime
        self._clock = clock
        self._read = Told()
        self._since: float | None = None
        self._woken = asyncio.Event()

    # The agent's side.

    def told(self) -> tuple[Lease | None, KillList | None]:
        return self.notes

    def tell_lease(self, lease: Lease) -> None:
        self.notes = (lease, self.notes[1])

    def tell_list(self, kill_list: KillList) -> None:
        self.notes = (self.notes[0], kill_list)
        self._woken.set()

    def lacks(self) -> tuple[bool, bool]:
        return self.notes[0] is None, self.notes[1] is None

    def heard(self) -> Beat | None:
        return self.beat

    # Its own life.

    def restart(self) -> None:
        """A new process: it knows what the notes say."""
        self._read, self._since, self.up = Told(), None, True

    def power_loss(self) -> None:
        """The notes were in memory."""
        self.notes, self.beat = (None, None), None
        self.restart()

    def turn(self) -> None:
        if not self.up:
            return
        lease, kill_list = self.notes
        self._read = told = Told(lease or self._read.lease, kill_list or self._read.kill_list)
        now = self._clock.boot()
        self._since = expired_since(now, told, self._since)
        alive = {target.uid for target in told.targets if target.uid in self._runtime.running}
        since = now if self._since is None else self._since
        plan = decide(now, told, alive, since=since, reboots=False)
        for target in plan.kill:
            self._runtime.kill(Uid(target.uid))
        before = self.beat or Beat(lease.boot_id if lease else "", 1, now)
        self.beat = replace(
            before,
            at=now,
            lease_seq=told.lease.seq if told.lease else 0,
            list_seq=told.kill_list.seq if told.kill_list else 0,
            expired=plan.expired,
            alive=tuple(target.uid for target in plan.kill),
            kills=before.kills + len(plan.kill),
        )

    async def run(self) -> None:
        while True:
            self.turn()
            self._woken.clear()
            idle_s = BUSY_S if self.beat is not None and self.beat.alive else IDLE_S
            rest_s = next_look_s(self._clock.boot(), self._read, idle_s=idle_s)
            await self._rest(max(rest_s, 0.001))

    async def _rest(self, seconds: float) -> None:
        timer = asyncio.create_task(self._clock.sleep(seconds))
        # A timer that was cancelled is no news: it would wake the next rest at once, and so on.
        timer.add_done_callback(lambda done: None if done.cancelled() else self._woken.set())
        try:
            await self._woken.wait()
        finally:
            timer.cancel()

    @contextmanager
    def running(self) -> Iterator[None]:
        """It runs, beside the agent."""
        task = asyncio.get_running_loop().create_task(self.run(), name="vefence")
        try:
            yield
        finally:
            task.cancel()
