"""The agent as a process with its fake runtime, and a scripted controller over real gRPC and mTLS."""

import asyncio
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kit import certs
from kit.agenthost import BLOB, DIGEST, U1, U2, entry, host_set
from kit.eventually import eventually
from kit.fakecontroller import CLUSTER, FakeController, agent_config, running_controller
from veagent.peer import fetch_image
from veapi.channel import host_name
from veapi.errors import Denied
from veapi.model import Action, Uid, VEState
from veapi.v1 import api_pb2, session_pb2

MORTAL = ("setpriv", "--pdeathsig", "KILL")  # dies with the test run
PROGRAM = "from veagent.main import main; main()"


class Agent:
    """The program, started and killed by its test."""

    def __init__(self, config: Path, log: Path) -> None:
        self._config = config
        self._log = log
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        with self._log.open("ab") as log:
            argv = [sys.executable, "-c", PROGRAM, "--config", str(self._config)]
            self.process = await asyncio.create_subprocess_exec(*MORTAL, *argv, stderr=log)

    async def end(self, number: int = signal.SIGKILL) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()

    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[FakeController]:
    async with running_controller(tmp_path) as controller:
        yield controller


@asynccontextmanager
async def running_agent(
    tmp_path: Path, controller: FakeController, host: str = "h1"
) -> AsyncIterator[Agent]:
    sessions = len(controller.sessions)
    config = agent_config(tmp_path, controller, host)
    agent = Agent(config, tmp_path / f"{host}.log")
    await agent.start()
    try:
        await eventually(lambda: len(controller.sessions) > sessions)
        yield agent
    finally:
        await agent.end()


@pytest.fixture
async def agent(tmp_path: Path, controller: FakeController) -> AsyncIterator[Agent]:
    async with running_agent(tmp_path, controller) as agent:
        yield agent


async def upload(controller: FakeController, blob: bytes = BLOB) -> list[session_pb2.RelayUp]:
    relay = controller.relay(session_pb2.RelayDown(upload=session_pb2.RelayUpload()))
    half = len(blob) // 2
    for piece in (blob[:half], blob[half:]):
        relay.down.put_nowait(session_pb2.RelayDown(chunk=piece))
    relay.down.put_nowait(session_pb2.RelayDown(end=True))
    await eventually(lambda: relay.frames("upload_done") or relay.frames("failure"))
    return relay.up


async def up(controller: FakeController, *uids: Uid) -> None:
    await upload(controller)
    controller.session.push(host_set(1, *(entry(uid) for uid in uids or (U1,))))
    await eventually(
        lambda: all(controller.session.state(u) is VEState.RUNNING for u in uids or (U1,))
    )


async def test_says_what_the_host_is_and_has(controller: FakeController, agent: Agent) -> None:
    facts = controller.session.hello.facts
    assert (facts.capacity.cpu, facts.capacity.memory_bytes) == (4, 8 << 30)
    assert dict(facts.labels) == {"rack": "r1"}
    assert facts.peer_port > 0
    assert controller.callers[0].name == "h1"
    await eventually(lambda: controller.session.reports)
    first = controller.session.reports[0]
    assert (first.seq, first.whole, first.facts.boot_id) == (1, True, facts.boot_id)


async def test_a_set_is_acknowledged_and_a_quick_start_reported_once(
    controller: FakeController, agent: Agent
) -> None:
    await up(controller)
    assert controller.session.acks == [host_set(1).order]
    states = [state for uid, state, _ in controller.session.states if uid == U1]
    assert states == [VEState.RUNNING]
    seqs = [report.seq for report in controller.session.reports]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_an_upload_tells_its_progress_and_the_new_image(
    controller: FakeController, agent: Agent
) -> None:
    frames = await upload(controller, b"x" * (3 << 20))
    told = [frame.upload_received_bytes for frame in frames if frame.upload_received_bytes]
    assert told[-1] == 3 << 20
    image = frames[-1].upload_done
    assert image.blob_bytes == 3 << 20
    await eventually(
        lambda: any(
            held.digest == image.digest
            for report in controller.session.reports
            for held in report.facts.images
        )
    )


async def test_an_upload_that_breaks_off_leaves_nothing(
    controller: FakeController, agent: Agent, tmp_path: Path
) -> None:
    relay = controller.relay(session_pb2.RelayDown(upload=session_pb2.RelayUpload()))
    relay.down.put_nowait(session_pb2.RelayDown(chunk=BLOB))
    relay.down.put_nowait(None)
    await eventually(relay.ended.is_set)
    assert not list((tmp_path / "h1/fake/images").iterdir())


async def test_a_new_controller_gets_the_whole_and_nothing_restarts(
    controller: FakeController, agent: Agent
) -> None:
    await up(controller, U1, U2)
    pids = {uid: report.status.init_pid for uid, report in controller.session.ves.items()}
    await controller.stop()
    await controller.start()
    await eventually(lambda: len(controller.sessions) == 2)
    await eventually(lambda: controller.session.reports)
    assert controller.session.reports[0].whole
    assert {u: r.status.init_pid for u, r in controller.session.ves.items()} == pids
    held = controller.session.hello.held
    assert (held.incarnation, held.epoch, held.revision) == (1, 1, 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_new_agent_adopts_what_runs(
    controller: FakeController, agent: Agent, number: int
) -> None:
    await up(controller)
    pid = controller.session.ves[U1].status.init_pid
    await agent.end(number)
    await agent.start()
    await eventually(lambda: len(controller.sessions) == 2)
    await eventually(lambda: controller.session.reports)
    found = controller.session.ves[U1]
    assert (found.status.state, found.status.init_pid) == (VEState.RUNNING, pid)
    assert not found.orphan
    controller.session.push(host_set(2, entry(action=Action.PURGE)))
    await eventually(lambda: controller.session.ves[U1].gone)


async def test_sigterm_ends_it_well(controller: FakeController, agent: Agent) -> None:
    assert await agent.end(signal.SIGTERM) == 0
    assert "Traceback" not in agent.log()


async def test_a_second_agent_of_a_host_is_refused(
    controller: FakeController, agent: Agent, tmp_path: Path
) -> None:
    second = Agent(tmp_path / "h1.toml", tmp_path / "second.log")
    await second.start()
    assert await second.process.wait() == 4
    assert "another veagent works on" in second.log()
    assert "Traceback" not in second.log()


async def test_heartbeats_flow_and_silence_ends_the_session(
    controller: FakeController, agent: Agent
) -> None:
    await eventually(lambda: controller.heartbeats > 3)
    assert len(controller.sessions) == 1
    controller.deaf = True
    await eventually(lambda: len(controller.sessions) == 2)


async def test_follows_the_leader(controller: FakeController, tmp_path: Path) -> None:
    async with running_controller(tmp_path / "other") as other:
        other.ca, other.identity = controller.ca, controller.identity
        await other.stop()
        await other.start()
        controller.leader = other.address
        config = agent_config(
            tmp_path,
            controller,
            "h1",
            controllers=[controller.address, "127.0.0.1:1", other.address],
        )
        agent = Agent(config, tmp_path / "h1.log")
        await agent.start()
        try:
            await eventually(lambda: other.sessions)
            assert "127.0.0.1:1" not in agent.log()
        finally:
            await agent.end()


async def test_another_cluster_is_refused(controller: FakeController, tmp_path: Path) -> None:
    controller.cluster = "other"
    async with running_agent(tmp_path, controller) as agent:
        await eventually(lambda: "this controller is of cluster other" in agent.log())


# Streams.


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


# Images between hosts, and metrics.


async def test_an_image_comes_from_the_host_that_holds_it(
    controller: FakeController, agent: Agent, tmp_path: Path
) -> None:
    await upload(controller)
    first = controller.session
    async with running_agent(tmp_path, controller, "h2"):
        second = controller.session
        second.push(host_set(1, entry()))
        await eventually(lambda: second.images_wanted == [DIGEST])
        assert second.state(U1) is VEState.CREATING
        assert second.ves[U1].status.reason == "ImageFetching"
        ticket = b"t" * 16
        grant = session_pb2.PeerGrant(ticket=ticket, peer="h2", digest=DIGEST)
        first.down.put_nowait(session_pb2.SessionDown(peer_grant=grant))
        source = session_pb2.ImageSource(
            digest=DIGEST,
            ticket=ticket,
            peer="h1",
            address=f"127.0.0.1:{first.hello.facts.peer_port}",
        )
        second.down.put_nowait(session_pb2.SessionDown(image_source=source))
        await eventually(lambda: second.state(U1) is VEState.RUNNING)


async def test_an_image_whose_ticket_its_holder_never_hears_of_is_asked_for_again(
    controller: FakeController, agent: Agent, tmp_path: Path
) -> None:
    await upload(controller)
    first = controller.session
    async with running_agent(tmp_path, controller, "h2"):
        second = controller.session
        second.push(host_set(1, entry()))
        await eventually(lambda: second.images_wanted == [DIGEST])
        address = f"127.0.0.1:{first.hello.facts.peer_port}"
        source = session_pb2.ImageSource(
            digest=DIGEST, ticket=b"t" * 16, peer="h1", address=address
        )
        second.down.put_nowait(session_pb2.SessionDown(image_source=source))
        await eventually(lambda: second.images_wanted == [DIGEST, DIGEST])
        assert "no such ticket" in second.ves[U1].status.message


async def test_a_refused_image_is_told_and_asked_for_again(
    controller: FakeController, agent: Agent
) -> None:
    session = controller.session
    session.push(host_set(1, entry()))
    await eventually(lambda: session.images_wanted)
    failure = api_pb2.Failure(kind="not_found", message="no host holds it")
    source = session_pb2.ImageSource(digest=DIGEST, failure=failure)
    session.down.put_nowait(session_pb2.SessionDown(image_source=source))
    await eventually(lambda: session.ves[U1].status.message == "no host holds it")
    await eventually(lambda: len(session.images_wanted) > 1)


async def test_metrics_count_what_peers_asked_for(
    controller: FakeController, agent: Agent, tmp_path: Path
) -> None:
    facts = controller.session.hello.facts
    identity = certs.issue(controller.ca, host_name("h2", CLUSTER))
    with pytest.raises(Denied):
        await anext(
            fetch_image(f"127.0.0.1:{facts.peer_port}", "h1", CLUSTER, identity, b"", DIGEST)
        )
    page = await asyncio.to_thread(_get, f"http://{facts.metrics_address}/metrics")
    lines = [line for line in page.splitlines() if "verack_grpc_server_handled_total" in line]
    assert any("PeerService" in line and "PERMISSION_DENIED" in line for line in lines)
    assert page.count("# TYPE process_cpu_seconds_total") == 1


async def test_metrics_show_its_ves(controller: FakeController, agent: Agent) -> None:
    await up(controller)
    address = controller.session.hello.facts.metrics_address
    page = await asyncio.to_thread(_get, f"http://{address}/metrics")
    assert 'verack_ve_state{ve="ve-1111",project="default",host="h1",state="Running"} 1' in page
    assert await asyncio.to_thread(_get, f"http://{address}/healthz") == "ok\n"


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        page: bytes = answer.read()
    return page.decode()
