"""Commands inside real VEs: pipes, ptys, exit codes, signals, and what they leave behind."""

import asyncio
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from kit.eventually import eventually
from kit.realves import Lab, lab
from veagent.ports import ExecCommand, ExecProcess, Instance, Stream
from veagent.runtime import rundir
from veapi.errors import Conflict, InvalidInput, NotFound

pytestmark = pytest.mark.skipif(shutil.which("lxc-start") is None, reason="lxc is not installed")
MIB = 1 << 20
BOTH = pytest.mark.parametrize("tty", [False, True])


@pytest.fixture
async def ves() -> AsyncIterator[Lab]:
    async with lab() as made:
        yield made


@pytest.fixture
async def instance(ves: Lab) -> Instance:
    return await ves.runtime.start(ves.plan())


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def text_until(process: ExecProcess, wanted: str) -> str:
    """Reads output until `wanted` has come."""
    text = ""
    async for _, data in process.output():
        text += data.decode()
        if wanted in text:
            return text
    raise AssertionError(f"{wanted!r} did not come, but {text!r}")


def inside(instance: Instance) -> list[str]:
    """Command lines of the processes in the VE, but its init."""
    namespace = Path(f"/proc/{instance.init_pid}/ns/pid").readlink()
    lines = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            same = (path / "ns/pid").readlink() == namespace and path.name != str(instance.init_pid)
            if same and (line := (path / "cmdline").read_bytes()):
                lines.append(line.replace(b"\0", b" ").decode())
        except OSError:
            continue
    return lines


async def test_output_and_errors_come_apart_with_the_exit_code(
    ves: Lab, instance: Instance
) -> None:
    ran = await ves.run(instance, "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (ran.code, ran.out, ran.err) == (42, "out\n", "err\n")


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("/bin/nosuch",), 127, "/bin/nosuch: not found\n"),
        (("/etc/passwd",), 126, "/etc/passwd: can't be executed\n"),
        (("sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM, ""),
        (("sh", "-c", "kill -KILL $$"), 128 + signal.SIGKILL, ""),
        (("sh", "-c", "exit 127"), 127, None),
        (("true", "-n", "--", "--help"), 0, ""),
    ],
)
async def test_exit_codes(
    ves: Lab, instance: Instance, argv: tuple[str, ...], code: int, words: str | None
) -> None:
    ran = await ves.run(instance, *argv)
    assert ran.code == code
    if words is not None:
        assert ran.err == words


async def test_stdin_reaches_the_command_and_ends(ves: Lab, instance: Instance) -> None:
    process = await ves.runtime.execute(instance, ExecCommand(["wc", "-c"], stdin=True))
    await process.write(b"x" * (3 * MIB))
    await process.close_stdin()
    assert (await text_until(process, "\n")).strip() == str(3 * MIB)
    assert await process.exit_code() == 0
    await process.close()


async def test_without_stdin_a_command_reads_nothing(ves: Lab, instance: Instance) -> None:
    assert (await ves.run(instance, "cat")).out == ""


async def test_writing_to_a_command_that_does_not_read_ends_with_the_command(
    ves: Lab, instance: Instance
) -> None:
    process = await ves.runtime.execute(instance, ExecCommand(["sleep", "0.3"], stdin=True))
    await process.write(b"x" * MIB)
    assert await process.exit_code() == 0
    await process.write(b"more")
    await process.close()


async def test_much_output_comes_whole_to_a_slow_reader(ves: Lab, instance: Instance) -> None:
    command = ExecCommand(["sh", "-c", "dd if=/dev/zero bs=65536 count=160 2>/dev/null"])
    process = await ves.runtime.execute(instance, command)
    size = 0
    async for stream, data in process.output():
        assert stream is Stream.STDOUT
        assert len(data) <= 65_536
        size += len(data)
        await asyncio.sleep(0)
    assert size == 160 * 65_536
    assert await process.exit_code() == 0
    await process.close()


async def test_nothing_of_the_agents_environment_goes_in(
    ves: Lab, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_SECRET", "42")
    ran = await ves.run(instance, "env", env={"ASKED": "a b=c"})
    assert "AGENT_SECRET" not in ran.out
    assert "ASKED=a b=c\n" in ran.out
    assert "HOME=/root\n" in ran.out


async def test_a_pty_has_its_size_and_follows_a_resize(ves: Lab, instance: Instance) -> None:
    script = "trap 'stty size; exit 3' WINCH; stty size; while :; do sleep 0.05; done"
    command = ExecCommand(["sh", "-c", script], tty=True, columns=101, rows=33)
    process = await ves.runtime.execute(instance, command)
    assert "33 101" in await text_until(process, "33 101")
    process.resize(132, 50)
    assert "50 132" in await text_until(process, "50 132")
    assert await process.exit_code() == 3
    await process.close()


async def test_a_shell_on_a_pty_is_interactive(ves: Lab, instance: Instance) -> None:
    process = await ves.runtime.execute(instance, ExecCommand(["sh"], tty=True))
    await process.write(b"tty; echo $((6*7))\n")
    text = await text_until(process, "42")
    assert "/dev/" in text
    await process.write(b"sleep 1000\n")
    await eventually(lambda: any(line.startswith("sleep 1000") for line in inside(instance)))
    await process.write(b"\x03")
    await eventually(lambda: not any(line.startswith("sleep") for line in inside(instance)))
    await process.write(b"exit 3\n")
    assert await process.exit_code() == 3
    await process.close()


async def test_the_end_of_input_on_a_pty_ends_what_reads_it(ves: Lab, instance: Instance) -> None:
    process = await ves.runtime.execute(instance, ExecCommand(["cat"], tty=True))
    await process.write(b"one line\n")
    assert await text_until(process, "line\r\none line") == "one line\r\none line\r\n"
    await process.close_stdin()
    assert await process.exit_code() == 0
    await process.close()


async def test_all_output_of_a_pty_comes_before_its_end(ves: Lab, instance: Instance) -> None:
    ran = await ves.run(instance, "sh", "-c", "seq 1 5000; echo done", tty=True)
    assert ran.code == 0
    assert ran.out == "".join(f"{number}\r\n" for number in range(1, 5001)) + "done\r\n"


@BOTH
async def test_a_signal_reaches_the_command(
    ves: Lab,
    instance: Instance,
    tty: bool,  # noqa: FBT001
) -> None:
    process = await ves.runtime.execute(instance, ExecCommand(["sleep", "1000"], tty=tty))
    await eventually(lambda: "sleep 1000 " in inside(instance))
    process.signal(signal.SIGTERM)
    assert await process.exit_code() == 128 + signal.SIGTERM
    await process.close()


@BOTH
async def test_a_signal_before_the_command_runs_is_kept_for_it(
    ves: Lab,
    instance: Instance,
    tty: bool,  # noqa: FBT001
) -> None:
    process = await ves.runtime.execute(instance, ExecCommand(["sleep", "1000"], tty=tty))
    process.signal(signal.SIGTERM)
    assert await process.exit_code() == 128 + signal.SIGTERM
    await process.close()


@BOTH
async def test_close_kills_the_command_and_what_holds_its_pipes(
    ves: Lab,
    instance: Instance,
    tty: bool,  # noqa: FBT001
) -> None:
    script = "sleep 1001 & sleep 1002 & echo ready; sleep 1003"
    process = await ves.runtime.execute(instance, ExecCommand(["sh", "-c", script], tty=tty))
    await text_until(process, "ready")
    await process.close()
    assert await process.exit_code() == 128 + signal.SIGKILL
    await eventually(lambda: inside(instance) == [])


async def test_close_at_once_leaves_nothing(ves: Lab, instance: Instance) -> None:
    for delay_s in (0.0, 0.002, 0.004, 0.006, 0.01):
        process = await ves.runtime.execute(instance, ExecCommand(["sleep", "1000"]))
        await asyncio.sleep(delay_s)
        await process.close()
    await eventually(lambda: inside(instance) == [])
    assert [line for line in ves.processes() if "lxc-attach" in line] == []


async def test_output_ends_with_the_command_though_a_child_holds_the_pipe(
    ves: Lab, instance: Instance
) -> None:
    ran = await ves.run(instance, "sh", "-c", "sleep 1000 & echo out; exit 5")
    assert (ran.code, ran.out) == (5, "out\n")
    await eventually(lambda: inside(instance) == [])


async def test_a_daemon_in_a_session_of_its_own_lives_on(ves: Lab, instance: Instance) -> None:
    script = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & sleep 0.1"
    assert (await ves.run(instance, "sh", "-c", script)).code == 0
    assert [line.split()[0] for line in inside(instance)] == ["sleep"]


async def test_a_command_ends_when_its_ve_does(ves: Lab, instance: Instance) -> None:
    process = await ves.runtime.execute(instance, ExecCommand(["sleep", "1000"]))
    await eventually(lambda: "sleep 1000 " in inside(instance))
    await ves.runtime.stop(instance, timeout_s=0)
    assert await process.exit_code() == 128 + signal.SIGKILL
    await process.close()
    with pytest.raises(Conflict):
        await ves.runtime.execute(instance, ExecCommand(["true"]))


async def test_descriptors_are_given_back(ves: Lab, instance: Instance) -> None:
    await ves.run(instance, "true")
    before = open_descriptors()
    for tty in (False, True):
        await ves.run(instance, "true", tty=tty)
    await ves.run(instance, "true", stdin=True)
    assert open_descriptors() == before


@pytest.mark.parametrize(
    "command",
    [
        ExecCommand([]),
        ExecCommand([""]),
        ExecCommand(["a\0b"]),
        ExecCommand(["true"], env={"A=B": "x"}),
        ExecCommand(["true"], env={"-n": "x"}),
        ExecCommand(["true", "x" * (3 * MIB)]),
    ],
)
async def test_commands_that_can_not_be_are_refused(
    ves: Lab, instance: Instance, command: ExecCommand
) -> None:
    before = open_descriptors()
    with pytest.raises(InvalidInput):
        await ves.runtime.execute(instance, command)
    assert open_descriptors() == before


async def test_twenty_commands_at_once(ves: Lab, instance: Instance) -> None:
    all_ran = await asyncio.gather(*(ves.run(instance, "echo", str(n)) for n in range(20)))
    assert [ran.out.strip() for ran in all_ran] == [str(n) for n in range(20)]


@pytest.fixture
async def peopled(ves: Lab) -> Instance:
    """A VE with users and groups of its own."""
    plan = ves.plan()
    root = Path(plan.root)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
        "alice:x:1000:1000::/home/alice:/bin/sh\n"
        "shelly:x:1001:1001::/nowhere:/bin/nosuch\n"
    )
    (root / "etc/group").write_text("root:x:0:\nadm:x:4:alice\nalice:x:1000:\n")
    (root / "home/alice").mkdir(parents=True)
    (root / "srv").mkdir()
    (root / "closed").mkdir(mode=0o700)
    return await ves.runtime.start(plan)


@pytest.mark.parametrize(
    ("user", "ids", "folder"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root)", "/root"),
        ("alice", "uid=1000(alice) gid=1000(alice) groups=4(adm),1000(alice)", "/home/alice"),
        ("1000", "uid=1000(alice) gid=1000(alice) groups=4(adm),1000(alice)", "/home/alice"),
        ("alice:adm", "uid=1000(alice) gid=4(adm) groups=4(adm)", "/home/alice"),
        ("33:7", "uid=33 gid=7 groups=7", "/"),
        ("shelly", "uid=1001(shelly) gid=1001 groups=1001", "/"),
    ],
)
async def test_a_command_runs_as_a_user_of_the_ve_in_its_home(
    ves: Lab, peopled: Instance, user: str, ids: str, folder: str
) -> None:
    ran = await ves.run(peopled, "sh", "-c", "id; pwd", user=user)
    assert (ran.code, ran.out) == (0, f"{ids}\n{folder}\n")


@BOTH
@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"user": "mallory"}, NotFound, "no user mallory"),
        ({"user": "alice:nogroup"}, NotFound, "no group nogroup"),
        ({"cwd": "/missing"}, InvalidInput, "/missing: No such file"),
        ({"cwd": "/etc/passwd"}, InvalidInput, "Not a directory"),
        ({"user": "alice", "cwd": "/closed"}, InvalidInput, "Permission denied"),
    ],
)
async def test_what_keeps_a_command_from_beginning_is_an_error_and_no_exit_code(
    ves: Lab, peopled: Instance, tty, options, kind, words: str
) -> None:
    with pytest.raises(kind, match=words) as refused:
        await ves.run(peopled, "true", tty=tty, **options)
    assert refused.value.hint


async def test_a_command_begins_in_the_folder_that_was_asked(ves: Lab, peopled: Instance) -> None:
    assert (await ves.run(peopled, "pwd", cwd="/srv/../srv")).out == "/srv\n"


async def test_users_are_looked_up_behind_a_ves_own_links_and_never_in_the_hosts_files(
    ves: Lab, peopled: Instance
) -> None:
    script = "rm /etc/passwd; ln -s /proc/1/root/etc/group /etc/passwd; mkfifo /etc/x; mv /etc/x /etc/group"
    await ves.run(peopled, "sh", "-c", script)
    with pytest.raises(NotFound):
        await ves.run(peopled, "true", user="daemon")
    assert (await ves.run(peopled, "id", "-u", user="7")).out == "7\n"


async def test_a_planted_module_of_ours_is_never_imported(ves: Lab, peopled: Instance) -> None:
    names = "warnings encodings/idna codecs os stat posixpath veagent/inside/users"
    script = f"""for at in /usr/lib/python3.11 {sys.prefix}/lib/python3.11 {sys.base_prefix}/lib/python3.11 {Path.cwd()}/agent; do
        for name in {names}; do mkdir -p $(dirname $at/$name); echo 'open("/tmp/was-here","w")' >$at/$name.py; done; done"""
    await ves.run(peopled, "sh", "-c", script)
    for user in ("", "alice", "nosuch"):
        with suppress(NotFound):
            await ves.run(peopled, "nosuch", user=user)
    assert "was-here" not in (await ves.run(peopled, "ls", "/tmp")).out


async def test_a_login_shell_is_the_users_on_a_pty_of_the_ve(ves: Lab, peopled: Instance) -> None:
    command = ExecCommand((), login=True, tty=True, user="alice")
    process = await ves.runtime.execute(peopled, command)
    await process.write(
        b"echo [$0] [$HOME] [$USER] [$PWD] [$SHELL]; stat -c own%u $(tty); exit 5\n"
    )
    text = await text_until(process, "own1000\r")
    assert "[-sh] [/home/alice] [alice] [/home/alice] [/bin/sh]" in text
    assert await process.exit_code() == 5
    await process.close()


async def test_a_missing_login_shell_is_sh(ves: Lab, peopled: Instance) -> None:
    command = ExecCommand((), login=True, user="shelly", stdin=True)
    process = await ves.runtime.execute(peopled, command)
    await process.write(b"echo $0 $SHELL\n")
    await process.close_stdin()
    assert await text_until(process, "\n") == "-sh /bin/nosuch\n"
    await process.close()


async def test_a_command_is_behind_the_ves_filter_and_capabilities(
    ves: Lab, peopled: Instance
) -> None:
    """As its init: the same seccomp filter, no more capabilities, the same cgroup."""
    init = Path(f"/proc/{peopled.init_pid}/status").read_text()  # noqa: ASYNC240
    ran = await ves.run(peopled, "cat", "/proc/self/status")
    for name in ("Seccomp:", "Seccomp_filters:", "CapBnd:", "NoNewPrivs:"):
        line = next(line for line in init.splitlines() if line.startswith(name))
        assert line in ran.out


async def test_commands_that_find_no_process_left_are_told_so_and_fill_no_log(ves: Lab) -> None:
    plan = ves.plan()
    instance = await ves.runtime.start(plan)
    await ves.runtime.limit(plan.uid, msgspec.structs.replace(plan.limits, pids=1))
    for _ in range(3):
        refused = await ves.runtime.execute(instance, ExecCommand(("/bin/true",)))
        with pytest.raises(Conflict, match="no process or memory left"):
            await refused.exit_code()
        await refused.close()
    assert b"attach" not in rundir.log(ves.folder / "lxc", plan.uid).read_bytes()
