"""Hundreds of short lives on one real host, whose agent is killed at random: afterwards nothing is left of them.

In the first half the agent dies again and again. Of the one that lives through the second half memory, files and threads
must not grow. A run is repeated by its seed: VERACK_LEAK_SEED=… VERACK_LEAK_CYCLES=… pytest tests/system/test_leaks.py.
"""

import asyncio
import os
import random
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from kit.agenthost import entry, host_set
from kit.eventually import eventually
from kit.fakecontroller import FakeController, Relay, running_controller
from kit.footprint import Weight, differences, footprint
from kit.realhost import RealHost, busybox_tar, real_host
from veapi.model import Action, Digest, HostSet, SetEntry, SnapshotWish, Uid, VEState
from veapi.v1 import api_pb2, session_pb2

pytestmark = [pytest.mark.usefixtures("host_can_run_ves"), pytest.mark.timeout(1800)]
CYCLES = int(os.environ.get("VERACK_LEAK_CYCLES", "200"))
AT_ONCE = 6
SLOW_S = 120.0
"""The longest wait for anything: this machine may be busy."""
MORE_MEMORY_BYTES = 8 << 20
MORE_FILES = 8


class Cluster:
    """The set of the host, which every session gets whole, also one that comes after an agent's death."""

    def __init__(self, controller: FakeController) -> None:
        self.digest = Digest("")
        self._controller = controller
        self._entries: dict[Uid, SetEntry] = {}
        self._revision = 0

    def push(self) -> None:
        self._revision += 1
        order = host_set(self._revision).order
        entries = tuple(self._entries.values())
        self._controller.session.push(HostSet(order=order, entries=entries))

    async def serve(self) -> None:
        """For ever: the set for each new session."""
        served = 0
        while True:
            await session_after(self._controller, served, 10 * SLOW_S)
            served = len(self._controller.sessions)
            self.push()

    def wish(self, wanted: SetEntry) -> None:
        self._entries[wanted.uid] = wanted
        self.push()

    def forget(self, uid: Uid) -> None:
        del self._entries[uid]
        self.push()


async def session_after(controller: FakeController, known: int, timeout_s: float) -> None:
    await eventually(lambda: len(controller.sessions) > known, timeout_s)


class Life:
    """One VE from its creation to its purge."""

    def __init__(self, cluster: Cluster, controller: FakeController, place: int) -> None:
        self._cluster, self._controller = cluster, controller
        self._wanted = entry(
            Uid(str(uuid.uuid4())),
            image_digest=cluster.digest,
            ip=f"10.66.2.{place + 2}",
            mac=f"02:00:0a:42:02:{place + 2:02x}",
            net_in_bps=50_000_000,
            net_out_bps=20_000_000,
        )

    @property
    def uid(self) -> Uid:
        return self._wanted.uid

    async def live(self) -> None:
        self._wish()
        await self._until_state(VEState.RUNNING)
        await self._execute()
        self._wish(snapshots=(SnapshotWish(tag="one", seq=1, created_at=1.0),))
        await self._until(self._has_snapshot)
        self._wish(action=Action.STOP)
        await self._until_state(VEState.STOPPED)
        self._wish(action=Action.PURGE)
        await self._until(lambda: self._reported() and self._controller.session.ves[self.uid].gone)
        self._cluster.forget(self.uid)

    def _wish(self, **changes: object) -> None:
        generation = self._wanted.generation + 1
        self._wanted = msgspec.structs.replace(self._wanted, generation=generation, **changes)
        self._cluster.wish(self._wanted)

    async def _until(self, predicate) -> None:
        try:
            await eventually(predicate, SLOW_S)
        except AssertionError:
            seen = self._controller.session.ves.get(self.uid)
            raise AssertionError(f"wanted: {self._wanted}, reported: {seen}") from None

    async def _until_state(self, state: VEState) -> None:
        await self._until(lambda: self._controller.session.state(self.uid) is state)

    def _reported(self) -> bool:
        return self.uid in self._controller.session.ves

    def _has_snapshot(self) -> bool:
        if not self._reported():
            return False
        found = self._controller.session.ves[self.uid].status.snapshots
        return [(each.tag, each.error) for each in found] == [("one", "")]

    async def _execute(self) -> None:
        """Until it succeeds: it may meet an agent's death."""
        while not await self._executed():
            await self._until_state(VEState.RUNNING)

    async def _executed(self) -> bool:
        start = api_pb2.ExecStart(command=("sh", "-c", "echo hi | tee /root/x"))
        session = self._controller.session
        first = session_pb2.RelayDown(uid=self.uid, exec=api_pb2.ExecRequest(start=start))
        relay = self._controller.relay(first)
        await self._until(lambda: relay.ended.is_set() or self._controller.session is not session)
        return _output(relay) == b"hi\n"


def _output(relay: Relay) -> bytes:
    return b"".join(frame.exec.stdout for frame in relay.frames("exec"))


async def lives(cluster: Cluster, controller: FakeController, count: int) -> None:
    """So many, some at once."""
    left = iter(range(count))

    async def one_after_another(place: int) -> None:
        for _ in left:
            await Life(cluster, controller, place).live()

    async with asyncio.TaskGroup() as group:
        for place in range(AT_ONCE):
            group.create_task(one_after_another(place))


@asynccontextmanager
async def deaths(
    host: RealHost, controller: FakeController, dice: random.Random
) -> AsyncIterator[list[float]]:
    """Meanwhile the agent is killed at random moments, and started again. Gives how long each one lived."""
    ages: list[float] = []

    async def kill() -> None:
        while True:
            ages.append(dice.uniform(0.0, 2.0))
            await asyncio.sleep(ages[-1])
            before = len(controller.sessions)
            await host.end_agent()
            await host.start_agent()
            await session_after(controller, before, SLOW_S)

    killer = asyncio.create_task(kill())
    try:
        yield ages
    finally:
        killer.cancel()
        with suppress(asyncio.CancelledError):
            await killer
        if host.agent is None or host.agent.returncode is not None:
            await host.start_agent()


async def hold_image(controller: FakeController, folder: Path) -> Digest:
    relay = controller.relay(session_pb2.RelayDown(upload=session_pb2.RelayUpload()))
    relay.down.put_nowait(session_pb2.RelayDown(chunk=busybox_tar(folder)))
    relay.down.put_nowait(session_pb2.RelayDown(end=True))
    await eventually(relay.ended.is_set, SLOW_S)
    return Digest(relay.up[-1].upload_done.digest)


async def test_nothing_is_left_of_hundreds_of_lives_and_many_deaths_of_the_agent(
    tmp_path: Path,
) -> None:
    seed = int(os.environ.get("VERACK_LEAK_SEED") or random.SystemRandom().randrange(1 << 32))
    say(f"VERACK_LEAK_SEED={seed} VERACK_LEAK_CYCLES={CYCLES}")
    async with running_controller(tmp_path) as controller:
        with real_host(controller) as host:
            await host.start_agent()
            try:
                await eventually(lambda: controller.sessions, SLOW_S)
                cluster = Cluster(controller)
                serving = asyncio.create_task(cluster.serve())
                cluster.digest = await hold_image(controller, tmp_path)
                await story(host, controller, cluster, random.Random(seed))
                serving.cancel()
            finally:
                await host.end_agent()


async def story(
    host: RealHost, controller: FakeController, cluster: Cluster, dice: random.Random
) -> None:
    await lives(cluster, controller, 1)
    await settled(host)
    before = await asyncio.to_thread(footprint, host)
    say("warm")
    async with deaths(host, controller, dice) as ages:
        await lives(cluster, controller, CYCLES // 2)
    say("no more deaths")
    sessions = len(controller.sessions)
    await eventually(lambda: controller.session.reports, SLOW_S)
    await lives(cluster, controller, CYCLES // 4)
    weights = [Weight.of(agent_pid(host))]
    await lives(cluster, controller, CYCLES // 4)
    weights.append(Weight.of(agent_pid(host)))
    say(f"{len(ages)} deaths, {sessions} sessions; the last agent: {weights}")
    await nothing_left(host, before)
    say("nothing left")
    await flat(host, weights)


def say(text: str) -> None:
    """Shown with a failure."""
    print(f"{time.monotonic():.1f} {text}")  # noqa: T201 - for people


async def settled(host: RealHost) -> None:
    """What btrfs does later is done: it cleans up what was deleted after its next commit."""
    for what in ("filesystem", "subvolume"):
        await asyncio.to_thread(host.run, "btrfs", what, "sync", str(host.folder / "pool"))


async def nothing_left(host: RealHost, before) -> None:
    """Soon: btrfs and the agent clean up some things later."""
    for _ in range(60):
        await settled(host)
        found = differences(before, await asyncio.to_thread(footprint, host))
        if not found:
            return
        await asyncio.sleep(1)
    raise AssertionError(f"left: {found}")


def agent_pid(host: RealHost) -> int:
    assert host.agent is not None
    return host.agent.pid


async def flat(host: RealHost, weights: list[Weight]) -> None:
    middle, end = weights
    assert end.memory_bytes <= middle.memory_bytes + MORE_MEMORY_BYTES
    assert end.files <= middle.files + MORE_FILES
    assert Weight.of(agent_pid(host)).children == 0
