"""Images that come to a host and go from host to host, and what its metrics say of them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit import certs
from kit.agenthost import BLOB, DIGEST, U1, entry, host_set
from kit.agentprocess import Agent, page_of, running_agent, upload
from kit.eventually import eventually
from kit.fakecontroller import CLUSTER, FakeController, running_controller
from veagent.peer import fetch_image
from veapi.channel import host_name
from veapi.errors import Denied
from veapi.model import VEState
from veapi.v1 import api_pb2, session_pb2


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[FakeController]:
    async with running_controller(tmp_path) as controller:
        yield controller


@pytest.fixture
async def agent(tmp_path: Path, controller: FakeController) -> AsyncIterator[Agent]:
    async with running_agent(tmp_path, controller) as agent:
        yield agent


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


async def test_an_image_comes_from_the_host_that_holds_it(
    controller: FakeController, agent: Agent, tmp_path: Path
) -> None:
    await upload(controller)
    first = controller.session
    async with running_agent(tmp_path, controller, "h2"):
        second = controller.session
        second.push(host_set(1, entry()))
        await eventually(lambda: second.images_wanted == [DIGEST])
        await eventually(lambda: second.state(U1) is VEState.CREATING)
        await eventually(lambda: second.ves[U1].status.reason == "ImageFetching")
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
        await eventually(lambda: second.state(U1) is VEState.CREATING)
        await eventually(lambda: "no such ticket" in second.ves[U1].status.message)
        await eventually(lambda: second.images_wanted == [DIGEST, DIGEST])


async def test_a_refused_image_is_told_and_asked_for_again(
    controller: FakeController, agent: Agent
) -> None:
    session = controller.session
    session.push(host_set(1, entry()))
    await eventually(lambda: session.images_wanted)
    failure = api_pb2.Failure(kind="not_found", message="no host holds it")
    source = session_pb2.ImageSource(digest=DIGEST, failure=failure)
    session.down.put_nowait(session_pb2.SessionDown(image_source=source))
    await eventually(lambda: session.state(U1) is VEState.CREATING)
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
    page = await asyncio.to_thread(page_of, f"http://{facts.metrics_address}/metrics")
    lines = [line for line in page.splitlines() if "verack_grpc_server_handled_total" in line]
    assert any("PeerService" in line and "PERMISSION_DENIED" in line for line in lines)
    assert page.count("# TYPE process_cpu_seconds_total") == 1
