"""vectl's verbs for VEs that exist, against a fake controller: what is asked, waited for and said."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.fakeapi import FakeApi, serve
from kit.fakeverbs import STUCK
from kit.vectlrun import Vectl


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[FakeApi]:
    async with serve(tmp_path) as served:
        yield served


@pytest.fixture
async def vectl(api: FakeApi, tmp_path: Path) -> Vectl:
    made = Vectl(api, tmp_path)
    await made("create", "web", "--image", "ok")
    return made


async def test_set_asks_for_what_was_given_and_waits_for_the_host(
    vectl: Vectl, api: FakeApi
) -> None:
    ran = await vectl(
        "set", "web", "--cpu", "0.5", "--io-read", "10M", "--net-in", "none", "--swap", "0",
        "--label", "tier=web", "--label", "old-", "--env", "A=b=c", "--env", "B-",
        "--command", "sh -c 'exit 1'", "--snapshots", "daily keep 7", "--restart",
    )  # fmt: skip
    assert ran.out == "ve/web set: Running on h1, 10.66.0.2\n"
    [request] = api.cluster.asked
    assert set(request.fields) == {
        "cpu", "io_read_bps", "net_in_bps", "swap_bytes", "command", "snapshot_schedule",
    }  # fmt: skip
    spec = request.spec
    assert (spec.cpu, spec.io_read_bps, spec.net_in_bps) == (0.5, 10 << 20, 0)
    assert list(spec.command) == ["sh", "-c", "exit 1"]
    assert (dict(request.labels), list(request.labels_removed)) == ({"tier": "web"}, ["old"])
    assert (dict(request.env), list(request.env_removed)) == ({"A": "b=c"}, ["B"])
    assert request.restart


async def test_what_the_host_refuses_ends_the_wait_with_its_reason(vectl: Vectl) -> None:
    ran = await vectl("set", "web", "--memory", "13M", code=4)
    assert "LimitsRefused: memory in use (20M) does not fit" in ran.err
    assert "--restart" in ran.err


async def test_freeze_and_thaw_wait_for_their_states(vectl: Vectl, api: FakeApi) -> None:
    assert (await vectl("freeze", "web")).out == "ve/web frozen: Frozen on h1\n"
    assert "Running" in (await vectl("thaw", "web")).out
    assert [request.only_from for request in api.cluster.set_runs] == ["", "frozen"]


async def test_a_rename_says_when_the_host_name_follows(vectl: Vectl) -> None:
    ran = await vectl("rename", "web", "shop")
    assert ran.out == "ve/web renamed to shop; its host name follows at its next start\n"


async def test_a_clone_names_what_replaces_the_source(vectl: Vectl, api: FakeApi) -> None:
    ran = await vectl("clone", "web", "copy", "--snapshot", "t1", "--memory", "64M", "--swap", "0")
    assert ran.out.startswith("ve/copy cloned from web: Running")
    [request] = api.cluster.asked
    assert (request.snapshot, request.ve.spec.memory_bytes) == ("t1", 64 << 20)
    assert set(request.fields) == {"memory_bytes", "swap_bytes"}
    assert request.request_id


async def test_a_rebuild_wants_to_be_sure_and_then_waits(vectl: Vectl, api: FakeApi) -> None:
    assert "--yes" in (await vectl("rebuild", "web", code=2)).err
    assert api.cluster.asked == []
    ran = await vectl("rebuild", "web", "--image", "broken", "--yes", code=8)
    assert "ExitedAtOnce" in ran.err
    assert (await vectl("rebuild", "web", "--image", "ok", "--yes")).out.startswith(
        "ve/web rebuilt"
    )


async def test_a_deleted_ve_is_kept_listed_and_brought_back(vectl: Vectl, api: FakeApi) -> None:
    ran = await vectl("delete", "web", "--yes")
    assert ran.out == "ve/web deleted\n"
    assert "web is kept until 2" in ran.err
    assert "`vectl undelete web`" in ran.err
    listed = (await vectl("list", "--deleted")).out
    assert listed.split()[:4] == ["NAME", "PROJECT", "STATE", "HOST"]
    assert "5M" in listed
    uid = (await vectl("list", "--deleted", "-o", "json")).json()["items"][0]["uid"]
    assert uid in listed
    ran = await vectl("undelete", "web", "--name", "back")
    assert ran.out.startswith("ve/back undeleted: Running")
    assert api.cluster.deleted == {}


async def test_a_purge_keeps_nothing(vectl: Vectl, api: FakeApi) -> None:
    ran = await vectl("delete", "web", "--purge", "--yes")
    assert "kept" not in ran.err
    assert api.cluster.deleted == {}
    await vectl("create", "db", "--image", "ok")
    await vectl("delete", "db", "--yes")
    assert "--yes" in (await vectl("purge", "db", code=2)).err
    ran = await vectl("purge", "db", "--yes")
    assert ran.out.startswith("ve/db (")
    assert ran.out.endswith(") purged\n")
    assert api.cluster.deleted == {}
    await vectl("purge", "db", "--yes", code=3)


async def test_a_purge_waits_for_the_host_for_so_long_or_not_at_all(
    vectl: Vectl, api: FakeApi
) -> None:
    await vectl("create", STUCK, "--image", "ok")
    await vectl("delete", STUCK, "--yes")
    assert "will be purged from h1" in (await vectl("purge", STUCK, "--yes", "--detach")).out
    ran = await vectl("purge", STUCK, "--yes", "--timeout", "0.3s", code=6)
    assert "not gone within 0.3 s" in ran.err
    assert "the request stands" in ran.err
    [ve] = api.cluster.deleted.values()
    assert ve.name == STUCK


async def test_a_list_of_names_shows_them_and_says_which_are_missing(vectl: Vectl) -> None:
    await vectl("create", "db", "--image", "ok")
    await vectl("create", "other", "--image", "ok")
    assert (await vectl("list", "db", "web", "-o", "name")).out == "ve/web\nve/db\n"
    ran = await vectl("list", "db", "wob", "nope", "wob", "-o", "name", code=3)
    assert ran.out == "ve/db\n"
    assert "no VE wob, nope" in ran.err
    await vectl("delete", "db", "--yes")
    assert (await vectl("list", "--deleted", "db", "-o", "name")).out == "ve/db\n"
    assert "web" in (await vectl("list", "--deleted", "web", "-o", "name", code=3)).err
    assert "both say which" in (await vectl("list", "db", "-l", "a=b", code=2)).err


async def test_a_deleted_list_can_not_be_watched(vectl: Vectl) -> None:
    assert "can't be watched" in (await vectl("list", "--deleted", "-w", code=2)).err


async def test_show_tells_only_limits_that_are_set(vectl: Vectl) -> None:
    assert "Network in" not in (await vectl("show", "web")).out
    await vectl("set", "web", "--net-in", "100M", "--cpu-weight", "7")
    shown = (await vectl("show", "web")).out
    assert "100Mbit/s" in shown
    assert "CPU weight:       7" in shown
