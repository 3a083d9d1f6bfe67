"""A real agent that is killed at each call to the host it makes, in the life of a VE: nothing is lost, nothing is left."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.agenthost import U1, host_set
from kit.eventually import eventually
from kit.fakecontroller import FakeController, running_controller
from kit.lifestory import Chapter, short_story
from kit.realhost import RealHost, busybox_tar, real_host
from veapi.model import Action, Digest, HostSet, SetEntry, VEState
from veapi.v1 import session_pb2

pytestmark = [pytest.mark.usefixtures("host_can_run_ves"), pytest.mark.timeout(900)]
PATIENCE_S = 30.0
_STATES = {Action.RUN: VEState.RUNNING, Action.FREEZE: VEState.FROZEN}


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[FakeController]:
    async with running_controller(tmp_path) as controller:
        yield controller


@pytest.fixture
async def host(controller: FakeController) -> AsyncIterator[RealHost]:
    with real_host(controller) as host:
        try:
            yield host
        finally:
            await host.end_agent()


async def upload(controller: FakeController, folder: Path) -> Digest:
    relay = controller.relay(session_pb2.RelayDown(upload=session_pb2.RelayUpload()))
    blob = busybox_tar(folder)
    for start in range(0, len(blob), 1 << 20):
        relay.down.put_nowait(session_pb2.RelayDown(chunk=blob[start : start + (1 << 20)]))
    relay.down.put_nowait(session_pb2.RelayDown(end=True))
    await eventually(relay.ended.is_set, timeout_s=30)
    return Digest(relay.up[-1].upload_done.digest)


class Life:
    """The story, on a host whose agent dies once and is started again."""

    def __init__(self, host: RealHost, controller: FakeController) -> None:
        self._host = host
        self._controller = controller
        self._revision = 0
        self.died = False

    async def tell(self, chapters: list[Chapter], number: int, when: str) -> None:
        self.died = False
        sessions = len(self._controller.sessions)
        await self._host.start_dying_agent(number, when)
        await self._connected(sessions)
        for chapter in chapters:
            self._revision += 1
            await self._live(chapter)
        await self._host.end_agent()

    async def _live(self, chapter: Chapter) -> None:
        (wish,) = chapter.wishes
        while True:
            self._push(wish)
            await eventually(lambda: self._is_over(wish) or self._is_dead(), timeout_s=PATIENCE_S)
            if not self._is_dead():
                return
            sessions = len(self._controller.sessions)
            await self._revive()
            await self._connected(sessions)

    async def _connected(self, before: int) -> None:
        await eventually(
            lambda: len(self._controller.sessions) > before or self._is_dead(), timeout_s=20
        )
        if self._is_dead():
            await self._revive()
            await self._connected(before)
        await eventually(lambda: self._controller.session.reports, timeout_s=20)

    async def _revive(self) -> None:
        assert not self.died, "it died a second time"
        self.died = True
        await self._host.start_agent()

    def _is_dead(self) -> bool:
        return self._host.agent is not None and self._host.agent.returncode is not None

    def _push(self, wish: SetEntry) -> None:
        found = host_set(self._revision, wish)
        self._controller.session.push(HostSet(order=found.order, entries=found.entries))

    def _is_over(self, wish: SetEntry) -> bool:
        report = self._controller.session.ves.get(U1)
        if report is None:
            return False
        match wish.action:
            case Action.KEEP:
                return report.kept
            case Action.PURGE:
                return report.gone
            case _:
                status = report.status
                settled = status.observed_generation == wish.generation
                right = status.observed_root_seq == wish.root.seq
                return settled and right and status.state is _STATES[wish.action]


def left_on(host: RealHost) -> list[str]:
    """All that could be of a VE."""
    cgroups = Path("/sys/fs/cgroup")
    tops = [*cgroups.glob(f"*/{host.cgroups}"), *cgroups.glob(host.cgroups)]
    listed = host.run("ip", "-o", "link", "show").splitlines()
    return [
        *host.records(),
        *host.run("ls", str(host.folder / "pool/ve")).split(),
        *host.run("ls", str(host.folder / "pool/snap")).split(),
        *(str(path) for top in tops for kind in ("ve", "mon") for path in top.glob(f"{kind}/*-*")),
        *(line for line in listed if re.search(r": [vi][0-9a-f]{12}\b", line)),
        *(str(path) for path in (host.folder / "state/lxc").glob("*-*-*")),
        *(line for line in host.run("cat", "/proc/self/mounts").splitlines() if U1 in line),
        *(line for line in _command_lines() if f"{host.folder}/state/lxc" in line),
    ]


def _command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


async def test_an_agent_killed_at_any_call_loses_nothing_and_leaves_nothing(
    host: RealHost, controller: FakeController, tmp_path: Path
) -> None:
    """Odd calls are cut before, even ones after they have been made."""
    await host.start_agent()
    await eventually(lambda: controller.sessions, timeout_s=20)
    digest = await upload(controller, tmp_path)
    await host.end_agent()
    life, chapters = Life(host, controller), short_story(image_digest=digest, stop_timeout_s=0.2)
    number = 0
    while number == 0 or life.died:
        number += 1
        await life.tell(chapters, number, "before" if number % 2 else "after")
        left = await asyncio.to_thread(left_on, host)
        calls = host.calls.read_text().split()
        assert not left, f"killed at call {number}, {calls[-1]}"
    assert number > 25
