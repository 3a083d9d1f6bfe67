"""What LXC, the kernel and lxcfs say, as we read it, and what we say to them."""

import signal
from pathlib import Path

import pytest

from veagent import lxcfs
from veagent.inside import attach as inside
from veagent.ports import Ended, EndKind, ExecCommand
from veagent.runtime import adopt, procs
from veagent.runtime.exec import Attach, arguments
from veagent.runtime.launch import failure
from veagent.runtime.notes import end_of, status_in
from veapi.errors import InvalidInput
from veapi.model import Uid

UID = Uid("4b1b8a8e-0000-4000-8000-000000000001")
LXC = Path("/state/lxc")


@pytest.mark.parametrize(
    ("status", "note", "exit_status", "kind"),
    [
        (signal.SIGKILL, "stop", 9, EndKind.CRASH),
        (signal.SIGINT, "stop", 9, EndKind.HALT),
        (signal.SIGHUP, "reboot", 9, EndKind.REBOOT),
        (signal.SIGHUP, "", None, EndKind.REBOOT),
        (0, "stop", 0, EndKind.HALT),
        (7 << 8, "stop", 7 << 8, EndKind.CRASH),
        (None, "reboot", None, EndKind.REBOOT),
        (None, "stop", 0, EndKind.HALT),
        (None, "stop", 9, EndKind.CRASH),
        (None, "", None, EndKind.CRASH),
    ],
)
def test_ends_are_told_apart(
    status: int | None, note: str, exit_status: int | None, kind: EndKind
) -> None:
    expected = status if status is not None else exit_status
    assert end_of(status, note, exit_status) == Ended(kind, expected)


STARTED = (
    f"lxc-start {UID} 20261124103811.500 NOTICE   start - ../src/lxc/start.c:post_start:2218 - "
    'Started "/sbin/init" with pid "9184"\n'
)
ENDED = (
    f"lxc-start {UID} 20261124103811.686 INFO     error - ../src/lxc/error.c:lxc_error_set_and_log:"
)
BY_ATTACH = f"lxc-attach {UID} 20261124103811.6 INFO     error - x.c:f:34 - Child <1> ended on signal Killed(9)\n"


@pytest.mark.parametrize(
    ("log", "status"),
    [
        (STARTED + ENDED + "34 - Child <9184> ended on signal Hangup(1)\n", signal.SIGHUP),
        (STARTED + ENDED + "34 - Child <9184> ended on signal Interrupt(2)\n", signal.SIGINT),
        (STARTED + ENDED + "34 - Child <9184> ended on signal Killed(9)\nmore\n", signal.SIGKILL),
        (STARTED + ENDED + "29 - Child <9184> ended on error (7)\n", 7 << 8),
        (STARTED, 0),
        (STARTED + BY_ATTACH, 0),
        (ENDED + "29 - Child <9184> ended on error (1)\n", None),
        ("", None),
    ],
)
def test_how_init_ended_is_read_from_the_log_of_its_monitor(log: str, status: int | None) -> None:
    assert status_in(log) == status


def test_monitors_and_starts_of_ours_are_recognised() -> None:
    assert procs.monitored(f"[lxc monitor] /state/lxc {UID}", LXC) == UID
    assert procs.monitored(f"[lxc monitor] /state/lxc2 {UID}", LXC) is None
    assert procs.monitored("vim [lxc monitor] /state/lxc x", LXC) is None
    line = f"/usr/bin/lxc-start -P /state/lxc -n {UID} -d -s lxc.log.level=INFO"
    assert procs.starting(line, LXC) == UID
    assert procs.starting(line, Path("/state")) is None
    assert procs.starting("lxc-start", LXC) is None


def test_what_lxc_says_reaches_the_user(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(
        "lxc-start u 20261124054338.820 ERROR    start - ../src/lxc/start.c:start:99 - No such file - "
        'Failed to exec "/sbin/init"\n'
        "lxc-start u 20261124054338.820 ERROR    sync - ../src/lxc/sync.c:sync_wait:34 - An error\n"
        "lxc-start u 20261124054338.821 ERROR    sync - ../src/lxc/sync.c:sync_wait:34 - An error\n"
        "garbage\n"
    )
    error = failure(tmp_path / "log", "it failed")
    assert error.message == 'it failed: No such file - Failed to exec "/sbin/init"; An error'
    assert "/sbin/init" in error.hint


def test_a_failure_without_a_log_still_has_a_hint(tmp_path: Path) -> None:
    error = failure(tmp_path / "log", "it failed")
    assert error.message == "it failed"
    assert error.hint


MOUNTS = """\
66 43 254:0 /root / rw shared:2 - ext4 /dev/vda rw
68 66 0:41 / /proc rw,nosuid shared:13 - proc proc rw
90 68 0:77 /proc/meminfo /proc/meminfo ro master:3 - fuse.lxcfs lxcfs rw
91 68 0:77 /proc/uptime /proc/uptime ro - fuse.lxcfs lxcfs rw
92 91 0:99 /proc/uptime /proc/uptime ro - fuse.lxcfs lxcfs rw
93 68 0:55 / /proc/stat rw - tmpfs none rw
"""


def test_mounts_of_a_dead_lxcfs_are_found() -> None:
    files = ("proc/meminfo", "proc/uptime", "proc/stat", "proc/swaps")
    assert lxcfs.mounted(MOUNTS, "/proc/meminfo") == "0:77"
    assert lxcfs.mounted(MOUNTS, "/proc/stat") is None
    assert lxcfs.stale(MOUNTS, "0:99", files) == ("proc/meminfo", "proc/stat", "proc/swaps")
    assert lxcfs.stale(MOUNTS, "0:77", ("proc/meminfo",)) == ()


PLACE = Attach(UID, 1, LXC, "/usr/bin/setsid", lambda: ())


def task_of(command: ExecCommand) -> inside.Task:
    argv = arguments(PLACE, command, 9)
    return inside.decode(argv[argv.index("-c", argv.index("-S")) + 2 :])


def test_a_command_can_not_become_an_option() -> None:
    task = task_of(ExecCommand(["--help", "-n"], env={"A": "-P /"}, user="bob", cwd="/srv"))
    assert task.command == ("--help", "-n")
    assert task.env == ("A=-P /",)
    assert (task.user, task.cwd, task.trouble_fd, task.ve) == ("bob", "/srv", 9, UID)


def test_a_pty_has_a_controlling_terminal() -> None:
    assert arguments(PLACE, ExecCommand(["sh"], tty=True), 9)[:2] == ["/usr/bin/setsid", "-c"]
    assert task_of(ExecCommand(["sh"], tty=True)).tty
    assert not task_of(ExecCommand(["sh"])).tty


def test_a_login_needs_no_command() -> None:
    assert task_of(ExecCommand([], login=True, tty=True)).command == ()


@pytest.mark.parametrize(
    "command",
    [
        ExecCommand([]),
        ExecCommand([""]),
        ExecCommand(["a\0"]),
        ExecCommand(["a"], env={"-x": ""}),
        ExecCommand(["a"], env={"A": "\0"}),
        ExecCommand(["a"], cwd="/\0"),
        ExecCommand(["a"], user="r\0"),
    ],
)
def test_impossible_commands_are_refused(command: ExecCommand) -> None:
    with pytest.raises(InvalidInput):
        arguments(PLACE, command, 9)


def test_a_process_of_a_ve_can_not_pose_as_a_monitor(monkeypatch, tmp_path: Path) -> None:
    title = f"[lxc monitor] {tmp_path} u1"
    monkeypatch.setattr(procs, "all_pids", lambda: iter([10, 11]))
    monkeypatch.setattr(procs, "cmdline", lambda pid: title)
    monkeypatch.setattr(procs, "owner", {10: 0, 11: 100_000}.get)
    assert adopt.scan(tmp_path).monitors == {"u1": 10}
