"""Getting at VEs of a real rack by vectl: exec as users, console, logs, push, pull, export, import."""

import os
import pty
import select
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kit.rack import Rack, until


class Screen:
    """vectl on a terminal."""

    def __init__(self, rack: Rack, *arguments: str) -> None:
        self._main, other = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", str(rack.plan.bin / "vectl"), *arguments],
            stdin=other, stdout=other, stderr=other, env=rack.env,
        )  # fmt: skip
        os.close(other)
        self.seen = b""

    def shows(self, text: bytes, within_s: float = 20) -> None:
        deadline = time.monotonic() + within_s
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            ready, _, _ = select.select([self._main], [], [], 0.2)
            if ready:
                try:
                    self.seen += os.read(self._main, 4096)
                except OSError:
                    break
        assert text in self.seen, self.seen

    def type(self, data: bytes) -> None:
        os.write(self._main, data)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)


@contextmanager
def screen(rack: Rack, *arguments: str) -> Iterator[Screen]:
    made = Screen(rack, *arguments)
    try:
        yield made
    finally:
        made.close()


def test_exec_as_a_user_in_a_folder_with_variables(clean: Rack) -> None:
    clean.vectl("create", "who", "--image", "busybox")
    add = "echo alice:x:1234:1234::/home/alice:/bin/sh >>/etc/passwd; mkdir -p /home/alice"
    clean.vectl("exec", "who", "--", "sh", "-c", add)
    script = "id -u; pwd; echo $A-$HOME"
    arguments = ("-u", "alice", "-w", "/tmp", "-e", "A=b=c", "who", "--", "sh", "-c", script)
    assert clean.vectl("exec", *arguments).out == "1234\n/tmp\nb=c-/home/alice\n"
    for wrong in (
        ("-u", "mallory"),
        ("-w", "/nowhere"),
        ("-u", "a b"),
        ("-w", "rel"),
        ("-e", "A"),
        ("-e", "=x"),
    ):
        failed = clean.vectl("exec", *wrong, "who", "--", "true", code=None)
        assert failed.code in (2, 125), failed
        assert "Hint: " in failed.err


def test_ctrl_c_without_a_terminal_is_sigint_for_the_command(clean: Rack) -> None:
    clean.vectl("create", "sig", "--image", "busybox")
    process = subprocess.Popen(
        [str(clean.plan.bin / "vectl"), "exec", "sig", "--", "sh", "-c", "trap 'exit 9' INT; echo go; while :; do sleep 0.1; done"],
        env=clean.env, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"go\n"
    process.send_signal(2)
    assert process.wait(20) == 9
    process.stdout.close()


def test_enter_is_a_login_shell_on_a_terminal(clean: Rack) -> None:
    clean.vectl("create", "ent", "--image", "busybox")
    with screen(clean, "enter", "ent") as shell:
        shell.shows(b"# ")
        shell.type(b"echo [$0] [$HOME] $(tty)\r")
        shell.shows(b"[-sh] [/root] /dev/pts/")
        shell.type(b"exit 4\r")
        assert shell.process.wait(20) == 4


def test_a_console_is_shown_taken_over_and_left(clean: Rack) -> None:
    clean.vectl("create", "con", "--image", "busybox")
    until(lambda: "up" in clean.vectl("logs", "con").out, within_s=10, what="the console's line")
    assert clean.vectl("console", "con", code=2).err.count("Hint") == 1
    with screen(clean, "console", "con") as first:
        first.shows(b"con: up")
        with screen(clean, "console", "con") as refused:
            refused.shows(b"Hint: --force")
            assert refused.process.wait(20) == 4
        with screen(clean, "console", "con", "--force", "--detach-key", "ctrl-]") as second:
            second.shows(b"con: up")
            first.shows(b"taken over")
            assert first.process.wait(20) == 4
            clean.vectl("exec", "con", "--", "sh", "-c", "echo news >/dev/console")
            second.shows(b"news")
            second.type(b"\x1d")
            second.shows(b"Left the console")
            assert second.process.wait(20) == 0
    with screen(clean, "console", "con") as third:
        third.shows(b"news")
        clean.vectl("stop", "--force", "con")
        third.shows(b"has stopped")
        assert third.process.wait(20) == 0


def test_logs_since_and_over_rotations(clean: Rack) -> None:
    clean.vectl("create", "talk", "--image", "busybox")
    clean.vectl(
        "exec", "talk", "--", "sh", "-c", "yes 0123456789abcdef | head -c 5000000 >/dev/console"
    )
    clean.vectl("exec", "talk", "--", "sh", "-c", "echo the end >/dev/console")
    until(
        lambda: clean.vectl("logs", "talk", "--tail", "1").out.endswith("the end\n"),
        within_s=10,
        what="the last line",
    )
    assert 900_000 < len(clean.vectl("logs", "talk").out) <= (2 << 20)
    assert "the end" in clean.vectl("logs", "talk", "--since", "1h").out
    assert clean.vectl("logs", "talk", "--since", "2099-01-01", code=2).out == ""


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_folders_go_in_and_come_out_as_they_were(clean: Rack, tmp_path: Path, running) -> None:
    clean.vectl("create", "box", "--image", "busybox")
    if not running:
        clean.vectl("stop", "--force", "box")
    tree = tmp_path / "app"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o751)
    (tree / "deep/er/big").write_bytes(os.urandom(3_000_000))
    (tree / "in").symlink_to("deep/er/big")
    (tree / "out").symlink_to("/etc/passwd")
    os.chown(tree / "run", 1000, 1001)
    assert "7 files, 2.9M: box:/root" in clean.vectl("push", "-r", str(tree), "box:/root").out
    back = tmp_path / "back"
    back.mkdir()
    pulled = clean.vectl("pull", "-r", "--preserve", "box:/root/app", str(back))
    assert "app/out: left out, a link that leads out" in pulled.err
    copy = back / "app"
    assert (copy / "deep/er/big").read_bytes() == (tree / "deep/er/big").read_bytes()
    found = (copy / "run").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1000, 1001, 0o751)
    assert str((copy / "in").readlink()) == "deep/er/big"
    assert not (copy / "out").is_symlink()
    assert "1 file" in clean.vectl("push", str(tree / "run"), "box:/root/renamed").out
    clean.vectl("pull", "--links", "-r", "box:/root/app", str(tmp_path / "again"))
    assert str((tmp_path / "again/out").readlink()) == "/etc/passwd"


def test_one_file_goes_through_pipes(clean: Rack) -> None:
    clean.vectl("create", "pipe", "--image", "busybox")
    clean.vectl("push", "-", "pipe:/root/in", "--mode", "0600", text_in="hello\nyou")
    assert clean.vectl("pull", "pipe:/root/in", "-").out == "hello\nyou"
    assert clean.vectl("exec", "pipe", "--", "stat", "-c", "%a %u", "/root/in").out == "600 0\n"


BAD = [
    (("push", "/etc/hostname", "bad"), 2),
    (("push", "/etc/hostname", "bad:rel"), 2),
    (("push", "/etc/hostname", ":/x"), 2),
    (("push", "/etc/hostname", "bad:/x/../nowhere/y"), 3),
    (("push", "/etc", "bad:/root"), 3),
    (("push", "/nowhere", "bad:/root"), 3),
    (("push", "/etc/hostname", "nobody:/root"), 3),
    (("push", "/etc/hostname", "bad:/root", "--owner", "mallory"), 3),
    (("push", "/etc/hostname", "bad:/root", "--owner=-1"), 2),
    (("push", "/etc/hostname", "bad:/root", "--mode", "0644"), 2),
    (("push", "-", "bad:/root/x", "--mode", "9"), 2),
    (("push", "-", "bad:/root/x", "--mode", "77777"), 2),
    (("push", "-", "/etc/hostname", "bad:/root"), 2),
    (("push", "/etc/hostname", "bad:/" + "x" * 256), 2),
    (("pull", "bad:/nowhere", "."), 3),
    (("pull", "bad:/etc", "."), 3),
    (("pull", "bad:/dev/null", "."), 3),
    (("pull", "bad:/etc/passwd", "/nowhere/x/y"), 3),
    (("pull", "bad:/a", "worse:/b", "."), 2),
    (("pull", "-r", "bad:/etc", "-"), 2),
    (("export", "bad", "/nowhere/file"), 4),
    (("export", "bad", "/tmp/x.ve", "--snapshot", "none"), 3),
    (("import", "/etc/hostname"), 2),
    (("import", "/nowhere"), 2),
    (("import", "/etc"), 2),
    (("import", "/etc/hostname", "Bad_Name"), 2),
]


def test_bad_input_is_refused_with_a_hint(clean: Rack, tmp_path: Path) -> None:
    clean.vectl("create", "bad", "--image", "busybox")
    for arguments, code in BAD:
        failed = clean.vectl(*arguments, code=None)
        assert failed.code == code, (arguments, failed)
        assert "Hint: " in failed.err
        assert failed.out == ""


def test_the_disk_limit_holds_for_what_is_pushed(clean: Rack, tmp_path: Path) -> None:
    clean.vectl("create", "small", "--image", "busybox", "--disk", "64M")
    big = tmp_path / "big"
    big.write_bytes(os.urandom(1 << 20) * 100)
    for _ in ("running", "stopped"):
        failed = clean.vectl("push", str(big), "small:/root/", code=4)
        assert "quota" in failed.err.lower()
        left = clean.vectl("pull", "-r", "small:/root", str(tmp_path / "left"))
        assert "big" not in left.out
        subprocess.run(["rm", "-r", str(tmp_path / "left")], check=True)
        clean.vectl("stop", "--force", "small")


def test_a_ve_goes_into_a_file_and_comes_back_whole(clean: Rack, tmp_path: Path) -> None:
    clean.vectl(
        *(
            "create",
            "src",
            "--image",
            "busybox",
            "--memory",
            "48M",
            "--cpu",
            "0.5",
            "--label",
            "a=b",
        )
    )
    clean.vectl("exec", "src", "--", "sh", "-c", """
        mkdir /data; echo content >/data/file; chown 33:44 /data/file; chmod 4711 /data/file
        ln /data/file /data/hard; ln -s /nowhere /data/soft; mkfifo /data/pipe
        dd if=/dev/zero of=/data/sparse bs=1 count=1 seek=50000000 2>/dev/null
        head -c 3000000 /dev/urandom >/data/noise""")  # fmt: skip
    sums = clean.vectl("exec", "src", "--", "md5sum", "/data/noise", "/data/sparse").out
    file = tmp_path / "src.ve"
    assert "ve/src exported" in clean.vectl("export", "src", str(file)).out
    assert file.stat().st_size < 12_000_000
    assert list(tmp_path.iterdir()) == [file]
    with tarfile.open(file) as tar:
        names = tar.getnames()
    assert names[0] == "verack-ve.json"
    assert names[-1] == "sha256"
    assert "taken" in clean.vectl("import", str(file), code=4).err
    imported = clean.vectl("import", str(file), "copy")
    assert "ve/copy imported: Running" in imported.out
    ve = clean.ve("copy")
    assert (ve["labels"], ve["spec"]["memory_bytes"], ve["spec"]["cpu"]) == (
        {"a": "b"},
        str(48 << 20),
        0.5,
    )
    assert clean.vectl("exec", "copy", "--", "md5sum", "/data/noise", "/data/sparse").out == sums
    listed = clean.vectl(
        "exec", "copy", "--", "stat", "-c", "%n %a %u %g %h", "/data/file", "/data/hard"
    ).out
    assert listed == "/data/file 4711 33 44 2\n/data/hard 4711 33 44 2\n"
    blocks = clean.vectl("exec", "copy", "--", "stat", "-c", "%b", "/data/sparse").out
    assert int(blocks) < 1000
    assert clean.vectl("exec", "copy", "--", "readlink", "/data/soft").out == "/nowhere\n"
    clean.vectl("delete", "--yes", "src", "copy")


def test_a_cut_changed_or_newer_file_leaves_nothing(clean: Rack, tmp_path: Path) -> None:
    clean.vectl("create", "orig", "--image", "busybox")
    clean.vectl("stop", "--force", "orig")
    file, bad = tmp_path / "orig.ve", tmp_path / "bad.ve"
    clean.vectl("export", "orig", str(file))
    whole = file.read_bytes()
    before = clean.vectl("image", "list", "-o", "name").out
    at = len(whole) // 2
    wrong = {
        "cut": whole[:at],
        "cut at its end": whole[:-1100],
        "changed": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
        "newer": whole.replace(b'"format": 1', b'"format": 9', 1),
        "other spec": whole.replace(b'"orig"', b'"evil"', 1),
        "empty": b"\0" * 1024,
    }
    for what, data in wrong.items():
        bad.write_bytes(data)
        failed = clean.vectl("import", str(bad), "fresh", code=2)
        assert "refused" in failed.err or "format 9" in failed.err, (what, failed.err)
    assert clean.vectl("image", "list", "-o", "name").out == before
    assert [ve["name"] for ve in clean.ves()] == ["orig"]
    with file.open("rb") as source:
        done = subprocess.run(
            [str(clean.plan.bin / "vectl"), "import", "-", "fresh", "--stopped", "-o", "json"],
            env=clean.env, stdin=source, capture_output=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert clean.ve("fresh")["status"]["state"] == "Stopped"
