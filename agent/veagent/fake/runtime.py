"""VEs that only seem to run. With a file they outlive their agent, as real ones do."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from veagent.fake.execute import FakeProcess
from veagent.fake.faults import Faults
from veagent.ports import Ended, EndKind, ExecCommand, ExecProcess, Instance, StartPlan
from veapi.clock import Clock
from veapi.errors import Conflict
from veapi.model import Limits, Uid

_FIRST_PID = 4_200_000  # above the kernel's highest
SIGKILLED = 9


class _Saved(msgspec.Struct, frozen=True):
    init_pid: int
    started_at: float
    hostname: str
    limits: Limits
    cpus: tuple[int, ...] = ()
    frozen: bool = False
    kills: int = 0


@dataclass(slots=True)
class FakeInstance:
    """A VE that seems to run. `kills`: for want of memory, since its start; `killed_before`: since the agent knows it."""

    uid: Uid
    init_pid: int
    started_at: float
    hostname: str
    limits: Limits
    cpus: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    frozen: bool = False
    kills: int = 0
    killed_before: int = 0
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    end: asyncio.Future[Ended] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    async def ended(self) -> Ended:
        return await asyncio.shield(self.end)

    async def oom_killed(self, *, after: int) -> int:
        while self.killed_before + self.kills <= after:
            self.looked.clear()
            await self.looked.wait()
        return self.killed_before + self.kills


class FakeRuntime(Faults):
    """ports.Runtime. `folder` holds the consoles and what runs."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(clock)
        self.running: dict[Uid, FakeInstance] = {}
        self.known: set[Uid] = set()
        self.consoles: set[Uid] = set()
        """Those that somebody is attached to."""
        self.weightless = False
        """Its disk has no weights."""
        self._killed: dict[Uid, int] = {}
        self._ends: dict[Uid, Ended] = {}
        self._folder = folder
        self._clock = clock
        self._pids = itertools.count(_FIRST_PID)

    async def setup(self) -> None:
        await self.call("setup")
        self._folder.mkdir(parents=True, exist_ok=True)

    async def adopt(self) -> Sequence[Instance]:
        await self.call("adopt")
        if not self.running:
            self._load()
        self._killed.clear()
        for instance in self.running.values():
            instance.killed_before = 0
        return list(self.running.values())

    async def start(self, plan: StartPlan) -> Instance:
        await self.call("start", plan.uid)
        assert plan.uid not in self.running, "started twice"
        instance = FakeInstance(
            plan.uid,
            next(self._pids),
            self._clock.wall(),
            plan.hostname,
            plan.limits,
            plan.cpus,
            plan.environment,
            killed_before=self._killed.get(plan.uid, 0),
        )
        self.running[plan.uid] = instance
        self.known.add(plan.uid)
        self._ends.pop(plan.uid, None)
        self._say(plan.uid, f"{plan.hostname}: started, as init {instance.init_pid}")
        self._store()
        return instance

    async def stop(self, instance: Instance, *, timeout_s: float) -> None:
        await self.call("kill" if timeout_s == 0 else "stop", instance.uid)
        killed = Ended(EndKind.CRASH, SIGKILLED)
        self.finish(instance.uid, killed if timeout_s == 0 else Ended(EndKind.HALT))

    def holdable(self, limits: Limits) -> Limits:
        return msgspec.structs.replace(limits, io_weight=0) if self.weightless else limits

    async def limit(self, uid: Uid, limits: Limits) -> None:
        if self.weightless and limits.io_weight:
            raise Conflict("the disk has no weights", hint="limit its rates")
        await self.call("limit", uid)
        self._running(uid).limits = limits
        self._store()

    async def pin(self, uid: Uid, cpus: Sequence[int]) -> None:
        await self.call("pin", uid)
        self._running(uid).cpus = tuple(cpus)
        self._store()

    async def freeze(self, uid: Uid) -> None:
        await self.call("freeze", uid)
        self._running(uid).frozen = True
        self._store()

    async def thaw(self, uid: Uid) -> None:
        await self.call("thaw", uid)
        self._running(uid).frozen = False
        self._store()

    def frozen(self, uid: Uid) -> bool:
        return uid in self.running and self.running[uid].frozen

    def _running(self, uid: Uid) -> FakeInstance:
        if uid not in self.running:
            raise Conflict("the VE does not run")
        return self.running[uid]

    async def attach_console(self, instance: Instance, *, columns: int, rows: int) -> ExecProcess:
        """Echoes what is typed, until it is closed."""
        await self.call("attach_console", instance.uid)
        if instance.uid in self.consoles:
            raise Conflict("somebody is attached to the console already")
        self.consoles.add(instance.uid)
        command = ExecCommand(("cat",), tty=True, columns=columns, rows=rows)
        console = FakeProcess(command, hostname=self._running(instance.uid).hostname)
        console.on_end(lambda: self.consoles.discard(instance.uid))
        return console

    async def execute(self, instance: Instance, command: ExecCommand) -> ExecProcess:
        await self.call("execute", instance.uid)
        if self.frozen(instance.uid):
            raise Conflict("the VE is frozen", hint="thaw it first")
        return FakeProcess(command, hostname=self.running[instance.uid].hostname)

    def last_end(self, uid: Uid) -> Ended | None:
        """As long as this object lives: over the death of its agent in tests, not of its process."""
        return self._ends.get(uid)

    def forget_end(self, uid: Uid) -> None:
        self._ends.pop(uid, None)

    async def forget(self, uid: Uid) -> None:
        await self.call("forget", uid)
        assert uid not in self.running, "forgotten while it runs"
        self._ends.pop(uid, None)
        self._killed.pop(uid, None)
        self.known.discard(uid)
        self.console(uid).unlink(missing_ok=True)

    def console(self, uid: Uid) -> Path:
        return self._folder / f"{uid}.console"

    async def aclose(self) -> None:
        await self.call("aclose")

    # On command.

    def kill(self, uid: Uid, wait_status: int = SIGKILLED) -> None:
        """Its init dies, as by `kill -9`."""
        self.finish(uid, Ended(EndKind.CRASH, wait_status))

    def power_off(self, uid: Uid) -> None:
        """As by `poweroff` typed inside."""
        self.finish(uid, Ended(EndKind.HALT))

    def reboot(self, uid: Uid) -> None:
        """As by `reboot` typed inside."""
        self.finish(uid, Ended(EndKind.REBOOT))

    def run_out_of_memory(self, uid: Uid, *, kills: int = 1) -> None:
        """The kernel ends so many of its processes, not its init."""
        instance = self._running(uid)
        instance.kills += kills
        instance.looked.set()
        self._store()

    def finish(self, uid: Uid, ended: Ended) -> None:
        """Ends it; nothing when it does not run."""
        instance = self.running.pop(uid, None)
        if instance is None:
            return
        self._ends[uid] = ended
        self._killed[uid] = instance.killed_before + instance.kills
        self._say(uid, f"{instance.hostname}: ended, {ended.kind.value}")
        self._store()
        if not instance.end.done():
            instance.end.set_result(ended)

    def _say(self, uid: Uid, line: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.console(uid).open("a") as console:
            console.write(f"{line}\n")

    @property
    def _file(self) -> Path:
        return self._folder / "running.json"

    def _store(self) -> None:
        saved = {
            uid: _Saved(i.init_pid, i.started_at, i.hostname, i.limits, i.cpus, i.frozen, i.kills)
            for uid, i in self.running.items()
        }
        beside = self._file.with_suffix(".tmp")
        beside.write_bytes(msgspec.json.encode(saved))
        beside.rename(self._file)

    def _load(self) -> None:
        if not self._file.exists():
            return
        saved = msgspec.json.decode(self._file.read_bytes(), type=dict[str, _Saved])
        for name, was in saved.items():
            uid = Uid(name)
            self.running[uid] = FakeInstance(
                uid,
                was.init_pid,
                was.started_at,
                was.hostname,
                was.limits,
                was.cpus,
                frozen=was.frozen,
                kills=was.kills,
            )
            self.known.add(uid)
        highest = max((was.init_pid for was in saved.values()), default=_FIRST_PID)
        self._pids = itertools.count(highest + 1)
