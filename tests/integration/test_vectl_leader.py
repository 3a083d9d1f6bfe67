"""vectl finds the controller that leads, and follows the lead, without anybody's help."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit import fakerank
from kit.eventually import eventually
from kit.fakecluster import CLUSTER
from kit.fakerank import FakeRank
from kit.vectlrun import VECTL, ended
from veapi.errors import Denied, Unavailable
from vectl import reach
from vectl.client import Client
from vectl.wanted import Wanted

NAME = f"controller.{CLUSTER}"


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[FakeRank]:
    async with fakerank.serve(tmp_path, NAME, NAME, NAME) as rank:
        yield rank


async def names_of_hosts(client: Client) -> list[str]:
    return [host.name for host in await client.hosts()]


async def test_a_standby_leads_to_the_leader_that_no_context_names(three: FakeRank) -> None:
    three.lead(2)
    async with Client.connect(three.context(0)) as client:
        assert await names_of_hosts(client) == ["h1", "h2"]


async def test_dead_controllers_are_passed_by(three: FakeRank) -> None:
    three.lead(2)
    await three.controllers[0].die()
    async with Client.connect(three.context(0, 1, 2)) as client:
        assert await names_of_hosts(client) == ["h1", "h2"]


async def test_a_frozen_controller_is_passed_by(three: FakeRank) -> None:
    silent = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    three.lead(0)
    three.controllers[1].rank.leader_address = address = (
        f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    )
    context = three.context(1, 0)
    async with Client.connect(context) as client:
        assert await names_of_hosts(client) == ["h1", "h2"]
    assert address not in context.endpoints
    silent.close()


async def test_while_nobody_leads_it_is_waited_for_a_new_leader(three: FakeRank) -> None:
    three.lead(0)
    await three.controllers[0].die()  # the others still name it
    connecting = asyncio.ensure_future(anext(_hosts(three, 0, 1, 2)))
    await asyncio.sleep(0.5)
    assert not connecting.done()
    three.lead(1)
    assert await asyncio.wait_for(connecting, 20) == ["h1", "h2"]


async def _hosts(three: FakeRank, *numbers: int) -> AsyncIterator[list[str]]:
    async with Client.connect(three.context(*numbers)) as client:
        yield await names_of_hosts(client)


async def test_when_nobody_ever_leads_that_is_said(
    three: FakeRank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "FIND_S", 0.5)
    await three.controllers[0].die()
    with pytest.raises(Unavailable, match="no controller leads") as caught:
        await anext(_hosts(three, 0, 1, 2))
    assert caught.value.hint
    await three.controllers[1].die()
    await three.controllers[2].die()
    with pytest.raises(Unavailable, match="can't reach any controller"):
        await anext(_hosts(three, 0, 1, 2))


async def test_a_call_that_a_deposed_leader_refused_is_asked_of_the_new_one(
    three: FakeRank,
) -> None:
    three.lead(0)
    async with Client.connect(three.context(0, 1)) as client:
        three.lead(1)
        created = await client.create(Wanted(name="web", image="ok"))
        assert created.name == "web"
    assert three.cluster.calls.count("Create") == 1


async def test_what_reads_is_asked_again_when_its_controller_is_lost_and_what_writes_is_not(
    three: FakeRank,
) -> None:
    three.lead(0)
    async with Client.connect(three.context(0, 1)) as client:
        await three.controllers[0].die()
        three.lead(1)
        assert await names_of_hosts(client) == ["h1", "h2"]
    three.lead(1)
    async with Client.connect(three.context(1, 2)) as client:
        await three.controllers[1].die()
        three.lead(2)
        with pytest.raises(Unavailable, match="lost the controller"):
            await client.create_project("shop")
    assert three.cluster.projects == ["default"]


async def test_a_create_whose_answer_was_lost_is_asked_again_by_its_request_id(
    three: FakeRank,
) -> None:
    three.lead(0)
    async with Client.connect(three.context(0, 1)) as client:
        await client.create(Wanted(name="web", image="ok"), request_id="r1")
        await three.controllers[0].die()
        three.lead(1)
        created = await client.create(Wanted(name="web", image="ok"), request_id="r1")
    assert [ve.uid for ve in three.cluster.ves.values()] == [created.uid]


async def test_who_is_named_but_shows_no_controllers_certificate_is_not_talked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "FIND_S", 0.5)
    async with fakerank.serve(tmp_path, NAME, f"h1.host.{CLUSTER}", NAME) as rank:
        rank.lead(1)
        rank.controllers[2].rank.leads = True
        async with Client.connect(rank.context(0, 2)) as client:
            assert await names_of_hosts(client) == ["h1", "h2"]
        rank.controllers[2].rank.leads = False
        rank.cluster.calls.clear()
        with pytest.raises(Denied):
            await anext(_hosts(rank, 0))
        assert rank.cluster.calls == []


async def test_a_wait_survives_a_change_of_the_leader(three: FakeRank, tmp_path: Path) -> None:
    three.lead(0)
    process = await _vectl(three, tmp_path, "create", "web", "--image", "slow")
    await eventually(lambda: "Creating" in [ve.status.state for ve in three.cluster.ves.values()])
    three.lead(1)
    await three.controllers[0].die()
    three.cluster.release()
    ran = await ended(process)
    assert (ran.code, ran.out) == (0, "ve/web created: Running on h1, 10.66.0.2\n"), ran


async def test_followed_logs_end_with_what_happened_and_what_to_do(
    three: FakeRank, tmp_path: Path
) -> None:
    three.lead(0)
    await ended(await _vectl(three, tmp_path, "create", "web", "--image", "ok"))
    process = await _vectl(three, tmp_path, "logs", "-f", "web")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"one\n"
    await three.controllers[0].die()
    ran = await ended(process)
    assert ran.code == 8
    assert "lost the controller" in ran.err
    assert "Hint: begin again" in ran.err


async def test_a_command_whose_controller_is_lost_ends_with_what_may_be_so(
    three: FakeRank, tmp_path: Path
) -> None:
    three.lead(0)
    await ended(await _vectl(three, tmp_path, "create", "web", "--image", "ok"))
    process = await _vectl(three, tmp_path, "exec", "-i", "web", "--", "cat")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello\n")
    assert await process.stdout.readline() == b"hello\n"
    await three.controllers[0].die()
    ran = await ended(process)
    assert ran.code == 125  # not the command's own
    assert "the command may still run" in ran.err


async def _vectl(rank: FakeRank, folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    """With a context that names the first and the second controller."""
    path = folder / "vectl" / "contexts.toml"
    path.parent.mkdir(exist_ok=True)
    found = rank.context(0, 1)
    path.write_text(
        f'[contexts.rack]\nendpoints = {json.dumps(found.endpoints)}\ncluster = "{CLUSTER}"\n'
        f'ca = "{found.ca}"\ncert = "{found.cert}"\nkey = "{found.key}"\n'
    )
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        VECTL, *arguments, stdin=pipe, stdout=pipe, stderr=pipe,
        env={"PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(folder)},
    )  # fmt: skip
