"""What a VE can be asked beside running, on a real host: frozen, restored, given its own processors and memory."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kit.agenthost import U1, entry, host_set
from kit.eventually import eventually
from kit.fakecontroller import FakeController, running_controller
from kit.realhost import RealHost, busybox_tar, real_host
from veapi.model import Action, Digest, HostSet, RootWish, SnapshotWish, VEState, VEStatus
from veapi.v1 import api_pb2, session_pb2

pytestmark = pytest.mark.usefixtures("host_can_run_ves")
SNAPSHOT = (SnapshotWish(tag="a", seq=1, created_at=1.0),)


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


class VE:
    """One that runs; `ask` waits until all is carried out, or refused."""

    def __init__(self, controller: FakeController, digest: str) -> None:
        self._controller = controller
        self._digest = Digest(digest)
        self._generation = 0

    async def ask(self, **changes) -> VEStatus:
        self._generation += 1
        told: dict[str, Any] = {
            "image_digest": self._digest,
            "stop_timeout_s": 0.2,
            "generation": self._generation,
        }
        wish = entry(**told, **changes)
        found = host_set(self._generation, wish)
        self._controller.session.push(HostSet(order=found.order, entries=found.entries))
        await eventually(self._is_over)
        return self.status

    def _is_over(self) -> bool:
        known = U1 in self._controller.session.ves
        return known and self.status.observed_generation == self._generation

    @property
    def status(self) -> VEStatus:
        return self._controller.session.ves[U1].status

    async def run(self, script: str) -> str:
        start = api_pb2.ExecStart(command=("sh", "-c", script))
        first = session_pb2.RelayDown(uid=U1, exec=api_pb2.ExecRequest(start=start))
        relay = self._controller.relay(first)
        await eventually(relay.ended.is_set)
        return b"".join(frame.exec.stdout for frame in relay.up).decode()


@pytest.fixture
async def ve(host: RealHost, controller: FakeController, tmp_path: Path) -> VE:
    assert host.agent is not None
    relay = controller.relay(session_pb2.RelayDown(upload=session_pb2.RelayUpload()))
    blob = busybox_tar(tmp_path)
    for start in range(0, len(blob), 1 << 20):
        relay.down.put_nowait(session_pb2.RelayDown(chunk=blob[start : start + (1 << 20)]))
    relay.down.put_nowait(session_pb2.RelayDown(end=True))
    await eventually(relay.ended.is_set, timeout_s=30)
    ve = VE(controller, "sha256:" + hashlib.sha256(blob).hexdigest())
    await ve.ask()
    return ve


async def test_a_frozen_ve_stands_still_and_goes_on(ve: VE) -> None:
    pid = ve.status.init_pid
    frozen = await ve.ask(action=Action.FREEZE)
    assert (frozen.state, frozen.init_pid) == (VEState.FROZEN, pid)
    thawed = await ve.ask()
    assert (thawed.state, thawed.init_pid) == (VEState.RUNNING, pid)
    assert await ve.run("echo awake") == "awake\n"


async def test_a_restored_ve_has_what_it_had(ve: VE) -> None:
    await ve.run("echo before > /kept")
    await ve.ask(snapshots=SNAPSHOT)
    assert [snapshot.tag for snapshot in ve.status.snapshots] == ["a"]
    await ve.run("echo after > /kept")
    refused = await ve.ask(snapshots=SNAPSHOT, root=RootWish(seq=1, snapshot="b"))
    assert (refused.state, refused.reason) == (VEState.RUNNING, "SourceMissing")
    assert await ve.run("cat /kept") == "after\n"
    restored = await ve.ask(snapshots=SNAPSHOT, root=RootWish(seq=2, snapshot="a"))
    assert (restored.state, restored.observed_root_seq) == (VEState.RUNNING, 2)
    assert await ve.run("cat /kept") == "before\n"


async def test_a_kept_ve_says_what_it_holds_and_comes_back(ve: VE) -> None:
    await ve.run("head -c 3000000 /dev/urandom > /data; sync; md5sum < /data > /sum")
    await ve.ask(action=Action.KEEP)
    assert ve.status.disk_used_bytes > 1_000_000
    await ve.ask(ip="10.66.9.9")
    assert ve.status.addresses == ("10.66.9.9",)
    assert await ve.run("md5sum < /data | cmp - /sum && echo same") == "same\n"
    assert "10.66.9.9/16" in await ve.run("ip -o -4 addr show dev eth0")


async def test_nproc_says_what_the_quota_fills(ve: VE) -> None:
    cores = len(os.sched_getaffinity(0))
    await ve.ask(cpu_millis=1000)
    assert await ve.run("nproc") == "1\n"
    await ve.ask(cpu_millis=cores * 1000)
    await eventually(lambda: len(ve.status.cpus) > 1 or cores == 1)
    assert await ve.run("nproc") == f"{cores}\n"


async def test_kills_for_want_of_memory_are_told(ve: VE) -> None:
    await ve.run("dd if=/dev/zero of=/dev/null bs=128M count=1")
    await eventually(lambda: ve.status.oom_kills > 0)
    assert ve.status.state is VEState.RUNNING
    assert ve.status.events[-1].reason == "OOMKilled"
