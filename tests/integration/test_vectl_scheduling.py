"""What vectl says of the scheduler, against a fake controller."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.fakeapi import FakeApi, serve
from kit.vectlrun import Vectl


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[FakeApi]:
    async with serve(tmp_path) as served:
        yield served


@pytest.fixture
async def vectl(api: FakeApi, tmp_path: Path) -> Vectl:
    return Vectl(api, tmp_path)


async def test_explain_tells_where_it_is_and_what_every_host_says(vectl: Vectl) -> None:
    lines = (await vectl("explain", "web")).out.splitlines()
    assert lines[:2] == ["ve/web: on h1: the only one", "placed now: h1; 1 of 2 hosts fit"]
    assert lines[2].split() == ["RANK", "HOST", "RACK", "SAYS"]
    assert lines[3].endswith("12.5% of its memory committed then")
    assert lines[4].endswith("memory: free 1G of 16G, wanted 2G: 1G too little")


async def test_explain_of_what_fits_nowhere_ends_with_5_and_says_what_would_help(
    vectl: Vectl,
) -> None:
    ran = await vectl("explain", "huge", code=5)
    assert "no host fits: 2 hosts: 2 too little memory" in ran.out
    assert "it would fit: free 1G of memory on h2" in ran.out
    assert ran.err == ""


async def test_explain_asks_of_a_manifest_what_is_not_there_yet(vectl: Vectl, api: FakeApi) -> None:
    text = b"kind: VE\nmetadata: {name: new, labels: {a: b}}\nspec: {image: ok, memory: 2G}\n"
    ran = await vectl("explain", "-f", "-", "-o", "name", text=text)
    assert ran.out == "host/h1\n"
    [request] = api.cluster.asked
    assert (request.spec.name, request.spec.spec.memory_bytes) == ("new", 2 << 30)
    assert dict(request.spec.labels) == {"a": "b"}


@pytest.mark.parametrize("arguments", [(), ("web", "-f", "x")])
async def test_explain_wants_either_a_name_or_a_file(
    vectl: Vectl, arguments: tuple[str, ...]
) -> None:
    assert "NAME or -f" in (await vectl("explain", *arguments, code=2)).err


async def test_capacity_tells_what_is_left_now_and_after_losses(vectl: Vectl) -> None:
    lines = (await vectl("capacity")).out.splitlines()
    assert lines[0].split("  ")[0] == "FLAVOR"
    assert lines[1].split()[1:] == ["40", "20", "(h1)", "10", "(r1)", "memory", "on", "2"]
    assert lines[-1].startswith("All VEs could be placed again")


async def test_capacity_of_a_flavor_names_who_would_have_no_place(
    vectl: Vectl, api: FakeApi
) -> None:
    ran = await vectl("capacity", "--flavor", "cpu=0.5, memory=4G")
    [request] = api.cluster.asked
    assert (request.flavors[0].cpu, request.flavors[0].memory_bytes) == (0.5, 4 << 30)
    assert request.flavors[0].disk_bytes == 0
    assert "Without host h1 1 of its 3 VEs have no place: default/db (1 host: 1 silent)" in ran.out


@pytest.mark.parametrize("flavor", ["", "cpu", "cpu=x", "ram=1G", "cpu=1,cpu=2", "pids=0"])
async def test_a_flavor_that_can_not_be_read_is_refused(vectl: Vectl, flavor: str) -> None:
    assert "Hint" in (await vectl("capacity", "--flavor", flavor, code=2)).err


async def test_a_host_is_tainted_and_taints_are_taken_away_by_key(
    vectl: Vectl, api: FakeApi
) -> None:
    ran = await vectl("host", "taint", "h1", "gpu=a100", "old:prefer", "b-")
    assert ran.out == "host/h1 tainted: gpu=a100, old:prefer\n"
    [request] = api.cluster.asked
    assert (list(request.add), list(request.remove)) == (["gpu=a100", "old:prefer"], ["b"])
    assert (await vectl("host", "taint", "h1", "b-")).out == "host/h1 tainted: by nothing\n"
    assert "KEY" in (await vectl("host", "taint", "h1", code=2)).err


async def test_wishes_are_asked_for_shown_and_taken_away(vectl: Vectl, api: FakeApi) -> None:
    await vectl(
        "create", "web", "--image", "ok", "--require", "disk in (ssd, nvme)",
        "--apart", "app=web over rack max 2", "--apart", "app=db",
    )  # fmt: skip
    shown = (await vectl("show", "web")).out
    assert "Require:          disk in (nvme,ssd)" in shown
    assert shown.count("Apart:") == 2
    await vectl("set", "web", "--apart", "none")
    assert list(api.cluster.asked[-1].fields) == ["apart"]
    assert "Apart" not in (await vectl("show", "web")).out
    assert (
        "-.spread" not in (ran := await vectl("set", "web", "--spread", "a=b skew 0", code=2)).err
    )
    assert "spread: 0 must be 1 to 10000" in ran.err


async def test_history_tells_where_it_lived_why_and_what_it_had_waited_for(
    vectl: Vectl, api: FakeApi
) -> None:
    await vectl("create", "web", "--image", "ok", "--priority", "7")
    [ve] = api.cluster.ves.values()
    ve.placement.host, ve.placement.generation, ve.placement.message = "h2", 2, "h1 was lost"
    ve.placement.decided_at.seconds = 1_700_003_600
    ve.placement.waited_since.seconds, ve.placement.waited_for = 1_700_000_000, "no room"
    stay = ve.placement.past.add(host="h1", generation=1, message="most room", ended="lost")
    stay.began_at.seconds, stay.ended_at.seconds = 1_700_000_000, 1_700_003_600
    lines = (await vectl("history", "web")).out.splitlines()
    assert lines[1].split()[:2] == ["1", "h1"]
    assert lines[1].split()[-4:] == ["60m", "most", "room", "lost"]
    assert lines[2].split()[:2] == ["2", "h2"]
    assert lines[3].endswith(": no room")
    assert (await vectl("history", "web", "-o", "name")).out == "host/h1\nhost/h2\n"
    assert "Priority:         7" in (await vectl("show", "web")).out
