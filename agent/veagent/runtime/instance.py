"""A running VE: its init and its monitor, both held."""

import asyncio
import signal
from collections.abc import Callable

from veagent.pidfd import Held
from veagent.ports import Ended
from veagent.runtime import procs
from veagent.runtime.oom import OomWatch
from veapi.model import Uid

_HALT = {
    "systemd": signal.SIGRTMIN + 3,
    "busybox": signal.SIGUSR2,
    "runit": signal.SIGCONT,
    "tini": signal.SIGTERM,
    "s6-svscan": signal.SIGTERM,
}
"""What asks an init to power off, by the name of its program. Others get SIGPWR, as LXC does it, or SIGTERM."""


class LxcInstance:
    """Made by `hold`. `monitor` cleans up after `init`; the VE has ended when both have."""

    def __init__(self, uid: Uid, monitor: Held, init: Held, started_at: float) -> None:
        self._uid = uid
        self._monitor = monitor
        self._init = init
        self._started_at = started_at
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._oom: OomWatch | None = None

    @property
    def uid(self) -> Uid:
        return self._uid

    @property
    def init_pid(self) -> int:
        return self._init.pid

    @property
    def started_at(self) -> float:
        return self._started_at

    @property
    def running(self) -> bool:
        return not self._ended.done()

    async def ended(self) -> Ended:
        return await asyncio.shield(self._ended)

    async def oom_killed(self, *, after: int) -> int:
        if self._oom is None:
            await self.ended()
            return after
        return await self._oom.beyond(after)

    def watch_oom(self, watch: OomWatch) -> None:
        """From here on `oom_killed` hears of kills; closes it in the end."""
        self._oom = watch

    def watch(self, *, init_gone: Callable[[], None], all_gone: Callable[[], None]) -> None:
        """Calls back when init has ended, and when the monitor has too. Needs the running event loop."""
        left = {"init", "monitor"}

        def gone(who: str) -> None:
            left.discard(who)
            if who == "init":
                init_gone()
            if not left:
                all_gone()

        self._init.on_end(lambda: gone("init"))
        self._monitor.on_end(lambda: gone("monitor"))

    def settle(self, ended: Ended) -> None:
        """Tells everybody who waits; the last thing to do with it."""
        if not self._ended.done():
            self._ended.set_result(ended)
        self.close()

    def exit_status(self) -> int | None:
        """Init's wait status as its pidfd gives it, after the end."""
        return self._init.wait_status()

    def hears(self) -> bool:
        """Whether init would take our word by now: one that has just begun has no handler yet, and the signal is lost."""
        return procs.heeds(self.init_pid, self._halt_signal())

    def ask_to_halt(self) -> None:
        self._init.send(self._halt_signal())

    def _halt_signal(self) -> int:
        """One that it heeds: a busybox may be a shell, and an init a program like any other."""
        named = _HALT.get(procs.program(self.init_pid), signal.SIGPWR)
        tried = (named, signal.SIGPWR, signal.SIGTERM)
        return next((each for each in tried if procs.heeds(self.init_pid, each)), named)

    def kill(self) -> None:
        """Kills init, and with it all that runs in its PID namespace."""
        self._init.send(signal.SIGKILL)

    def kill_monitor(self) -> None:
        self._monitor.send(signal.SIGKILL)

    def close(self) -> None:
        """Stops watching; the VE runs on."""
        if self._oom is not None:
            self._oom.close()
        self._init.close()
        self._monitor.close()
