"""The whole agent on a real host: LXC, btrfs, netlink; only the controller is scripted."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from kit.agenthost import U1, entry, host_set
from kit.eventually import eventually
from kit.fakecontroller import FakeController, running_controller
from kit.realhost import ID_BASE, RealHost, busybox_tar, real_host
from veapi.model import Action, Digest, HostSet, VEReport, VEState
from veapi.v1 import api_pb2, session_pb2

pytestmark = pytest.mark.usefixtures("host_can_run_ves")


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[FakeController]:
    async with running_controller(tmp_path) as controller:
        yield controller


@pytest.fixture
async def host(controller: FakeController) -> AsyncIterator[RealHost]:
    with real_host(controller) as host:
        await host.start_agent()
        try:
            await eventually(lambda: controller.sessions, timeout_s=20)
            yield host
        finally:
            await host.end_agent()


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


class Wishes:
    """Sets with one VE, each newer than the one before."""

    def __init__(self, controller: FakeController, digest: str) -> None:
        self._controller = controller
        self._digest = Digest(digest)
        self._revision = 0

    def push(self, **changes) -> None:
        self._revision += 1
        wish = entry(image_digest=self._digest, **changes)
        found = host_set(self._revision, wish)
        self._controller.session.push(HostSet(order=found.order, entries=found.entries))

    def ve(self) -> VEReport:
        return self._controller.session.ves[U1]

    async def until(self, state: VEState) -> None:
        session = self._controller.session
        await eventually(lambda: session.state(U1) is state)


@pytest.fixture
async def wishes(host: RealHost, controller: FakeController, tmp_path: Path) -> Wishes:
    relay = controller.relay(session_pb2.RelayDown(upload=session_pb2.RelayUpload()))
    blob = busybox_tar(tmp_path)
    for start in range(0, len(blob), 1 << 20):
        relay.down.put_nowait(session_pb2.RelayDown(chunk=blob[start : start + (1 << 20)]))
    relay.down.put_nowait(session_pb2.RelayDown(end=True))
    await eventually(relay.ended.is_set, timeout_s=30)
    digest = relay.up[-1].upload_done.digest
    assert digest == "sha256:" + hashlib.sha256(blob).hexdigest()
    wishes = Wishes(controller, digest)
    wishes.push()
    await wishes.until(VEState.RUNNING)
    return wishes


def owner(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def groups(host: RealHost) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"*/{host.cgroups}/ve/{U1}"))


async def execute(controller: FakeController, *words: str) -> tuple[bytes, int]:
    start = api_pb2.ExecStart(command=words)
    first = session_pb2.RelayDown(uid=U1, exec=api_pb2.ExecRequest(start=start))
    relay = controller.relay(first)
    await eventually(relay.ended.is_set)
    return b"".join(frame.exec.stdout for frame in relay.up), relay.up[-1].exec.exit_code


async def test_a_wish_becomes_a_real_ve(
    wishes: Wishes, controller: FakeController, host: RealHost
) -> None:
    pid = wishes.ve().status.init_pid
    assert owner(pid) == ID_BASE + 65_536
    out, code = await execute(
        controller, "sh", "-c", "hostname; ip -o -4 addr show dev eth0; exit 3"
    )
    assert code == 3
    assert out.startswith(b"ve-1111\n")
    assert b"10.66.1.1/16" in out
    gateway = await asyncio.to_thread(host.run, "ping", "-c1", "-W2", "10.66.1.1")
    assert "1 received" in gateway


async def test_a_killed_init_is_started_again_and_told(wishes: Wishes) -> None:
    pid = wishes.ve().status.init_pid
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: wishes.ve().status.restarts == 1, timeout_s=5)
    status = wishes.ve().status
    assert status.state is VEState.RUNNING
    assert status.init_pid != pid
    assert (status.events[-1].reason, status.events[-1].type.value) == ("Crashed", "Warning")


async def test_a_killed_agent_comes_back_to_the_same_inits(
    wishes: Wishes, controller: FakeController, host: RealHost
) -> None:
    pid = wishes.ve().status.init_pid
    await host.end_agent()
    await host.start_agent()
    await eventually(lambda: len(controller.sessions) == 2)
    await eventually(lambda: controller.session.reports)
    assert wishes.ve().status.init_pid == pid
    assert wishes.ve().status.state is VEState.RUNNING
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: wishes.ve().status.restarts == 1, timeout_s=5)
    assert (await execute(controller, "true"))[1] == 0


async def test_poweroff_and_reboot_while_the_agent_is_away(
    wishes: Wishes, controller: FakeController, host: RealHost
) -> None:
    for number, (end, reason) in enumerate(
        [(signal.SIGTERM, "Rebooted"), (signal.SIGUSR2, "PoweredOff")], start=2
    ):  # what busybox' init takes for `reboot` and for `poweroff`
        pid = wishes.ve().status.init_pid
        await eventually(lambda: b'"up":true' in host.last_record(U1))
        await host.end_agent()
        os.kill(pid, end)
        await eventually(partial(is_gone, pid), timeout_s=15)
        await host.start_agent()
        await eventually(partial(lambda wanted: len(controller.sessions) == wanted, number))
        await eventually(lambda: controller.session.reports)
        wishes.push()
        state = VEState.RUNNING if reason == "Rebooted" else VEState.STOPPED
        await wishes.until(state)
        assert wishes.ve().status.events[-1].reason == reason
    assert wishes.ve().status.reason == "PoweredOff"
    wishes.push(generation=2, run_generation=2)
    await wishes.until(VEState.RUNNING)


async def test_poweroff_and_reboot_from_inside(wishes: Wishes, controller: FakeController) -> None:
    await execute(controller, "reboot")
    await eventually(lambda: wishes.ve().status.restarts == 1, timeout_s=15)
    await wishes.until(VEState.RUNNING)
    assert wishes.ve().status.events[-1].reason == "Rebooted"
    await execute(controller, "poweroff")
    await wishes.until(VEState.STOPPED)
    assert wishes.ve().status.reason == "PoweredOff"
    wishes.push(generation=2, run_generation=2)
    await wishes.until(VEState.RUNNING)


async def test_limits_change_live_and_purge_leaves_nothing(
    wishes: Wishes, controller: FakeController, host: RealHost
) -> None:
    wishes.push(generation=2, memory_bytes=96 << 20, disk_bytes=2 << 30)
    await eventually(lambda: wishes.ve().status.observed_generation == 2)
    await execute(controller, "touch", "/left")
    root = host.folder / "pool/ve" / U1
    assert "left" in host.run("ls", str(root))
    wishes.push(generation=3, action=Action.PURGE)
    await eventually(lambda: wishes.ve().gone)
    assert host.run("ls", str(host.folder / "pool/ve")).split() == []
    assert not host.records()
    assert not groups(host)
