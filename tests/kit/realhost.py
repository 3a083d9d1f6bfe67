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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kit import certs, netns
from kit.busyboxroot import make_busybox_root
from kit.fakecontroller import CLUSTER, FakeController
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
_AGENT = "from veagent.main import main; main()"
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
            netns.enter(namespace, ["unshare", "--mount", "sh", "-c", script])
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
        argv = self.enter(sys.executable, "-c", _AGENT, "--config", str(self._config))
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = await asyncio.create_subprocess_exec(*argv, stderr=log)

    async def end_agent(self, number: int = signal.SIGKILL) -> int:
        assert self.agent is not None
        with suppress(ProcessLookupError):
            self.agent.send_signal(number)
        return await self.agent.wait()

    def release(self) -> None:
        """Kills what is left of the host, by its cgroups, and removes them."""
        for path in sorted(Path("/sys/fs/cgroup").glob(f"**/{self.cgroups}/**/cgroup.procs")):
            for pid in path.read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
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


def _remove_groups(root: str) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found = [p for p in Path("/sys/fs/cgroup").glob(f"**/{root}/**/") if p.is_dir()]
        if not found:
            return
        for path in sorted(found, key=lambda p: -len(p.parts)):
            with suppress(OSError):
                path.rmdir()
        time.sleep(0.02)


@contextmanager
def real_host(controller: FakeController) -> Iterator[RealHost]:
    """Everything of it goes at the end: processes, mounts, loop device, cgroups, its folder."""
    folder = Path(tempfile.mkdtemp(prefix="vtagent", dir="/var/tmp"))
    folder.chmod(0o755)  # the users of VEs must get through to their roots
    host = RealHost(folder, controller)
    with netns.namespace("agent") as name:
        host.hold(name)
        try:
            yield host
        finally:
            host.release()
            shutil.rmtree(folder)


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

[ids]
base = {ID_BASE}
count = 10
"""
    )
    return path
