"""Exec and logs of a VE, through the agent as a process."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.agenthost import U1, entry, host_set
from kit.agentprocess import Agent, running_agent, up
from kit.eventually import eventually
from kit.fakecontroller import FakeController, running_controller
from veapi.model import Action, VEState
from veapi.v1 import api_pb2, session_pb2


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[FakeController]:
    async with running_controller(tmp_path) as controller:
        yield controller


@pytest.fixture
async def agent(tmp_path: Path, controller: FakeController) -> AsyncIterator[Agent]:
    async with running_agent(tmp_path, controller) as agent:
        yield agent


def start_of(*words: str, stdin: bool = False) -> session_pb2.RelayDown:
    start = api_pb2.ExecStart(command=words, stdin=stdin)
    return session_pb2.RelayDown(uid=U1, exec=api_pb2.ExecRequest(start=start))


def stdin(data: bytes) -> session_pb2.RelayDown:
    return session_pb2.RelayDown(exec=api_pb2.ExecRequest(stdin=data))


CLOSED = session_pb2.RelayDown(exec=api_pb2.ExecRequest(stdin_closed=True))


async def test_exec_gives_output_and_the_commands_own_exit_code(
    controller: FakeController, agent: Agent
) -> None:
    await up(controller)
    relay = controller.relay(start_of("echo", "hello"))
    await eventually(relay.ended.is_set)
    assert [frame.exec.stdout for frame in relay.up[:-1]] == [b"hello\n"]
    assert relay.up[-1].exec.WhichOneof("frame") == "exit_code"
    relay = controller.relay(start_of("exit", "42"))
    await eventually(relay.ended.is_set)
    assert relay.up[-1].exec.exit_code == 42


async def test_a_command_that_takes_no_stdin_ends_when_its_person_leaves(
    controller: FakeController, agent: Agent
) -> None:
    """More waits than the stream holds, so its own end would never be read."""
    await up(controller)
    relay = controller.relay(start_of("sleep", "1000", stdin=True))
    for _ in range(400):
        relay.down.put_nowait(stdin(b"x" * (64 << 10)))
    before = 0
    while relay.down.qsize() != before:  # until nothing moves any more
        before = relay.down.qsize()
        await asyncio.sleep(0.3)
    assert before > 0
    relay.left.set()
    await eventually(relay.ended.is_set)


async def test_exec_feeds_stdin_through(controller: FakeController, agent: Agent) -> None:
    await up(controller)
    relay = controller.relay(start_of("cat", stdin=True))
    blob = bytes(range(256)) * 4096
    for start in range(0, len(blob), 32 << 10):
        relay.down.put_nowait(stdin(blob[start : start + (32 << 10)]))
    relay.down.put_nowait(CLOSED)
    await eventually(relay.ended.is_set)
    assert b"".join(frame.exec.stdout for frame in relay.up) == blob


async def test_exec_ends_when_its_person_goes(controller: FakeController, agent: Agent) -> None:
    await up(controller)
    relay = controller.relay(start_of("sleep", "1000"))
    relay.down.put_nowait(None)
    await eventually(relay.ended.is_set)
    relay = controller.relay(start_of("true"))
    await eventually(relay.ended.is_set)
    assert relay.up[-1].exec.exit_code == 0


async def test_a_signal_reaches_the_command(controller: FakeController, agent: Agent) -> None:
    await up(controller)
    relay = controller.relay(start_of("sleep", "1000"))
    relay.down.put_nowait(session_pb2.RelayDown(exec=api_pb2.ExecRequest(signal=15)))
    await eventually(relay.ended.is_set)
    assert relay.up[-1].exec.exit_code == 128 + 15


async def test_exec_in_what_does_not_run_is_refused_with_a_hint(
    controller: FakeController, agent: Agent
) -> None:
    await up(controller)
    controller.session.push(host_set(2, entry(action=Action.STOP)))
    await eventually(lambda: controller.session.state(U1) is VEState.STOPPED)
    relay = controller.relay(start_of("true"))
    await eventually(relay.ended.is_set)
    failure = relay.up[-1].exec.failure
    assert (failure.kind, failure.hint) == ("conflict", "start it first")


async def test_logs_show_the_last_lines_and_follow(
    controller: FakeController, agent: Agent, tmp_path: Path
) -> None:
    await up(controller)
    console = tmp_path / f"h1/fake/ves/{U1}.console"
    console.write_bytes(b"one\ntwo\nthree\n")
    logs = session_pb2.RelayLogs(tail=2)
    relay = controller.relay(session_pb2.RelayDown(uid=U1, logs=logs))
    await eventually(relay.ended.is_set)
    assert b"".join(frame.log for frame in relay.up) == b"two\nthree\n"
    assert relay.up[-1].end

    logs = session_pb2.RelayLogs(tail=1, follow=True)
    relay = controller.relay(session_pb2.RelayDown(uid=U1, logs=logs))
    await eventually(lambda: relay.up)
    with console.open("ab") as more:
        more.write(b"four\n")
    await eventually(lambda: b"".join(frame.log for frame in relay.up) == b"three\nfour\n")
    console.rename(console.with_suffix(".1"))
    console.write_bytes(b"five\n")
    await eventually(lambda: b"".join(frame.log for frame in relay.up).endswith(b"four\nfive\n"))
    relay.down.put_nowait(None)
    await eventually(relay.ended.is_set)


@pytest.mark.parametrize("asked", ["upload", "exec", "logs"])
async def test_a_stream_that_the_other_side_aborts_is_one_quiet_line(
    controller: FakeController, agent: Agent, tmp_path: Path, asked: str
) -> None:
    await up(controller)
    console = tmp_path / f"h1/fake/ves/{U1}.console"
    console.write_bytes(b"one\n")
    first, more = {
        "upload": (
            session_pb2.RelayDown(upload=session_pb2.RelayUpload()),
            session_pb2.RelayDown(chunk=b"x" * (2 << 20)),
        ),
        "exec": (start_of("cat", stdin=True), stdin(b"hello\n")),
        "logs": (session_pb2.RelayDown(uid=U1, logs=session_pb2.RelayLogs(follow=True)), None),
    }[asked]
    relay = controller.relay(first)
    if more is not None:
        relay.down.put_nowait(more)
    await eventually(lambda: relay.up)
    relay.abort()
    if asked != "exec":  # there a person who goes is nothing special
        await eventually(lambda: "stream ended early" in agent.log())
    await eventually(relay.ended.is_set)
    after = controller.relay(start_of("true"))
    await eventually(after.ended.is_set)
    await agent.end(signal.SIGTERM)
    lines = [line for line in agent.log().splitlines() if "session" not in line]
    assert sum("stream" in line for line in lines) == (asked != "exec")
    for word in ("Traceback", "AioRpcError", "InvalidStateError", "unexpectedly"):
        assert word not in agent.log()
