"""vectl exec."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput, RemoteFailed, VerackError
from vectl import options, terminal
from vectl.session import Ended, Session, pass_session
from vectl.text import complain

if TYPE_CHECKING:
    from vectl.client import Client
    from vectl.streams import ExecStream

EXEC_FAILED = 125
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@options.command("exec")
@click.option("-i", "--interactive", is_flag=True, help="Give it our input.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@options.name_argument
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_session
def exec_(
    session: Session, name: str, command: tuple[str, ...], *, interactive: bool, tty: bool
) -> None:
    """Run a command in a VE, e.g. `vectl exec -it web -- sh`.

    The exit code is the command's own; 125 when it could not be run at all.
    """
    if not command:
        raise InvalidInput("exec: the command is missing", hint=f"vectl exec {name} -- COMMAND")

    async def work(client: "Client") -> int:
        return await _Exec(client, name, command).run(interactive=interactive, tty=tty)

    try:
        code = session.run(work)
    except VerackError as error:
        complain(error.message, error.hint)
        code = EXEC_FAILED
    raise Ended(code)


class _Exec:
    """One command in one VE, with what goes to it from here."""

    def __init__(self, client: "Client", name: str, command: tuple[str, ...]) -> None:
        self._client = client
        self._name = name
        self._command = command
        self._tasks: set[asyncio.Task[object]] = set()
        self._interrupted = False

    async def run(self, *, interactive: bool, tty: bool) -> int:
        """Its exit code. Raises veapi.errors when it could not be run."""
        stream = await self._client.exec(
            self._name, self._command, stdin=interactive, window=_window() if tty else None
        )
        with ExitStack() as stack:
            stack.callback(self._stop, stream)
            self._forward(stack, stream)
            if tty:
                self._resize(stack, stream)
            if interactive:
                if tty:
                    stack.enter_context(terminal.raw(terminal.STDIN))
                self._start(_feed(stream))
            return await _drain(stream)

    def _forward(self, stack: ExitStack, stream: "ExecStream") -> None:
        """Signals go to the command; a second Ctrl-C leaves it alone with what it does."""
        for number in _FORWARDED:
            stack.enter_context(terminal.on_signal(number, partial(self._signal, stream, number)))

    def _signal(self, stream: "ExecStream", number: int) -> None:
        if number == signal.SIGINT and self._interrupted:
            stream.cancel()
            return
        self._interrupted = self._interrupted or number == signal.SIGINT
        self._start(stream.signal(number))

    def _resize(self, stack: ExitStack, stream: "ExecStream") -> None:
        def send() -> None:
            self._start(stream.resize(*terminal.size()))

        stack.enter_context(terminal.on_signal(signal.SIGWINCH, send))

    def _start(self, work: Coroutine[object, object, object]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop(self, stream: "ExecStream") -> None:
        for task in self._tasks:
            task.cancel()
        stream.cancel()


def _window() -> tuple[str, int, int]:
    """TERM, columns, rows."""
    columns, rows = terminal.size()
    return os.environ.get("TERM", "xterm"), columns, rows


async def _feed(stream: "ExecStream") -> None:
    if sys.stdin is not None:  # it may be closed
        async for data in terminal.chunks(terminal.STDIN):
            if not await stream.write(data):
                return
    await stream.close_stdin()


async def _drain(stream: "ExecStream") -> int:
    async for frame in stream.outputs():
        if isinstance(frame, int):
            return frame
        terminal.write(frame.data, to_stderr=frame.to_stderr)
    raise RemoteFailed(
        "the stream ended before the command did", hint="it may still run: look with `vectl exec`"
    )
