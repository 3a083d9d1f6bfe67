"""An LXC runtime with a folder, a cgroup root and id ranges of its own, which leaves nothing behind."""

import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from kit.busyboxroot import make_busybox_root
from veagent.ports import ExecCommand, Instance, StartPlan, Stream
from veagent.runtime import LxcRuntime, LxcSettings
from veapi.clock import SystemClock
from veapi.model import Limits, Uid

MIB = 1 << 20
LIMITS = Limits(cpu_millis=1000, memory_bytes=64 * MIB, pids=64)
_SERIAL = itertools.count()


@dataclass
class Lab:
    """A runtime that was set up, and plans for VEs on a busybox root that they share or have alone."""

    runtime: LxcRuntime
    folder: Path
    cgroup_root: str
    lxcfs: Path | None = None
    _bases: Iterator[int] = field(default_factory=lambda: itertools.count(200_000_000, 65_536))

    def plan(self, **changes: object) -> StartPlan:
        """A VE with a root of its own (hard links to one busybox would be shared: they are copies)."""
        uid = Uid(str(uuid.uuid4()))
        root = self.folder / "roots" / uid
        make_busybox_root(root)
        values: dict[str, object] = {
            "uid": uid,
            "hostname": "ve",
            "root": root,
            "id_base": next(self._bases),
            "limits": LIMITS,
            "nic": None,
        }
        return StartPlan(**{**values, **changes})  # type: ignore[arg-type]

    def another_runtime(self) -> LxcRuntime:
        """As a restarted agent would make it."""
        return _runtime(self.folder, self.cgroup_root, self.lxcfs)

    async def run(self, instance: Instance, *argv: str, **options: object) -> "Ran":
        """Runs a command to its end."""
        process = await self.runtime.execute(instance, ExecCommand(argv, **options))  # type: ignore[arg-type]
        try:
            pieces = [piece async for piece in process.output()]
            code = await process.exit_code()
        finally:
            await process.close()
        return Ran(
            code,
            b"".join(data for stream, data in pieces if stream is Stream.STDOUT).decode(),
            b"".join(data for stream, data in pieces if stream is Stream.STDERR).decode(),
        )

    def groups(self) -> list[Path]:
        """All cgroup folders of VEs and monitors that are there."""
        kinds = [top / self.cgroup_root / kind for top in _tops() for kind in ("ve", "mon")]
        return [path for kind in kinds for path in kind.glob("*") if path.is_dir()]

    def processes(self) -> list[str]:
        """Command lines of all processes on the machine that name this lab."""
        return [line for line in _command_lines() if str(self.folder) in line]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@asynccontextmanager
async def lab(*, lxcfs: Path | None = None) -> AsyncIterator[Lab]:
    """Makes a lab; on leaving, ends all its VEs and removes every trace."""
    folder = _make_folder()
    cgroup_root = f"verack-test-rt-{os.getpid()}-{next(_SERIAL)}/h"
    made = Lab(_runtime(folder, cgroup_root, lxcfs), folder, cgroup_root, lxcfs)
    try:
        await made.runtime.setup()
        yield made
    finally:
        try:
            await _end_all(made)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _make_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="verack-rt-"))
    folder.chmod(0o711)
    return folder


def _configured(folder: Path) -> list[Uid]:
    return [Uid(config.parent.name) for config in folder.glob("lxc/*/config")]


async def _end_all(made: Lab) -> None:
    await made.runtime.aclose()
    last = made.another_runtime()
    await last.setup()
    try:
        for instance in await last.adopt():
            await last.stop(instance, timeout_s=0)
        for uid in _configured(made.folder):
            await last.forget(uid)
    finally:
        await last.aclose()
        last.cgroups.remove_root()


def _runtime(folder: Path, cgroup_root: str, lxcfs: Path | None) -> LxcRuntime:
    settings = LxcSettings(state=folder, cgroup_root=cgroup_root, lxcfs=lxcfs)
    return LxcRuntime(settings, SystemClock())


def _tops() -> list[Path]:
    fs = Path("/sys/fs/cgroup")
    return [fs] if (fs / "cgroup.controllers").exists() else list(fs.iterdir())


def _command_lines() -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return lines
