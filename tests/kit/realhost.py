"""One real host for an agent: a network namespace and a mount namespace, a pool in a loop file, cgroups of its own.

The controller that it dials is the test's own process, over a unix socket: no packet leaves the namespace.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kit import certs, dyingagent, netns
from kit.busyboxroot import make_busybox_root
from kit.fakecontroller import CLUSTER, FakeController
from veagent.ledger import Ledger
from veapi.channel import host_name

_HOLD = """
set -e
mkdir -p {kept}
mount --rbind /sys/fs/cgroup {kept}
mount -t sysfs sysfs /sys
mount --rbind {kept} /sys/fs/cgroup
umount -l {kept}
ip addr add 10.99.0.1/24 dev lo
touch {ready}
exec sleep infinity
"""
_DYING_AGENT = "from kit.dyingagent import main; main()"
_AGENT = "from veagent.main import main; main()"
_MORTAL = ("setpriv", "--pdeathsig", "KILL")  # dies with the test run
_FOLDERS = Path("/var/tmp")
ID_BASE = 900_000_000


class RealHost:
    """Where an agent can be started, killed and started again."""

    def __init__(self, folder: Path, controller: FakeController) -> None:
        self.folder = folder
        self.cgroups = f"vtagent{os.getpid()}"
        self.agent: asyncio.subprocess.Process | None = None
        self._config = _write_config(folder, controller, self.cgroups)
        self._holder: subprocess.Popen[bytes]

    def hold(self, namespace: str) -> None:
        ready = self.folder / "ready"
        script = _HOLD.format(kept=self.folder / "cgroups", ready=ready)
        self._holder = subprocess.Popen(
            [*_MORTAL, *netns.enter(namespace, ["unshare", "--mount", "sh", "-c", script])]
        )
        deadline = time.monotonic() + 10
        while not ready.exists():
            assert self._holder.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def enter(self, *argv: str) -> list[str]:
        """The argument list that runs `argv` in the host."""
        return ["nsenter", "-t", str(self._holder.pid), "-m", "-n", *argv]

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            self.enter(*argv), check=False, capture_output=True, text=True, timeout=30
        )
        return done.stdout

    async def start_agent(self) -> None:
        await self._start(_AGENT, {})

    async def start_dying_agent(self, number: int, when: str) -> None:
        """It kills itself before or after (`when`) the call of its ports with that number, from 1."""
        self.calls.unlink(missing_ok=True)
        told = {dyingagent.DEATH: f"{number}:{when}", dyingagent.CALLS: str(self.calls)}
        await self._start(_DYING_AGENT, told | {"PYTHONPATH": str(Path(__file__).parents[1])})

    @property
    def calls(self) -> Path:
        """Names of the calls that a dying agent made."""
        return self.folder / "calls"

    async def _start(self, code: str, environment: dict[str, str]) -> None:
        program = (sys.executable, "-c", code, "--config", str(self._config))
        argv = [*_MORTAL, *self.enter(*program)]
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = await asyncio.create_subprocess_exec(
                *argv, stderr=log, env={**os.environ, **environment}
            )

    async def end_agent(self, number: int = signal.SIGKILL) -> int:
        assert self.agent is not None
        with suppress(ProcessLookupError):
            self.agent.send_signal(number)
        return await self.agent.wait()

    def records(self) -> Collection[str]:
        """VEs that the agent's ledger knows."""
        return Ledger(self.folder / "state", sleep=asyncio.sleep).load()[1].keys()

    def last_record(self, uid: str) -> bytes:
        """The newest line on disk about that VE."""
        lines = _read(self.folder / "state/records").splitlines()
        return next((line for line in reversed(lines) if uid.encode() in line), b"")

    def release(self) -> None:
        """Kills what is left of the host, by its cgroups, and removes them."""
        _kill_members(self.cgroups)
        for pid in self._monitors():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        subprocess.run(self.enter("umount", str(self.folder / "pool")), check=False, timeout=30)
        self._holder.kill()
        self._holder.wait()
        _detach_loop(self.folder / "pool.img")
        _remove_groups(self.cgroups)

    def _monitors(self) -> list[int]:
        mark = f"[lxc monitor] {self.folder}/".encode()
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if _read(path).startswith(mark)
        ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _detach_loop(image: Path) -> None:
    listed = subprocess.run(
        ["losetup", "-j", str(image), "-nO", "NAME"], check=True, capture_output=True, text=True
    )
    for device in listed.stdout.split():
        subprocess.run(["losetup", "-d", device], check=False, timeout=30)


def _kill_members(root: str) -> None:
    for path in _groups(root):
        for pid in _read(path / "cgroup.procs").split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _groups(root: str) -> list[Path]:
    """Ours in every hierarchy, the deepest first."""
    tops = [*Path("/sys/fs/cgroup").glob(f"*/{root}"), *Path("/sys/fs/cgroup").glob(root)]
    return [Path(path) for top in tops for path, _, _ in os.walk(top, topdown=False)]


def _remove_groups(root: str) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found = _groups(root)
        if not found:
            return
        for path in found:
            with suppress(OSError):
                path.rmdir()
        time.sleep(0.02)


@contextmanager
def real_host(controller: FakeController) -> Iterator[RealHost]:
    """Everything of it goes at the end: processes, mounts, loop device, cgroups, its folder."""
    _sweep()
    netns.sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"vtagent{os.getpid()}-", dir=_FOLDERS))
    folder.chmod(0o755)  # the users of VEs must get through to their roots
    host = RealHost(folder, controller)
    with netns.namespace("agent") as name:
        host.hold(name)
        try:
            yield host
        finally:
            host.release()
            shutil.rmtree(folder)


def _sweep() -> None:
    """Removes what killed test runs left."""
    for group in Path("/sys/fs/cgroup").glob("*/vtagent*"):
        if _dead(group.name):
            _kill_members(group.name)
            _remove_groups(group.name)
    for folder in _FOLDERS.glob("vtagent*-*"):
        if _dead(folder.name):
            _detach_loop(folder / "pool.img")
            shutil.rmtree(folder)


def _dead(name: str) -> bool:
    pid = name.removeprefix("vtagent").split("-")[0]
    return pid.isdecimal() and not Path("/proc", pid).exists()


def busybox_tar(folder: Path) -> bytes:
    root = folder / "busybox"
    make_busybox_root(root)
    tar = subprocess.run(
        ["tar", "-C", str(root), "--owner=0", "--group=0", "-cf", "-", "."],
        check=True,
        capture_output=True,
    ).stdout
    shutil.rmtree(root)
    return tar


def _write_config(folder: Path, controller: FakeController, cgroups: str) -> Path:
    identity = certs.issue(controller.ca, host_name("h1", CLUSTER))
    path = folder / "agent.toml"
    path.write_text(
        f"""\
host = "h1"
cluster = "{CLUSTER}"
controllers = ["unix:{controller.socket}"]
address = "10.99.0.1"
state = "{folder}/state"

[tls]
ca = "{identity.ca}"
cert = "{identity.cert}"
key = "{identity.key}"

[pool]
kind = "loop"
path = "{folder}/pool.img"
size = "512M"
mount = "{folder}/pool"

[cgroup]
root = "{cgroups}"

[fence]
folder = "{folder}/fence"

[ids]
base = {ID_BASE}
count = 10
"""
    )
    return path
