"""VEs by LXC: the runtime of real hosts.

What LXC says is not what is. `lxc-start` may fail and the VE run, or succeed and the VE be gone; a killed monitor leaves
folders that make the next start fail. So every start ends with a look at the processes, and is followed, when it did
not work out, by a sweep. A VE's end is the end of its monitor (which cleans up after init), seen through a pidfd.
"""

import asyncio
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

import structlog

from veagent import lxcfs
from veagent.cgroup import Cgroups, cpulist
from veagent.ports import Ended, EndKind, ExecCommand, ExecProcess, Instance, StartPlan
from veagent.runtime import ending, hostcheck, launch, rundir
from veagent.runtime.adopt import Scan, hold, hold_monitor, scan
from veagent.runtime.console import Consoles
from veagent.runtime.exec import Attach, attach
from veagent.runtime.instance import LxcInstance
from veagent.runtime.lxcconfig import (
    CONSOLE_BYTES,
    UID,
    HostPart,
    check,
    check_uid,
    render,
)
from veagent.runtime.notes import EndNotes, end_of, status_in
from veagent.runtime.oom import OomWatch
from veagent.runtime.program import program_of
from veagent.storage.threads import to_end
from veapi.clock import Clock
from veapi.errors import (
    Conflict,
    NotFound,
    RemoteFailed,
    TimedOut,
)
from veapi.model import Limits, Uid

log = structlog.get_logger()
_KILL_TIMEOUT_S = 15.0
_ADOPT_TIMEOUT_S = 0.8
_ADOPT_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class LxcSettings:
    """`state` is the agent's folder; ours is `state/lxc`. `cgroup_root` as "verack/h1". `lxcfs`: its mount point."""

    state: Path
    cgroup_root: str
    lxcfs: Path | None = None
    start_timeout_s: float = 30.0
    console_bytes: int = CONSOLE_BYTES


class LxcRuntime:
    """Implements `ports.Runtime`. One object per agent; call `setup` first, `adopt` second."""

    def __init__(
        self, settings: LxcSettings, clock: Clock, *, cgroups: Cgroups | None = None
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._path = settings.state.absolute() / "lxc"
        self._seccomp = self._path / "ve.seccomp"
        self.cgroups = cgroups or Cgroups(settings.cgroup_root)
        self._consoles = Consoles(clock)
        self._notes = EndNotes(rundir.fifo(self._path))
        self._lxcfs = lxcfs.Liveness(settings.lxcfs) if settings.lxcfs else None
        self._lxcfs_files: tuple[float, tuple[str, ...]] = (-1e9, ())
        self._instances: dict[Uid, LxcInstance] = {}
        self._starting: set[Uid] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._programs: dict[str, str] = {}

    async def setup(self) -> None:
        self._programs = hostcheck.find_programs()
        if os.geteuid() != 0:
            raise RemoteFailed("the LXC runtime needs root", hint="run veagent as root")
        await hostcheck.check_version(self._programs["lxc-start"])
        hostcheck.check_paths((self._path, self._settings.lxcfs))
        hostcheck.make_passable(self._path)
        rundir.log(self._path, "").parent.mkdir(parents=True, exist_ok=True)
        self._seccomp.write_bytes(files("veagent.runtime").joinpath("ve.seccomp").read_bytes())
        self.cgroups.setup()
        try:
            self._notes.open()
        except OSError as error:
            log.warning("ends of VEs can't be told apart exactly", error=str(error))

    async def adopt(self) -> Sequence[Instance]:
        found = scan(self._path)
        for _ in range(int(_ADOPT_TIMEOUT_S / _ADOPT_PAUSE_S)):
            self._take(found)
            if not found.starting and found.monitors.keys() <= self._instances.keys():
                break
            await asyncio.sleep(_ADOPT_PAUSE_S)
            found = scan(self._path)
        await self._end_unfinished(found)
        await self._sweep_all(self._starting)
        return list(self._instances.values())

    async def start(self, plan: StartPlan) -> Instance:
        check(plan)
        uid = plan.uid
        if uid in self._instances or uid in self._starting:
            raise Conflict(f"VE {uid} runs already", hint="stop it first")
        self._starting.add(uid)
        try:
            return await self._clear(uid) or await self._start(plan)
        finally:
            self._starting.discard(uid)

    async def stop(self, instance: Instance, *, timeout_s: float) -> None:
        ours = self._instances.get(instance.uid)
        if ours is None or ours is not instance:
            await instance.ended()
            return
        if self.cgroups.frozen(ours.uid):
            self.cgroups.thaw(ours.uid)
        if timeout_s > 0 and await ending.halt(ours, self._clock, timeout_s=timeout_s):
            return
        if await ending.kill(ours, self.cgroups, timeout_s=_KILL_TIMEOUT_S):
            return
        log.warning("monitor does not end after init", ve=ours.uid)
        ours.kill_monitor()
        if not await ending.ended_within(ours, _KILL_TIMEOUT_S):
            raise TimedOut(
                f"VE {ours.uid} does not die", hint="a process of it may wait for a disk (state D)"
            )

    def holdable(self, limits: Limits) -> Limits:
        return self.cgroups.holdable(limits)

    async def limit(self, uid: Uid, limits: Limits) -> None:
        """In a thread: to take memory back the kernel may write for as long as that takes, a second per gigabyte and more."""
        await to_end(self.cgroups.limit, uid, limits)

    async def pin(self, uid: Uid, cpus: Sequence[int]) -> None:
        self.cgroups.pin(uid, cpulist.render(cpus))

    async def freeze(self, uid: Uid) -> None:
        await self.cgroups.freeze(uid)

    async def thaw(self, uid: Uid) -> None:
        self.cgroups.thaw(uid)

    def frozen(self, uid: Uid) -> bool:
        return self.cgroups.suspended(uid)

    async def execute(self, instance: Instance, command: ExecCommand) -> ExecProcess:
        uid = instance.uid
        if uid not in self._instances:
            raise Conflict(f"VE {uid} does not run", hint="start it first")
        if self.cgroups.frozen(uid):
            raise Conflict(f"VE {uid} is frozen", hint="thaw it first; nothing can run in it now")
        place = Attach(
            uid=uid,
            init_pid=instance.init_pid,
            lxc_path=self._path,
            setsid=self._programs["setsid"],
            members=lambda: self.cgroups.processes(uid),
        )
        return await attach(place, command)

    def last_end(self, uid: Uid) -> Ended | None:
        note, status = self._note(uid), status_in(launch.log_tail(rundir.log(self._path, uid)))
        return end_of(status, note, None) if note and status is not None else None

    def forget_end(self, uid: Uid) -> None:
        check_uid(uid)
        (self._path / uid / "ended").unlink(missing_ok=True)

    async def attach_console(self, instance: Instance, *, columns: int, rows: int) -> ExecProcess:
        monitor = self.cgroups.monitor_pid(instance.uid)
        return self._consoles.attach(instance, self.console(instance.uid), monitor, (columns, rows))

    async def forget(self, uid: Uid) -> None:
        check_uid(uid)
        if uid in self._instances or uid in self._starting:
            raise Conflict(f"VE {uid} runs", hint="stop it first")
        unknown = await self._clear(uid)
        if unknown is not None:
            await self.stop(unknown, timeout_s=0)
        self.cgroups.forget(uid)
        self._notes.take(uid)
        self._remove_folder(uid)

    def console(self, uid: Uid) -> Path:
        return self._path / uid / "console"

    def init_pids(self) -> Iterable[int]:
        """Of all that run: for `LxcfsWatch`."""
        return [instance.init_pid for instance in self._instances.values()]

    async def aclose(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for instance in self._instances.values():
            instance.close()
        self._instances.clear()
        self._consoles.marks.close()
        self._notes.close()
        rundir.remove_empty(self._path)

    # Starting

    async def _start(self, plan: StartPlan) -> LxcInstance:
        folder, said = self._path / plan.uid, rundir.log(self._path, plan.uid)
        fresh = not folder.exists()
        try:
            self.cgroups.create(plan.uid, plan.limits, cpus=cpulist.render(plan.cpus))
            program = await asyncio.to_thread(program_of, plan)
            said.unlink(missing_ok=True)
            _write_config(folder, render(plan, await self._host_part(plan.uid), program))
            code = await launch.lxc_start(
                self._programs["lxc-start"],
                self._path,
                plan.uid,
                timeout_s=self._settings.start_timeout_s,
                command=program.argv,
            )
            if code != 0:
                raise launch.failure(said, "the VE could not be started")  # noqa: TRY301 - undone below
            return self._take_up(plan.uid, said)
        except BaseException as error:
            log.warning("start failed", ve=plan.uid, error=str(error) or type(error).__name__)
            await self._undo(plan.uid)
            if fresh:
                self._remove_folder(plan.uid)
            raise

    def _take_up(self, uid: Uid, said: Path) -> LxcInstance:
        monitor = self.cgroups.monitor_pid(uid)
        instance = hold(uid, monitor, self._path, self._clock) if monitor is not None else None
        if instance is None:
            raise launch.failure(said, "the VE ended right after its start")
        self._enter(instance)
        return instance

    async def _clear(self, uid: Uid) -> LxcInstance | None:
        """Removes what is left of the VE's last run; when it does run, though nobody knew, it is ours from now on."""
        if not self.cgroups.exists(uid):
            return None
        instance = self._living(uid)
        if instance is None:
            log.info("leftovers removed", ve=uid)
            await ending.end_unfinished(uid, self._path, self._clock, patience_s=0)
            await self.cgroups.sweep(uid)
        return instance

    def _living(self, uid: Uid) -> LxcInstance | None:
        monitor = hold_monitor(uid, self._path)
        if monitor is None:
            return None
        with monitor:
            instance = hold(uid, monitor.pid, self._path, self._clock)
        if instance is not None:
            log.warning("VE runs already, taken over", ve=uid, init=instance.init_pid)
            self._enter(instance)
        return instance

    async def _undo(self, uid: Uid, *, patience_s: float = ending.SETTLE_TIMEOUT_S) -> None:
        """Ends whatever a start has brought to life, and removes it."""
        await ending.end_unfinished(uid, self._path, self._clock, patience_s=patience_s)
        await self._sweep(uid)
        self._notes.take(uid)

    async def _host_part(self, uid: Uid) -> HostPart:
        return HostPart(
            folder=self._path / uid,
            log=rundir.log(self._path, uid),
            seccomp=self._seccomp,
            cgroup_version=self.cgroups.version,
            cgroup_container=self.cgroups.container(uid),
            cgroup_monitor=self.cgroups.monitor(uid),
            cgroup_pivot=self.cgroups.pivot(),
            lxcfs=self._settings.lxcfs,
            lxcfs_files=await self._offered(),
            console_bytes=self._settings.console_bytes,
        )

    async def _offered(self) -> tuple[str, ...]:
        """What lxcfs has, as of at most a second ago. Mounts of a dead one would break the VE's /proc."""
        if self._lxcfs is None:
            return ()
        at, offered = self._lxcfs_files
        if self._clock.boot() - at > lxcfs.FRESH_S:
            offered = await self._lxcfs.offered()
            self._lxcfs_files = (self._clock.boot(), offered)
        return offered

    # Ending

    def _enter(self, instance: LxcInstance) -> None:
        self._instances[instance.uid] = instance
        self._consoles.marks.watch(instance.uid, self.console(instance.uid))
        with suppress(NotFound):
            notice = self.cgroups.oom_notice(instance.uid)
            instance.watch_oom(OomWatch(notice, partial(self.cgroups.oom_kills, instance.uid)))
        instance.watch(
            init_gone=lambda: self.cgroups.note_oom(instance.uid),
            all_gone=lambda: self._spawn_end(instance),
        )

    def _spawn_end(self, instance: LxcInstance) -> None:
        task = asyncio.get_running_loop().create_task(self._end(instance))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, instance: LxcInstance) -> None:
        """Removes what the monitor left (nothing, unless it was killed), then tells who waits."""
        uid = instance.uid
        ended = Ended(EndKind.CRASH)
        self._consoles.marks.unwatch(uid)
        try:
            ended = end_of(self._notes.take(uid), self._note(uid), instance.exit_status())
            await self._sweep(uid)
        finally:
            if self._instances.get(uid) is instance:
                del self._instances[uid]
            instance.settle(ended)

    async def _sweep(self, uid: Uid) -> None:
        """What can't be removed is logged: it is the trouble of this VE alone, and of its next start."""
        try:
            await self.cgroups.sweep(uid)
        except RemoteFailed as error:
            log.warning("leftovers stay", ve=uid, error=error.message)
        except Exception:
            log.exception("leftovers stay unexpectedly", ve=uid)

    def _note(self, uid: Uid) -> str:
        with suppress(OSError):
            return (self._path / uid / "ended").read_text().strip()
        return ""

    def _remove_folder(self, uid: Uid) -> None:
        rundir.remove_files(self._path, uid)
        with suppress(FileNotFoundError):
            shutil.rmtree(self._path / uid)

    # Adopting

    def _take(self, found: Scan) -> None:
        for uid, pid in found.monitors.items():
            if uid in self._instances or uid in self._starting or not UID.fullmatch(uid):
                continue
            instance = hold(uid, pid, self._path, self._clock)
            if instance is not None:
                log.info("adopted", ve=uid, init=instance.init_pid)
                self._enter(instance)

    async def _end_unfinished(self, found: Scan) -> None:
        """What has come neither to run nor to an end by now would live on with nobody to mind it: its next start is clean."""
        left = (found.monitors.keys() | found.starting.keys()) - self._instances.keys()
        left = {uid for uid in left - self._starting if UID.fullmatch(uid)}
        if left:
            log.warning("unfinished starts ended", ves=sorted(left))
        await asyncio.gather(*(self._undo(uid, patience_s=0) for uid in left))

    async def _sweep_all(self, busy: set[Uid]) -> None:
        for uid in self.cgroups.present() - busy - self._instances.keys():
            log.info("leftovers removed", ve=uid)
            await self._sweep(uid)


def _write_config(folder: Path, text: str) -> None:
    """The console goes on."""
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "ended").unlink(missing_ok=True)
    config = folder / "config"
    config.touch(mode=0o600)
    config.write_text(text)
