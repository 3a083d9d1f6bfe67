"""The agent as a process with its fake runtime, and a scripted controller over real gRPC and mTLS."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.agenthost import U1, U2, entry, host_set
from kit.agentprocess import Agent, page_of, running_agent, up
from kit.eventually import eventually
from kit.fakecontroller import FakeController, agent_config, running_controller
from veapi.model import Action, VEState


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[FakeController]:
    async with running_controller(tmp_path) as controller:
        yield controller


@pytest.fixture
async def agent(tmp_path: Path, controller: FakeController) -> AsyncIterator[Agent]:
    async with running_agent(tmp_path, controller) as agent:
        yield agent


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


async def test_metrics_show_its_ves(controller: FakeController, agent: Agent) -> None:
    await up(controller)
    address = controller.session.hello.facts.metrics_address
    page = await asyncio.to_thread(page_of, f"http://{address}/metrics")
    assert 'verack_ve_state{ve="ve-1111",project="default",host="h1",state="Running"} 1' in page
    assert await asyncio.to_thread(page_of, f"http://{address}/healthz") == "ok\n"
