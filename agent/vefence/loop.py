"""The loop: reads what it was told, looks who lives, does what `core.decide` says, writes its beat.

The list is read before the lease: who is on a newer list is judged by a lease at least as new.
"""

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vefence import host, notes
from vefence.core import BUSY_S, IDLE_S, Plan, Told, decide, expired_since, next_look_s
from vefence.groups import Groups
from vefence.notes import Beat, KillList, Lease, Reader, Target

_SAY_EVERY_S = 1.0


def boot_clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Settings:
    """`folder`: of the notes. `watchdog`: a device to pet; None: none. `reboot`: of a host on which something does not die."""

    folder: Path
    watchdog: Path | None = None
    reboot: bool = False


@dataclass(frozen=True, slots=True)
class Kernel:
    """The doors to it; tests put others in their places."""

    groups: Groups
    cut_link: Callable[[str], bool] = host.cut_link
    reboot: Callable[[], None] = host.reboot
    now: Callable[[], float] = boot_clock


class Fence:
    """`turn` does what is to be done now; `run` does so for ever."""

    def __init__(self, settings: Settings, kernel: Kernel) -> None:
        self._settings = settings
        self._kernel = kernel
        self._boot_id = host.boot_id()
        folder, boot_id = settings.folder, self._boot_id
        self._lease = Reader(folder / notes.LEASE, Lease, boot_id, complain=self._complain)
        self._list = Reader(folder / notes.LIST, KillList, boot_id, complain=self._complain)
        self._watchdog = host.Watchdog(settings.watchdog)
        self._since: float | None = None
        self._said: dict[str, float] = {}
        self._wake = self._open_wake()
        self._beat = Beat(self._boot_id, os.getpid(), 0.0)

    def _complain(self, what: str) -> None:
        self._say_at_times("trouble", what=what)

    def _say_at_times(self, phrase: str, **fields: object) -> None:
        """Each phrase once a second at most."""
        now = self._kernel.now()
        if now - self._said.get(phrase, -_SAY_EVERY_S) >= _SAY_EVERY_S:
            self._said[phrase] = now
            host.say(phrase, **fields)

    def _open_wake(self) -> int:
        """A pipe with a name: whoever writes a byte has the notes read at once."""
        path = self._settings.folder / notes.WAKE
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def told(self) -> Told:
        kill_list = self._list.look()
        return Told(self._lease.look(), kill_list)

    def turn(self) -> Told:
        """One look and what follows from it."""
        told, now = self.told(), self._kernel.now()
        self._note_expiry(now, told)
        alive = self._alive(told) if self._since is not None else set()
        since = now if self._since is None else self._since
        plan = decide(now, told, alive, since=since, reboots=self._settings.reboot)
        self._carry_out(plan, told)
        self._tell(plan, told)
        return told

    def _note_expiry(self, now: float, told: Told) -> None:
        before, self._since = self._since, expired_since(now, told, self._since)
        if (before is None) != (self._since is None):
            phrase = "lease ran out" if before is None else "lease renewed"
            host.say(phrase, now=f"{now:.3f}", targets=len(told.targets))

    def _alive(self, told: Told) -> set[str]:
        root, groups = told.kill_list.cgroup_root if told.kill_list else "", self._kernel.groups
        return {target.uid for target in told.targets if groups.alive(root, target.uid)}

    def _carry_out(self, plan: Plan, told: Told) -> None:
        root = told.kill_list.cgroup_root if told.kill_list else ""
        for target in plan.kill:
            self._kernel.groups.kill(root, target.uid)
        if plan.kill:
            uids = ",".join(target.uid for target in plan.kill)
            self._say_at_times("killed", ves=uids, now=f"{self._kernel.now():.3f}")
        for target in plan.cut:
            self._cut(target)
        if plan.reboot:
            host.say("host is rebooted", alive=len(plan.kill))
            self._kernel.reboot()
        if plan.pet:
            self._watchdog.pet()

    def _cut(self, target: Target) -> None:
        if target.device and self._kernel.cut_link(target.device):
            self._beat = replace(self._beat, cut=self._beat.cut + 1)
            host.say("network card taken down", ve=target.uid, device=target.device)

    def _tell(self, plan: Plan, told: Told) -> None:
        """`alive` is as of the look before the kill: whoever counts on their end waits for the next beat."""
        self._beat = replace(
            self._beat,
            at=self._kernel.now(),
            lease_seq=told.lease.seq if told.lease else 0,
            list_seq=told.kill_list.seq if told.kill_list else 0,
            expired=plan.expired,
            alive=tuple(target.uid for target in plan.kill),
            kills=self._kernel.groups.killed,
        )
        try:
            notes.replace(self._settings.folder / notes.BEAT, self._beat)
        except OSError as error:
            self._complain(f"beat: {error}")

    def rest(self, told: Told) -> None:
        """Until there is something to do, or somebody wakes it."""
        idle_s = BUSY_S if self._beat.alive else IDLE_S
        wait_s = next_look_s(self._kernel.now(), told, idle_s=idle_s)
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if poll.poll(int(wait_s * 1000) + 1):
            with suppress(OSError):
                os.read(self._wake, 4096)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Until `stopped`, asked at least each quarter of a second. A failure of one turn is the trouble of that turn."""
        told = Told()
        while not stopped():
            try:
                told = self.turn()
            except Exception as error:  # noqa: BLE001 - it must go on killing whatever happens
                self._complain(f"turn failed: {type(error).__name__}: {error}")
            self.rest(told)
        self._watchdog.close(safe=not told.targets)
        os.close(self._wake)
