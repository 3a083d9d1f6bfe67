"""Commands inside a VE, by a small program of ours (`inside.attach`) around liblxc.

What was learnt the hard way: with a pty it needs a controlling terminal (`setsid -c`), else it hangs. The command is its
child and survives its death: to end the command, the child is killed. What the command left in the background is known
by its session.
"""

import asyncio
import fcntl
import os
import pty
import signal
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from veagent.inside import attach as inside
from veagent.pidfd import Held
from veagent.ports import ExecCommand, Stream
from veagent.runtime import procs
from veagent.runtime.launch import ENVIRONMENT
from veagent.runtime.lxcconfig import IDS, VARIABLE
from veagent.runtime.pump import Input, Output
from veapi.errors import Conflict, InvalidInput, NotFound, VerackError, by_kind
from veapi.model import Uid

log = structlog.get_logger()
ATTACH_WITHIN_S = 10.0
CLOSE_WITHIN_S = 5.0
_HINTS = {
    NotFound.kind: "look into its /etc/passwd and /etc/group, or give a number",
    InvalidInput.kind: "name a folder of the VE that this user may enter",
    Conflict.kind: "look at its state with `vectl show`, and at its limits of pids and memory",
}
_START = f"import sys; sys.path.insert(0, {str(Path(inside.__file__).parents[2])!r}); from veagent.inside.attach import main; main()"
_END_OF_INPUT = b"\x04"
_TROUBLE_BYTES = 4096
_RETRY_S = 0.01
_RETRIES = 500
_LOOK_S = 0.002


@dataclass(frozen=True, slots=True)
class Attach:
    """Where a command goes: a VE of an LXC path. `members` gives all pids inside, as the host numbers them."""

    uid: Uid
    init_pid: int
    lxc_path: Path
    setsid: str
    members: Callable[[], Iterable[int]]


def arguments(place: Attach, command: ExecCommand, trouble_fd: int) -> list[str]:
    """The whole argument list; InvalidInput when the command can't be one."""
    if not command.login and (not command.argv or not command.argv[0]):
        raise InvalidInput("the command is empty", hint="say what to run, e.g. -- /bin/sh")
    for key in command.env:
        if not VARIABLE.fullmatch(key):
            raise InvalidInput(
                f"environment variable {key!r} is not usable",
                hint="letters, digits and underscores only",
            )
    task = inside.Task(
        lxc_path=str(place.lxc_path),
        ve=place.uid,
        trouble_fd=trouble_fd,
        tty=command.tty,
        user=command.user,
        cwd=command.cwd,
        env=tuple(f"{key}={value}" for key, value in command.env.items()),
        command=() if command.login else tuple(command.argv),
    )
    words = inside.encode(task)
    if any("\0" in word for word in words):
        raise InvalidInput("the command has a zero byte in it", hint="leave it out")
    argv = [sys.executable, "-I", "-S", "-c", _START, *words]
    return [place.setsid, "-c", *argv] if command.tty else argv


async def attach(place: Attach, command: ExecCommand) -> "LxcExec":
    """Starts the command. InvalidInput when it can't be run as it is; it may still end with 126 or 127."""
    trouble, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        argv = arguments(place, command, told.fileno())
        ends = _Ends.of_pty(command) if command.tty else _Ends.of_pipes(stdin=command.stdin)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=ends.child[0],
                stdout=ends.child[1],
                stderr=ends.child[2],
                env=ENVIRONMENT,
                cwd="/",
                pass_fds=(told.fileno(),),
                start_new_session=not command.tty,
            )
        except OSError as error:
            ends.close()
            raise InvalidInput(
                f"the command can't be run: {error.strerror}", hint="it may be too long"
            ) from None
        finally:
            ends.close_child()
    except BaseException:
        trouble.close()
        raise
    finally:
        told.close()
    return LxcExec(place, command, process, ends, trouble)


class LxcExec:
    """Implements `ports.ExecProcess`."""

    def __init__(
        self,
        place: Attach,
        command: ExecCommand,
        process: asyncio.subprocess.Process,
        ends: "_Ends",
        trouble: socket.socket,
    ) -> None:
        self._place = place
        self._command = command
        self._trouble = trouble
        self._failure: VerackError | None = None
        trouble.setblocking(False)
        asyncio.get_running_loop().add_reader(trouble, self._hear)
        self._process = process
        self._held = _hold(process.pid)
        self._terminal = ends.terminal
        self._output = Output(ends.sources)
        self._input = Input(ends.stdin) if ends.stdin >= 0 else None
        self._sessions = set() if command.tty else {process.pid}
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())
        self._ready = asyncio.create_task(self._until_ready())

    async def write(self, data: bytes) -> None:
        await asyncio.wait([self._ready])
        if self._input is not None:
            await self._input.write(data)

    async def close_stdin(self) -> None:
        if self._input is None:
            return
        if self._command.tty:
            await self.write(_END_OF_INPUT)
        else:
            self._input.close()

    def resize(self, columns: int, rows: int) -> None:
        if self._terminal >= 0 and not self._code.done():
            _set_size(self._terminal, columns, rows)

    def signal(self, number: int) -> None:
        self._signal(number, _RETRIES)

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        async for piece in self._output.pieces():
            yield piece

    async def exit_code(self) -> int:
        code = await asyncio.shield(self._code)
        if self._failure is not None:
            raise self._failure
        return code

    async def close(self) -> None:
        for _ in range(int(CLOSE_WITHIN_S / _RETRY_S)):
            if self._code.done():
                break
            self._kill_attached()
            await asyncio.wait([self._code], timeout=_RETRY_S)
        else:
            log.warning("command does not die", ve=self._place.uid, attach=self._process.pid)
        self._kill_survivors()
        if self._input is not None:
            self._input.close()
        if not self._code.done():
            self._task.cancel()

    async def _run(self) -> None:
        """Until the program ends: with the command, or because it was killed."""
        watchdog = asyncio.get_running_loop().call_later(ATTACH_WITHIN_S, self._give_up)
        code = -signal.SIGKILL
        try:
            code = await self._process.wait()
        finally:
            watchdog.cancel()
            self._hear_last()
            self._output.finish()
            if self._input is not None:
                self._input.close()
            if self._held is not None:
                self._held.close()
            self._code.set_result(128 - code if code < 0 else code)

    async def _until_ready(self) -> None:
        """A pty's input is flushed when liblxc makes it raw, some milliseconds after its start."""
        tries = _RETRIES if self._command.tty else 0
        while tries > 0 and not self._code.done() and not _hand_over(self._terminal):
            tries -= 1
            await asyncio.sleep(_LOOK_S)

    def _hear(self) -> None:
        """What goes wrong before the command runs: said as a shell would, or raised by `exit_code`."""
        try:
            said, fds, _, _ = socket.recv_fds(self._trouble, _TROUBLE_BYTES, 1)
        except OSError:
            said, fds = b"", []
        kind, _, message = said.decode(errors="replace").partition("\n")
        if kind == inside.TERMINAL and fds:
            _give(fds[0], self._place.init_pid, message)
        elif kind == inside.NOT_EXECUTED:
            stream = Stream.STDOUT if self._command.tty else Stream.STDERR
            self._output.say(stream, f"{message}\n".encode(errors="replace"))
        elif kind:
            self._failure = by_kind(kind, message, _HINTS.get(kind, "see the log of the agent"))
        else:
            asyncio.get_running_loop().remove_reader(self._trouble)
        for fd in fds:
            os.close(fd)

    def _hear_last(self) -> None:
        loop = asyncio.get_running_loop()
        while loop.remove_reader(self._trouble):
            loop.add_reader(self._trouble, self._hear)
            self._hear()
        self._trouble.close()

    def _give_up(self) -> None:
        """Attaching hangs on a VE that was frozen meanwhile."""
        if not self._attached():
            log.warning("attach hangs", ve=self._place.uid, attach=self._process.pid)
            self._kill_attached()

    def _attached(self) -> list[int]:
        """The command, as the program's child; nothing before it was started and after it ended."""
        pids = [pid for pid in procs.children(self._process.pid) if procs.lives(pid)]
        if self._command.tty:
            self._sessions.update(pid for pid in pids if procs.session(pid) == pid)
        return pids

    def _signal(self, number: int, tries: int) -> None:
        """Waits for the command: the program's own children, which become it, would take the signal otherwise."""
        if self._code.done():
            return
        own = self._process.pid
        begun = [pid for pid in self._attached() if not procs.same_program(pid, own)]
        sent = [pid for pid in begun if self._send(pid, number)]
        if not sent and tries > 0:
            loop = asyncio.get_running_loop()
            loop.call_later(_RETRY_S, self._signal, number, tries - 1)

    def _send(self, pid: int, number: int) -> bool:
        """Only to a process that, once held, is still the program's child."""
        with suppress(ProcessLookupError), Held(pid) as held:
            return procs.parent(pid) == self._process.pid and held.send(number)
        return False

    def _kill_attached(self) -> None:
        """Kills the command; the program then reaps it and ends. Without a command it is killed itself.

        It is stopped meanwhile, so that it can't start the command between our look and its end.
        """
        if self._held is None or not self._held.send(signal.SIGSTOP):
            return
        killed = [pid for pid in self._attached() if self._send(pid, signal.SIGKILL)]
        self._held.send(signal.SIGCONT if killed else signal.SIGKILL)

    def _kill_survivors(self) -> None:
        """Kills what the command left in its session. While such a process lives, the session's number is not reused."""
        sessions = {number for number in self._sessions if not procs.stat_fields(number)}
        if not sessions:
            return
        for pid in self._place.members():
            if procs.session(pid) in sessions:
                with suppress(ProcessLookupError), Held(pid) as held:
                    if procs.session(pid) in sessions:
                        held.send(signal.SIGKILL)


@dataclass(slots=True)
class _Ends:
    """Descriptors of a command: the child's three, and ours. `terminal` is a pty's master, or -1."""

    child: tuple[int, int, int]
    sources: dict[int, Stream]
    stdin: int
    terminal: int = -1

    @classmethod
    def of_pty(cls, command: ExecCommand) -> "_Ends":
        master, slave = pty.openpty()
        _set_size(slave, command.columns, command.rows)
        return cls((slave, slave, slave), {master: Stream.STDOUT}, os.dup(master), master)

    @classmethod
    def of_pipes(cls, *, stdin: bool) -> "_Ends":
        ours, theirs = -1, -1
        if stdin:
            theirs, ours = os.pipe()
        else:
            theirs = os.open(os.devnull, os.O_RDONLY)
        out, out_child = os.pipe()
        err, err_child = os.pipe()
        sources = {out: Stream.STDOUT, err: Stream.STDERR}
        return cls((theirs, out_child, err_child), sources, ours)

    def close_child(self) -> None:
        for fd in set(self.child):
            os.close(fd)

    def close(self) -> None:
        """Ours, when nobody took them over."""
        for fd in (*self.sources, self.stdin):
            if fd >= 0:
                os.close(fd)


def _give(terminal: int, init_pid: int, user: str) -> None:
    """Makes the VE's user the owner of its terminal, which LXC leaves to the host's root. Never one of another VE."""
    with suppress(OSError, ValueError):
        uid = int(user)
        found = os.fstat(terminal)
        base = procs.id_base(init_pid)
        owns = base is not None and os.isatty(terminal) and found.st_uid == 0
        if base is not None and owns and 0 <= uid < IDS:
            os.fchown(terminal, base + uid, found.st_gid)


def _hold(pid: int) -> Held | None:
    """None when it has ended. (`Process.kill` of asyncio may take the exit status from who waits for it.)"""
    try:
        return Held(pid)
    except ProcessLookupError:
        return None


def _hand_over(terminal: int) -> bool:
    """Whether liblxc has made our pty raw. It makes it end lines with CR LF too, as the one inside does: undone."""
    modes = termios.tcgetattr(terminal)
    if modes[3] & termios.ICANON:
        return False
    modes[1] &= ~termios.OPOST
    termios.tcsetattr(terminal, termios.TCSANOW, modes)
    return True


def _set_size(fd: int, columns: int, rows: int) -> None:
    limited = [max(1, min(value, 65_535)) for value in (rows, columns)]
    with suppress(OSError):
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("=HHHH", *limited, 0, 0))
