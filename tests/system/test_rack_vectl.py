"""vectl against a real rack, as a person uses it."""

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

from kit.rack import Rack, until


def test_create_list_show_stop_start_restart_delete(clean: Rack) -> None:
    clean.vectl(
        "create", "life", "--image", "busybox", "--cpu", "0.5", "--memory", "64M", "--label", "a=b"
    )
    ve = clean.ve("life")
    assert ve["status"]["state"] == "Running"
    assert ve["labels"] == {"a": "b"}
    assert ve["spec"]["memory_bytes"] == str(64 << 20)
    assert ve["placement"]["host"] == ve["status"]["host"]
    assert "life" in clean.vectl("list", "-l", "a=b").out
    assert "life" not in clean.vectl("list", "-l", "a!=b").out
    assert clean.vectl("list", "-o", "name").out.strip().endswith("life")
    shown = clean.vectl("show", "life").out
    assert "Started" in shown or "Running" in shown
    clean.vectl("stop", "life", "--timeout", "1")
    assert clean.ve("life")["status"]["state"] == "Stopped"
    clean.vectl("start", "life")
    first = clean.ve("life")["status"]["init_pid"]
    clean.vectl("restart", "life", "--force")
    again = clean.ve("life")["status"]
    assert again["state"] == "Running"
    assert again["init_pid"] != first
    clean.vectl("delete", "--yes", "life")
    assert clean.vectl("show", "life", code=3).out == ""


def test_a_delete_for_good_leaves_nothing_on_the_host(clean: Rack) -> None:
    clean.vectl("create", "gone", "--image", "busybox", "--host", "h2")
    uid = clean.ve("gone")["uid"]
    clean.vectl("delete", "--purge", "--yes", "gone")
    state = clean.plan.host_state(clean.host("h2"))
    left = [str(path) for path in (state / "agent").rglob(f"*{uid}*")]
    assert left == []
    cgroup = Path("/sys/fs/cgroup")
    assert list(cgroup.glob(f"*/{clean.plan.cgroup}/h2/*/{uid}")) == []
    assert uid.replace("-", "")[:12] not in clean.run_in("h2", "ip", "link")
    assert uid.replace("-", "")[:12] not in clean.run_in("h2", "nft", "list", "ruleset")


def test_exec_gives_the_commands_output_and_code(clean: Rack) -> None:
    clean.vectl("create", "ex", "--image", "busybox")
    assert (
        clean.vectl("exec", "ex", "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7).err
        == "err\n"
    )
    assert clean.vectl("exec", "-i", "ex", "--", "cat", text_in="hello").out == "hello"
    assert clean.vectl("exec", "ex", "--", "/no/such", code=127).code == 127
    clean.vectl("stop", "--force", "ex")
    assert "Hint" in clean.vectl("exec", "ex", "--", "true", code=125).err


def test_exec_with_a_terminal_has_its_size(clean: Rack) -> None:
    clean.vectl("create", "tty", "--image", "busybox")
    main, other = pty.openpty()
    fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    process = subprocess.Popen(
        [str(clean.plan.bin / "vectl"), "exec", "-it", "tty", "--", "stty", "size"],
        stdin=other, stdout=other, stderr=other, env=clean.env, start_new_session=True,
    )  # fmt: skip
    os.close(other)
    seen = b""
    deadline = time.monotonic() + 20
    while b"33 101" not in seen and time.monotonic() < deadline:
        ready, _, _ = select.select([main], [], [], 0.2)
        if ready:
            try:
                seen += os.read(main, 4096)
            except OSError:
                break
    assert process.wait(20) == 0
    os.close(main)
    assert b"33 101" in seen


def test_logs_show_the_console(clean: Rack) -> None:
    clean.vectl("create", "talks", "--image", "busybox")
    until(
        lambda: "talks: up" in clean.vectl("logs", "talks").out,
        within_s=10,
        what="the console's line",
    )


def test_wait_ends_with_1_when_it_was_false_and_6_when_late(clean: Rack) -> None:
    clean.vectl("create", "waits", "--image", "busybox")
    clean.vectl("wait", "waits", "--for", "state=Running", "--timeout", "10s")
    clean.vectl("wait", "waits", "--for", "state=Stopped", "--timeout", "1s", code=6)


def test_apply_and_diff(clean: Rack, tmp_path: Path) -> None:
    manifest = tmp_path / "two.yaml"
    document = "kind: VE\nmetadata: {{name: {0}, labels: {{app: two}}}}\nspec: {{image: busybox, memory: {1}}}\n"
    manifest.write_text(document.format("one", "64M") + "---\n" + document.format("two", "64M"))
    assert clean.vectl("diff", "-f", str(manifest), code=1).out != ""
    clean.vectl("apply", "-f", str(manifest))
    clean.vectl("diff", "-f", str(manifest), code=0)
    manifest.write_text(document.format("one", "96M") + "---\n" + document.format("two", "64M"))
    assert "96" in clean.vectl("diff", "-f", str(manifest), code=1).out
    clean.vectl("apply", "-f", str(manifest))
    assert clean.ve("one")["spec"]["memory_bytes"] == str(96 << 20)
    meminfo = clean.vectl("exec", "one", "--", "cat", "/proc/meminfo").out
    assert f"{96 << 10} kB" in meminfo
    clean.vectl("delete", "--yes", "-f", str(manifest))
    assert clean.ves() == []


def test_count_spreads_over_racks_and_hosts(clean: Rack) -> None:
    clean.vectl("create", "two", "--count", "2", "--image", "busybox", "--memory", "32M")
    racks = {clean.host(ve["placement"]["host"]).rack for ve in clean.ves()}
    assert racks == {"r1", "r2"}
    clean.vectl("create", "more", "--count", "4", "--image", "busybox", "--memory", "32M")
    placed = [ve["placement"]["host"] for ve in clean.ves()]
    assert sorted(placed) == ["h1", "h1", "h2", "h2", "h3", "h3"]


def test_hosts_and_images_and_projects_are_shown(clean: Rack) -> None:
    hosts = clean.vectl("host", "list", "-o", "json").json()["items"]
    assert {host["name"]: host["state"] for host in hosts} == {
        "h1": "Ready",
        "h2": "Ready",
        "h3": "Ready",
    }
    assert clean.vectl("host", "show", "h1", "-o", "json").json()["labels"]["rack"] == "r1"
    images = clean.vectl("image", "list", "-o", "json").json()["items"]
    assert [image["tags"] for image in images] == [["busybox"]]
    assert sorted(images[0]["hosts"]) == ["h1", "h2", "h3"]
    clean.vectl("project", "create", "team-a", code=None)
    assert "team-a" in clean.vectl("project", "list").out
    clean.vectl("create", "same", "--image", "busybox", "-p", "team-a")
    clean.vectl("create", "same", "--image", "busybox")
    assert len(json.loads(clean.vectl("list", "-A", "-o", "json").out)["items"]) == 2
    clean.vectl("delete", "--yes", "same", "-p", "team-a")


def test_events_tell_the_story(clean: Rack) -> None:
    clean.vectl("create", "story", "--image", "busybox")
    out = clean.vectl("events").out
    assert "story" in out
    reasons = [event["reason"] for event in clean.ve("story")["status"]["events"]]
    assert reasons == sorted(set(reasons), key=reasons.index)
    assert "Placed" in reasons
