"""A pull that the controller asks a host for, over the agent's real stream."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.agentprocess import Agent, running_agent
from kit.eventually import eventually
from kit.fakecontroller import FakeController, running_controller
from veapi.v1 import session_pb2

SOURCE = "docker://registry.example.org/app:1"


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[FakeController]:
    async with running_controller(tmp_path) as controller:
        yield controller


@pytest.fixture
async def agent(tmp_path: Path, controller: FakeController) -> AsyncIterator[Agent]:
    async with running_agent(tmp_path, controller) as agent:
        yield agent


async def test_a_pull_tells_its_progress_and_the_new_image(
    controller: FakeController, agent: Agent
) -> None:
    relay = controller.relay(session_pb2.RelayDown(pull=session_pb2.RelayPull(source=SOURCE)))
    await eventually(lambda: relay.frames("upload_done"))
    assert relay.frames("upload_received_bytes")
    digest = relay.frames("upload_done")[0].upload_done.digest
    await eventually(
        lambda: any(
            held.digest == digest
            for report in controller.session.reports
            for held in report.facts.images
        )
    )
