"""The real vectl, as a subprocess, against a controller that is made up but speaks the real API over mTLS."""

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit import fakeapi
from kit.eventually import eventually
from kit.fakeapi import FakeApi
from kit.vectlrun import Vectl, ended, screen

TWO = b"""
kind: VE
metadata: {name: one, labels: {app: two}}
spec: {image: ok, memory: 64M}
---
kind: VE
metadata: {name: two}
spec: {image: ok, memory: 64M}
"""


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[FakeApi]:
    async with fakeapi.serve(tmp_path) as served:
        yield served


@pytest.fixture
def vectl(api: FakeApi, tmp_path: Path) -> Vectl:
    return Vectl(api, tmp_path)


async def test_create_waits_until_it_runs_and_says_so(vectl: Vectl, api: FakeApi) -> None:
    ran = await vectl(
        "create", "web", "--image", "ok", "--cpu", "0.5", "--memory", "64M", "--disk", "1G",
        "--pids", "99", "--label", "a=b", "--label", "c=d", "--host", "h2", "--ip", "10.66.0.9",
    )  # fmt: skip
    assert ran.out == "ve/web created: Running on h2, 10.66.0.9\n"
    assert "web: Running on h2, 10.66.0.9\n" in ran.err
    [ve] = api.cluster.ves.values()
    assert (ve.spec.cpu, ve.spec.memory_bytes, ve.spec.pids) == (0.5, 64 << 20, 99)
    assert dict(ve.labels) == {"a": "b", "c": "d"}
    assert sorted(api.cluster.calls) == ["Create", "Watch"]


async def test_what_is_not_given_is_left_to_the_controller(vectl: Vectl, api: FakeApi) -> None:
    await vectl("create", "web", "--image", "ok", "--stopped")
    [ve] = api.cluster.ves.values()
    assert ve.spec.pids == 512
    assert ve.spec.run == "stopped"


async def test_a_count_makes_many_together_over_one_watch(vectl: Vectl, api: FakeApi) -> None:
    ran = await vectl("create", "n", "--count", "5", "--image", "ok")
    assert ran.out.splitlines() == [f"ve/n-{n} created: Running on h1, 10.66.0.2" for n in range(5)]
    assert api.cluster.calls.count("Watch") == 1


@pytest.mark.parametrize(
    ("image", "code", "words"),
    [
        ("huge", 5, ["no host has 900G of memory", "vectl delete web"]),
        ("broken", 8, ["ExitedAtOnce", "vectl logs web"]),
        ("slow", 6, ["Creating", "--timeout"]),
        ("none", 3, ["no image none"]),
    ],
)
async def test_a_create_that_does_not_run_says_why(
    vectl: Vectl, image: str, code: int, words: list[str]
) -> None:
    ran = await vectl("create", "web", "--image", image, "--timeout", "1", code=code)
    assert ran.out == ""
    error, hint = ran.err.splitlines()[-2:]
    assert error.startswith("Error: ")
    assert hint.startswith("Hint: ")
    for word in words:
        assert word in ran.err


async def test_detach_does_not_wait(vectl: Vectl, api: FakeApi) -> None:
    ran = await vectl("create", "web", "--image", "slow", "--detach")
    assert ran.out == "ve/web will be created\n"
    assert api.cluster.calls == ["Create"]


async def test_stop_start_restart_delete_wait_for_their_end(vectl: Vectl, api: FakeApi) -> None:
    await vectl("create", "web", "--image", "ok")
    [ve] = api.cluster.ves.values()
    assert (await vectl("stop", "web")).out == "ve/web stopped: Stopped on h1\n"
    assert ve.status.state == "Stopped"
    assert (await vectl("start", "web")).out.startswith("ve/web started: Running")
    first = ve.status.init_pid
    assert (await vectl("restart", "web")).out.startswith("ve/web restarted: Running")
    assert ve.status.init_pid > first
    assert (await vectl("start", "web")).out.startswith("ve/web started: Running")
    assert (await vectl("delete", "web", "--yes")).out == "ve/web deleted\n"
    assert not api.cluster.ves


async def test_stop_passes_on_how_long_it_may_take(vectl: Vectl, api: FakeApi) -> None:
    await vectl("create", "web", "--image", "ok")
    await vectl("stop", "web", "--timeout", "1.5s")
    await vectl("start", "web")
    await vectl("stop", "web", "--force")
    asked = [(request.stop_timeout_s, request.force) for request in api.cluster.set_runs]
    assert asked == [(2, False), (0, False), (0, True)]


async def test_several_names_are_all_handled_and_the_first_failure_gives_the_code(
    vectl: Vectl, api: FakeApi
) -> None:
    await vectl("create", "n", "--count", "2", "--image", "ok", "--stopped")
    ran = await vectl("start", "n-0", "nobody", "n-1", code=3)
    assert "no VE nobody" in ran.err
    assert {ve.status.state for ve in api.cluster.ves.values()} == {"Running"}


async def test_list_in_every_form(vectl: Vectl) -> None:
    await vectl("create", "web", "--image", "ok", "--label", "tier=web")
    await vectl("create", "db", "--image", "huge", code=5)
    table = (await vectl("list")).out.splitlines()
    assert table[0].split() == [
        "NAME",
        "PROJECT",
        "STATE",
        "HOST",
        "RACK",
        "IP",
        "CPU",
        "MEM",
        "DISK",
        "AGE",
    ]
    assert table[1].split()[:6] == ["web", "default", "Running", "h1", "r1", "10.66.0.2"]
    assert table[2].split()[:6] == ["db", "default", "Pending", "-", "-", "-"]
    assert (await vectl("list", "-o", "name")).out == "ve/web\nve/db\n"
    items = (await vectl("list", "-o", "json", "-l", "tier=web")).json()["items"]
    assert [item["name"] for item in items] == ["web"]
    assert (await vectl("ls", "--no-headers", "-l", "!tier")).out.startswith("db ")
    assert "name: web" in (await vectl("list", "-o", "yaml")).out
    assert "NoHostFits" in (await vectl("list", "-o", "wide")).out
    assert (await vectl("list", "-p", "other", "-o", "json")).json() == {"items": []}
    assert len((await vectl("list", "-p", "other", "-A", "-o", "json")).json()["items"]) == 2
    assert "selector" in (await vectl("list", "-l", "a in b", code=2)).err


async def test_a_watched_list_shows_changes_until_ctrl_c(vectl: Vectl, api: FakeApi) -> None:
    await vectl("create", "web", "--image", "ok")
    process = await vectl.start("list", "-w", "-o", "json")
    assert process.stdout is not None
    first = json.loads(await process.stdout.readline())
    assert (first["change"], first["ve"]["name"]) == ("added", "web")
    await vectl("delete", "web", "--yes")
    later = [json.loads(await process.stdout.readline()) for _ in range(2)]
    assert [(one["change"], one["ve"]["status"]["state"]) for one in later] == [
        ("changed", "Deleting"),
        ("deleted", "Deleting"),
    ]
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 130
    await eventually(lambda: not api.cluster.watchers)


async def test_show_ends_with_the_events(vectl: Vectl) -> None:
    await vectl("create", "web", "--image", "ok")
    out = (await vectl("show", "web")).out
    assert "Name:             web\n" in out
    assert out.rstrip().endswith("web Running")
    assert (await vectl("show", "web", "-o", "json")).json()["status"]["state"] == "Running"
    assert (await vectl("show", "nobody", code=3)).out == ""


async def test_wait_ends_by_what_is_so(vectl: Vectl, api: FakeApi) -> None:
    await vectl("create", "web", "--image", "ok")
    await vectl("wait", "web", "--for", "state=Running")
    await vectl("wait", "nobody", "--for", "delete")
    assert "no VE nobody" in (await vectl("wait", "nobody", "--for", "state=Running", code=3)).err
    late = await vectl("wait", "web", "--for", "state=Stopped", "--timeout", "300ms", code=6)
    assert "Running" in late.err
    await vectl("wait", "web", "--for", "state=Stopped", "--timeout", "0", code=1)
    waiting = await vectl.start("wait", "web", "--for", "delete")
    await eventually(lambda: api.cluster.watchers)
    await vectl("delete", "web", "--yes")
    assert (await ended(waiting)).code == 0


async def test_apply_diff_and_delete_of_a_manifest(vectl: Vectl, api: FakeApi) -> None:
    new = await vectl("diff", "-f", "-", text=TWO, code=1)
    assert "ve/one: would be created\n+ spec.image: ok\n" in new.out
    assert not api.cluster.ves
    made = await vectl("apply", "-f", "-", text=TWO)
    assert made.out.splitlines() == [
        f"ve/{name} created: Running on h1, 10.66.0.2" for name in ("one", "two")
    ]
    assert (await vectl("diff", "-f", "-", text=TWO)).out == ""
    more = TWO.replace(b"64M", b"96M", 1)
    assert (await vectl("diff", "-f", "-", text=more, code=1)).out == (
        "ve/one: would be changed\n- spec.memory_bytes: 67108864\n+ spec.memory_bytes: 100663296\n"
    )
    changed = await vectl("apply", "-f", "-", text=more)
    assert [line.split()[1] for line in changed.out.splitlines()] == ["changed:", "unchanged:"]
    gone = await vectl("delete", "-f", "-", "--yes", text=more + b"---\n" + one("three"))
    assert gone.out == "ve/three is not there\nve/one deleted\nve/two deleted\n"


def one(name: str) -> bytes:
    return f"kind: VE\nmetadata: {{name: {name}}}\nspec: {{image: ok}}\n".encode()


async def test_a_bad_manifest_asks_for_nothing(vectl: Vectl, api: FakeApi) -> None:
    ran = await vectl("apply", "-f", "-", text=TWO + b"---\nkind: VE\nspec: {memroy: 1}\n", code=2)
    assert "stdin, line" in ran.err
    assert api.cluster.calls == []


async def test_images_hosts_projects_and_versions(vectl: Vectl) -> None:
    assert "ok " in (await vectl("image", "list")).out
    assert (await vectl("image", "show", "ok", "-o", "json")).json()["tags"] == ["ok"]
    gone = await vectl("image", "delete", "huge", "none", "slow", code=3)
    assert gone.out == "image/huge deleted\nimage/slow deleted\n"
    hosts = (await vectl("host", "list", "-o", "json")).json()["items"]
    assert [host["labels"]["rack"] for host in hosts] == ["r1", "r2"]
    assert "Ready" in (await vectl("host", "show", "h1")).out.splitlines()[1]
    await vectl("host", "show", "h9", code=3)
    await vectl("project", "create", "shop")
    await vectl("project", "create", "shop", code=4)
    assert "shop" in (await vectl("project", "list")).out
    assert "cluster rack, led by c1 (epoch 7" in (await vectl("version")).out


async def test_events_and_their_watch(vectl: Vectl, api: FakeApi) -> None:
    await vectl("create", "web", "--image", "ok")
    lines = (await vectl("events", "web")).out.splitlines()
    assert lines[0].split() == ["AGE", "TYPE", "REASON", "VE", "HOST", "MESSAGE"]
    assert lines[-1].split()[2:5] == ["Running", "web", "h1"]
    process = await vectl.start("events", "-w", "-o", "json")
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["reason"] == "Creating"
    api.cluster.release()
    assert '"Released"' in (await ended(process)).out


async def test_ctrl_c_ends_the_wait_and_not_the_request(vectl: Vectl, api: FakeApi) -> None:
    process = await vectl.start("create", "web", "--image", "slow")
    await eventually(lambda: [ve.status.state for ve in api.cluster.ves.values()] == ["Creating"])
    process.send_signal(signal.SIGINT)
    ran = await ended(process)
    assert ran.code == 130
    assert "The request for web stands" in ran.err
    assert "Traceback" not in ran.err


async def test_progress_is_one_changing_line_on_a_terminal(vectl: Vectl) -> None:
    async with screen(vectl, "create", "web", "--image", "ok") as shown:
        assert await shown.code() == 0
        await shown.shows(b"ve/web created")
    assert b"\r\x1b[Kweb: Running on h1, 10.66.0.2" in shown.seen
    assert shown.seen.count(b"\n") == 1


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1)])
async def test_a_delete_on_a_terminal_asks(
    vectl: Vectl, api: FakeApi, answer: bytes, code: int, left: int
) -> None:
    await vectl("create", "web", "--image", "ok")
    async with screen(vectl, "delete", "web") as shown:
        await shown.shows(b"Delete web? [y/N]")
        shown.type(answer)
        assert await shown.code() == code
    assert len(api.cluster.ves) == left


async def test_names_complete_from_the_cluster(vectl: Vectl) -> None:
    await vectl("create", "n", "--count", "2", "--image", "ok")
    vectl.env |= {
        "_VECTL_COMPLETE": "bash_complete",
        "COMP_WORDS": "vectl show n-",
        "COMP_CWORD": "2",
    }
    assert (await vectl()).out == "plain,n-0\nplain,n-1\n"
    vectl.env |= {"COMP_WORDS": "vectl create x --image s", "COMP_CWORD": "4"}
    assert (await vectl()).out == "plain,slow\n"
    vectl.env |= {"COMP_WORDS": "vectl --endpoint unix:/nonexistent show n-", "COMP_CWORD": "4"}
    assert (await vectl()).out.strip() == ""
