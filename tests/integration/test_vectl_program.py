"""The real vectl, as a subprocess, against a controller that is made up but speaks the real API over mTLS."""

import asyncio
import json
import os
import signal
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from kit import fakeapi
from kit.certs import issue, make_ca
from kit.eventually import eventually
from kit.fakeapi import FakeApi
from kit.vectlrun import Ran, Vectl, ended, screen
from veapi.channel import SERVER_OPTIONS, Identity, server_credentials

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


async def test_exec_gives_output_and_the_commands_code(vectl: Vectl) -> None:
    await vectl("create", "web", "--image", "ok")
    assert (await vectl("exec", "web", "--", "exit", "7", code=7)).err == ""
    both = await vectl("exec", "web", "both")
    assert (both.out, both.err) == ("out\n", "err\n")
    big = bytes(range(256)) * 4096
    process = await vectl.start("exec", "-i", "web", "--", "cat")
    assert (await process.communicate(big))[0] == big
    assert (await vectl("exec", "web", "--", "args", "-l", "--", "-x")).out == "args -l -- -x"


async def test_exec_reads_a_file_as_input(vectl: Vectl, tmp_path: Path) -> None:
    await vectl("create", "web", "--image", "ok")
    (tmp_path / "input").write_text("from a file")
    with (tmp_path / "input").open() as file:
        process = await vectl.start("exec", "-i", "web", "cat", stdin=file)
        assert (await process.communicate())[0] == b"from a file"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["web", "--", "nope"], "can't run it"),
        (["nobody", "--", "true"], "no VE nobody"),
        (["asleep", "--", "true"], "does not run"),
        (["web", "--", "gone"], "ended before"),
        (["--endpoint", "unix:/nonexistent", "web", "--", "true"], "/nonexistent"),
    ],
)
async def test_exec_that_can_not_run_ends_with_125(
    vectl: Vectl, arguments: list[str], word: str
) -> None:
    await vectl("create", "web", "--image", "ok")
    await vectl("create", "asleep", "--image", "ok", "--stopped")
    ran = await vectl("exec", *arguments, code=125)
    assert word in ran.err
    assert "Hint: " in ran.err


async def test_exec_passes_signals_on(vectl: Vectl, api: FakeApi) -> None:
    await vectl("create", "web", "--image", "ok")
    process = await vectl.start("exec", "web", "--", "signals")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 130
    assert api.cluster.signals == [signal.SIGINT]


async def test_exec_on_a_terminal_is_raw_has_its_size_and_follows_it(vectl: Vectl) -> None:
    await vectl("create", "web", "--image", "ok")
    async with screen(vectl, "exec", "-it", "web", "--", "size") as shown:
        before = shown.mode()
        await shown.shows(b"xterm-test True 101x33\r\n")
        shown.resize(77, 20)
        await shown.shows(b"now 77x20\r\n")
        shown.type(b"\x03\x1a\r")
        await shown.shows(b"got 031a0d\r\n")
        shown.type(b"q")
        assert await shown.code() == 42
        assert shown.mode() == before


async def test_a_terminal_is_restored_when_the_controller_dies(vectl: Vectl, api: FakeApi) -> None:
    await vectl("create", "web", "--image", "ok")
    async with screen(vectl, "exec", "-it", "web", "--", "size") as shown:
        before = shown.mode()
        await shown.shows(b"101x33")
        await eventually(lambda: shown.mode() != before)
        await api.server.stop(0)
        assert await shown.code() == 125
        assert b"Error: " in shown.seen
        assert shown.mode() == before


async def test_logs_are_passed_on_byte_by_byte_and_harmless_on_a_terminal(
    vectl: Vectl, api: FakeApi
) -> None:
    await vectl("create", "web", "--image", "ok")
    api.cluster.logs = b"one\n\x1b]0;title\x07two\n"
    assert (await vectl("logs", "web")).out == "one\n\x1b]0;title\x07two\n"
    assert (await vectl("logs", "web", "--tail", "1")).out == "\x1b]0;title\x07two\n"
    process = await vectl.start("logs", "-f", "web")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"one\n"
    api.cluster.release()
    assert (await ended(process)).out.endswith("later\n")
    async with screen(vectl, "logs", "web") as shown:
        assert await shown.code() == 0
        await shown.shows(b"one\r\ntwo\r\n")


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


async def test_a_file_is_uploaded_as_it_is(vectl: Vectl, api: FakeApi, tmp_path: Path) -> None:
    content = b"x" * (5 << 19)
    (tmp_path / "image.tar").write_bytes(content)
    ran = await vectl("image", "import", "new", str(tmp_path / "image.tar"))
    assert ran.out.startswith("image/new imported: sha256:abab")
    assert ran.err.splitlines() == ["uploading", "replicating"]
    assert api.cluster.uploads["new"] == content


async def test_a_folder_is_packed_the_same_way_each_time(
    vectl: Vectl, api: FakeApi, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for name in ("b", "a", "c" * 120):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text(name)
    await vectl("image", "import", "first", str(root))
    (root / "a" / "file").read_text()
    await vectl("image", "import", "second", str(root))
    assert api.cluster.uploads["first"] == api.cluster.uploads["second"]
    (tmp_path / "made.tar").write_bytes(api.cluster.uploads["first"])
    with tarfile.open(tmp_path / "made.tar") as made:
        assert made.getnames()[:4] == [".", "./a", "./a/file", "./b"]


async def test_a_pack_that_breaks_off_makes_no_image(
    vectl: Vectl, api: FakeApi, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "tar").write_text("#!/bin/sh\necho half\necho 'tar: read error' >&2\nexit 2\n")
    (tools / "tar").chmod(0o755)
    vectl.env["PATH"] = f"{tools}:{vectl.env['PATH']}"
    ran = await vectl("image", "import", "half", str(tools), code=8)
    assert "tar could not read all" in ran.err
    assert "half" not in api.cluster.images


async def test_what_is_no_image_is_refused(vectl: Vectl, tmp_path: Path) -> None:
    for name, content in (("text", b"hello" * 1000), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        ran = await vectl("image", "import", name, str(tmp_path / name), code=2)
        assert "Hint: " in ran.err


async def test_images_hosts_projects_and_versions(vectl: Vectl) -> None:
    assert "ok " in (await vectl("image", "list")).out
    assert (await vectl("image", "show", "ok", "-o", "json")).json()["tags"] == ["ok"]
    gone = await vectl("image", "delete", "huge", "none", "slow", code=3)
    assert gone.out == "image/huge deleted\nimage/slow deleted\n"
    hosts = (await vectl("host", "list", "-o", "json")).json()["items"]
    assert [host["labels"]["rack"] for host in hosts] == ["r1", "r2"]
    assert "State:      Ready" in (await vectl("host", "show", "h1")).out
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
        await shown.shows(b"Delete web with the disks? [y/N]")
        shown.type(answer)
        assert await shown.code() == code
    assert len(api.cluster.ves) == left


async def test_a_wait_survives_the_loss_of_the_controller(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/c.sock"
    async with fakeapi.serve(tmp_path, listen) as api:
        vectl = Vectl(api, tmp_path)
        process = await vectl.start("create", "web", "--image", "slow")
        await eventually(lambda: "Creating" in [ve.status.state for ve in api.cluster.ves.values()])
        await api.server.stop(0)
        second = grpc.aio.server(options=SERVER_OPTIONS)
        fakeapi.add(second, api.cluster)
        second.add_secure_port(listen, server_credentials(issue(api.ca, "controller.rack")))
        await second.start()
        api.cluster.release()
        ran = await ended(process)
        await second.stop(0)
    assert ran == Ran(0, "ve/web created: Running on h1, 10.66.0.2\n", ran.err)


@pytest.mark.parametrize(
    "endpoint", ["unix:/nonexistent/c.sock", "127.0.0.1:1", "nohost.invalid:1"]
)
async def test_an_unreachable_controller_is_named(vectl: Vectl, endpoint: str) -> None:
    ran = await vectl("--endpoint", endpoint, "list", code=8)
    assert f"can't reach the controller at {endpoint}" in ran.err
    assert "Hint: " in ran.err


async def test_a_silent_controller_is_given_up(vectl: Vectl) -> None:
    silent = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    ran = await vectl("--endpoint", f"127.0.0.1:{port}", "list", code=8)
    assert f"127.0.0.1:{port}" in ran.err
    silent.close()


async def test_certificates_that_are_not_of_the_cluster_are_denied(
    vectl: Vectl, api: FakeApi, tmp_path: Path
) -> None:
    ours, other = api.identity, issue(make_ca(tmp_path / "other", "rack"), "ann.user.rack")
    vectl.context(other)
    assert "don't trust" in (await vectl("list", code=7)).err
    vectl.context(Identity(ca=ours.ca, cert=other.cert, key=other.key))
    assert "don't trust" in (await vectl("list", code=7)).err
    vectl.context(api.issue("h1.host.rack"))
    assert "only for users" in (await vectl("version", code=7)).err
    vectl.context(Identity(ca=tmp_path / "missing", cert=ours.cert, key=ours.key))
    assert "can't read" in (await vectl("list", code=2)).err


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


async def test_a_reader_that_goes_away_is_no_error_and_a_full_disk_is(vectl: Vectl) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    ran = await ended(await vectl.start("list", stdout=ours))
    os.close(ours)
    assert ran.err == ""
    full = os.open("/dev/full", os.O_WRONLY)
    ran = await ended(await vectl.start("list", stdout=full))
    os.close(full)
    assert ran.code == 8
    assert "No space left on device" in ran.err
    assert "Hint: " in ran.err
