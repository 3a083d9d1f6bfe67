"""Ends, leftovers, pipes and a late lxcfs: the parts of the runtime on real processes and files."""

import asyncio
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
import structlog

from kit.cgrouptree import MadeUpKernel
from kit.eventually import eventually
from veagent import lxcfs
from veagent.cgroup import Cgroups
from veagent.pidfd import Held, until_ended
from veagent.ports import EndKind, Stream
from veagent.runtime import procs
from veagent.runtime.adopt import scan
from veagent.runtime.instance import LxcInstance
from veagent.runtime.lxc import LxcRuntime, LxcSettings
from veagent.runtime.notes import EndNotes
from veagent.runtime.pump import HELD_BYTES, Input, Output
from veapi.clock import SystemClock
from veapi.model import Uid

UID = Uid("4b1b8a8e-0000-4000-8000-000000000001")
OTHER = Uid("4b1b8a8e-0000-4000-8000-000000000002")
TICK_S = 0.01


class Unsweepable(Cgroups):
    """Two VEs have left something; sweeping the first goes wrong in a way nobody thought of."""

    swept: ClassVar[list[Uid]] = []

    def present(self) -> set[Uid]:
        return {UID, OTHER}

    async def sweep(self, uid: Uid, *, timeout_s: float = 10.0) -> None:
        self.swept.append(uid)
        raise RecursionError(timeout_s)


def runtime_that_cannot_sweep(tmp_path: Path) -> LxcRuntime:
    cgroups = Unsweepable("verack/t", fs=str(tmp_path), files=MadeUpKernel(tmp_path, 2))
    settings = LxcSettings(state=tmp_path / "state", cgroup_root="verack/t")
    return LxcRuntime(settings, SystemClock(), cgroups=cgroups)


async def test_leftovers_of_one_ve_keep_no_agent_from_starting(tmp_path: Path) -> None:
    Unsweepable.swept.clear()
    assert list(await runtime_that_cannot_sweep(tmp_path).adopt()) == []
    assert set(Unsweepable.swept) == {UID, OTHER}


async def test_an_end_is_told_even_when_its_leftovers_stay(tmp_path: Path) -> None:
    runtime = runtime_that_cannot_sweep(tmp_path)
    init, monitor = [
        await asyncio.create_subprocess_exec("/bin/cat", stdin=subprocess.PIPE) for _ in "12"
    ]
    instance = LxcInstance(UID, Held(monitor.pid), Held(init.pid), 0.0)
    runtime._enter(instance)
    for process in (init, monitor):
        process.kill()
        await process.wait()
    ended = await asyncio.wait_for(instance.ended(), 5.0)
    assert ended.kind is EndKind.CRASH
    assert not list(runtime.init_pids())


async def test_monitors_tell_the_status_once(tmp_path: Path) -> None:
    notes = EndNotes(tmp_path / "run/monitor-fifo")
    notes.open()
    try:
        with (tmp_path / "run/monitor-fifo").open("wb", buffering=0) as fifo:
            for kind, value in ((0, 3), (2, 9), (0, 0)):
                fifo.write(struct.pack("=i256si", kind, UID.encode(), value))
        assert notes.take(Uid("other")) is None
        assert notes.take(UID) == 9
        assert notes.take(UID) is None
    finally:
        notes.close()
    assert not (tmp_path / "run/monitor-fifo").exists()


async def test_a_message_of_another_shape_is_ignored(tmp_path: Path) -> None:
    notes = EndNotes(tmp_path / "monitor-fifo")
    notes.open()
    try:
        (tmp_path / "monitor-fifo").write_bytes(b"x" * 100)
        assert notes.take(UID) is None
    finally:
        notes.close()


def test_a_start_is_told_to_a_tick_and_is_the_same_again() -> None:
    before = time.time()
    with subprocess.Popen(["sleep", "60"]) as process:
        after = time.time()
        found = [procs.started_at(process.pid, SystemClock()) for _ in range(20)]
        process.kill()
    assert before - 2 * TICK_S <= found[0] <= after + TICK_S
    assert max(found) - min(found) <= TICK_S


async def test_an_lxcfs_that_is_not_there_offers_nothing(tmp_path: Path) -> None:
    assert await lxcfs.Liveness(tmp_path).offered() == ()


async def test_an_lxcfs_that_hangs_offers_nothing_and_hangs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lxcfs, "ANSWER_WITHIN_S", 0.01)
    (tmp_path / "proc").mkdir()
    os.mkfifo(tmp_path / "proc/uptime")
    liveness = lxcfs.Liveness(tmp_path)
    assert await liveness.offered() == ()
    assert await liveness.offered() == ()
    (tmp_path / "proc/uptime").write_text("")  # lets the one thread go


def late_lxcfs(folder: Path) -> Path:
    """Its answer comes when the test writes one to this file."""
    (folder / "proc").mkdir(exist_ok=True)
    uptime = folder / "proc/uptime"
    uptime.unlink(missing_ok=True)
    os.mkfifo(uptime)
    return uptime


async def test_all_who_ask_together_wait_for_one_answer(tmp_path: Path) -> None:
    uptime = late_lxcfs(tmp_path)
    liveness = lxcfs.Liveness(tmp_path)
    asking = [asyncio.create_task(liveness.offered()) for _ in range(12)]
    await asyncio.sleep(0)
    await asyncio.to_thread(uptime.write_text, "1 1")
    assert await asyncio.gather(*asking) == [("proc/uptime",)] * 12


async def test_an_answer_that_is_late_once_counts_as_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uptime = late_lxcfs(tmp_path)
    liveness = lxcfs.Liveness(tmp_path)
    asking = asyncio.create_task(liveness.offered())
    await asyncio.to_thread(uptime.write_text, "1 1")
    assert await asking == ("proc/uptime",)
    monkeypatch.setattr(lxcfs, "ANSWER_WITHIN_S", 0.01)
    with structlog.testing.capture_logs() as logs:
        assert await liveness.offered() == ("proc/uptime",)
        assert logs == []
        assert await liveness.offered() == ()
        assert await liveness.offered() == ()
        assert [line["event"] for line in logs] == ["lxcfs does not answer"]
    await asyncio.to_thread(uptime.write_text, "1 1")  # lets the one thread go
    monkeypatch.setattr(lxcfs, "ANSWER_WITHIN_S", 10.0)
    await eventually(lambda: liveness._answer is not None and liveness._answer.done())
    uptime.unlink()
    uptime.write_text("1 1")
    assert await liveness.offered() == ("proc/uptime",)


async def test_output_stops_reading_when_nobody_takes_it() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    output = Output({read: Stream.STDOUT})
    sent = 0

    def stuck() -> bool:
        nonlocal sent
        try:
            sent += os.write(write, b"x" * 65_536)
        except BlockingIOError:
            return output.seen_bytes >= HELD_BYTES
        return False

    await eventually(stuck)
    assert output.seen_bytes < HELD_BYTES + 65_536
    os.close(write)
    taken = 0
    async for _, data in output.pieces():
        taken += len(data)
        if taken == sent:
            output.finish()
    assert taken == sent


async def test_what_is_left_in_a_pipe_comes_though_somebody_holds_its_end() -> None:
    read, write = os.pipe()
    output = Output({read: Stream.STDERR})
    os.write(write, b"last words")
    output.finish()
    assert [piece async for piece in output.pieces()] == [(Stream.STDERR, b"last words")]
    with pytest.raises(BrokenPipeError):
        os.write(write, b"x")
    os.close(write)


async def test_a_writer_is_released_when_its_input_is_closed() -> None:
    read, write = os.pipe()
    stdin = Input(write)
    task = asyncio.create_task(stdin.write(b"x" * (1 << 20)))
    await asyncio.sleep(0)
    stdin.close()
    await asyncio.wait_for(task, 5)
    os.close(read)


async def test_a_held_process_is_seen_to_end() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1)
    with Held(process.pid) as held:
        assert held.alive()
        assert not await until_ended(held, timeout_s=0.001)
        assert held.send(signal.SIGKILL)
        assert await until_ended(held, timeout_s=10)
        await process.wait()
        assert not held.send(signal.SIGKILL)
        assert held.wait_status() in {None, signal.SIGKILL}


def test_what_a_process_of_a_ve_calls_itself_is_not_even_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def owner(pid: int) -> int:
        return 0 if pid == os.getpid() else 1_000_000

    def cmdline(pid: int) -> str:
        assert pid == os.getpid()
        return f"[lxc monitor] {tmp_path} ve-1"

    monkeypatch.setattr(procs, "owner", owner)
    monkeypatch.setattr(procs, "cmdline", cmdline)
    assert scan(tmp_path).monitors == {"ve-1": os.getpid()}
