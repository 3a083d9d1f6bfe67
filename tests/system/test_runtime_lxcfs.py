"""A VE's /proc shows its own limits, also after lxcfs was killed and started again."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kit.eventually import eventually
from kit.realves import LIMITS, Lab, lab
from veagent import lxcfs
from veagent.ports import Instance

pytestmark = [
    pytest.mark.skipif(shutil.which("lxc-start") is None, reason="lxc is not installed"),
    pytest.mark.skipif(shutil.which("lxcfs") is None, reason="lxcfs is not installed"),
]
OWN_LIMIT = f"MemTotal: {LIMITS.memory_bytes // 1024} kB"


class Server:
    """An lxcfs of our own on a folder of our own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="verack-lxcfs-"))
        self.mount = self.folder / "mount"
        self.mount.mkdir()
        self.folder.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["lxcfs", "-f", "-p", self.folder / "pid", "-l", "-u", "--enable-cfs", self.mount],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def mounted(self) -> bool:
        return (self.mount / "proc/uptime").exists()

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.mount], check=False, capture_output=True)

    def remove(self) -> None:
        self.kill()
        self.unmount()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    try:
        yield made
    finally:
        made.remove()


async def started(server: Server) -> None:
    server.start()
    await eventually(server.mounted)


@pytest.fixture
async def ves(server: Server) -> AsyncIterator[Lab]:
    await started(server)
    async with lab(lxcfs=server.mount) as made:
        yield made


@contextlib.asynccontextmanager
async def watching(ves: Lab, server: Server) -> AsyncIterator[None]:
    watch = lxcfs.LxcfsWatch(server.mount, ves.runtime.init_pids)
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def shown(ves: Lab, instance: Instance) -> str:
    ran = await ves.run(instance, "head", "-1", "/proc/meminfo")
    return " ".join((ran.out or ran.err).split())


async def shows_its_limit(ves: Lab, instance: Instance) -> None:
    async with asyncio.timeout(10):
        while await shown(ves, instance) != OWN_LIMIT:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_ve_sees_its_own_limits(ves: Lab) -> None:
    instance = await ves.runtime.start(ves.plan())
    assert await shown(ves, instance) == OWN_LIMIT
    script = "cut -d. -f1 /proc/uptime; grep -c ^processor /proc/cpuinfo; cat /sys/devices/system/cpu/online"
    uptime, processors, online = (await ves.run(instance, "sh", "-c", script)).out.split()
    assert int(uptime) < 60
    assert (processors, online) == ("1", "0")


async def test_running_ves_get_a_restarted_lxcfs(ves: Lab, server: Server) -> None:
    instances = [await ves.runtime.start(ves.plan()) for _ in range(3)]
    async with watching(ves, server):
        for _ in range(2):
            server.kill()
            assert "not connected" in await shown(ves, instances[0])
            server.unmount()
            await started(server)
            for instance in instances:
                await shows_its_limit(ves, instance)


async def test_a_restart_while_the_agent_was_away_is_noticed(ves: Lab, server: Server) -> None:
    instance = await ves.runtime.start(ves.plan())
    server.kill()
    server.unmount()
    await started(server)
    assert "not connected" in await shown(ves, instance)
    async with watching(ves, server):
        await shows_its_limit(ves, instance)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_ve_started_without_a_living_lxcfs_gets_it_later(
    ves: Lab, server: Server, number: int
) -> None:
    server.send(number)
    instance = await ves.runtime.start(ves.plan())
    line = await shown(ves, instance)
    assert line.startswith("MemTotal:")
    assert line != OWN_LIMIT
    server.kill()
    server.unmount()
    await started(server)
    async with watching(ves, server):
        await shows_its_limit(ves, instance)


async def test_the_host_and_what_has_the_number_of_a_gone_ve_are_left_alone(server: Server) -> None:
    await started(server)
    watch = lxcfs.LxcfsWatch(server.mount, lambda: [os.getpid(), 1 << 22])
    before = Path("/proc/self/mountinfo").read_text()  # noqa: ASYNC240
    assert await watch.rebind() == 0
    assert Path("/proc/self/mountinfo").read_text() == before  # noqa: ASYNC240
