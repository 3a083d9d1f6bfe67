"""A command of a VE, attached to our terminal: what goes to it, what comes from it, and how it ends."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from veapi.errors import RemoteFailed
from vectl import terminal

if TYPE_CHECKING:
    from vectl.client import Client
    from vectl.streams import Command, ExecStream

EXEC_FAILED = 125
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

Typed = Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]
"""What is done to our input on its way."""


class Detached(Exception):
    """The person leaves; what runs, runs on."""


def window() -> tuple[str, int, int]:
    """TERM, columns, rows."""
    columns, rows = terminal.size()
    return os.environ.get("TERM", "xterm"), columns, rows


class Attached:
    """One command in one VE. `typed` may watch the input, and raise Detached."""

    def __init__(
        self, client: "Client", name: str, command: "Command", *, typed: Typed | None = None
    ) -> None:
        self._client = client
        self._name = name
        self._command = command
        self._typed = typed
        self._tasks: set[asyncio.Task[object]] = set()
        self._interrupted = False

    async def run(self) -> int:
        """Its exit code. Raises veapi.errors when it could not be run, Detached when the person leaves."""
        stream = await self._client.exec(self._name, self._command)
        with ExitStack() as stack:
            stack.callback(self._stop, stream)
            self._forward(stack, stream)
            if self._command.window is not None:
                self._resize(stack, stream)
            return await self._converse(stack, stream)

    async def _converse(self, stack: ExitStack, stream: "ExecStream") -> int:
        drain = asyncio.ensure_future(_drain(stream))
        feed = asyncio.ensure_future(self._feed(stack, stream)) if self._command.stdin else None
        try:
            if feed is not None:
                await asyncio.wait((drain, feed), return_when=asyncio.FIRST_COMPLETED)
                if feed.done():
                    feed.result()
            return await drain
        finally:
            for task in (drain, feed):
                if task is not None:
                    task.cancel()
            await asyncio.gather(drain, *([feed] if feed else []), return_exceptions=True)

    async def _feed(self, stack: ExitStack, stream: "ExecStream") -> None:
        if self._command.window is not None:
            stack.enter_context(terminal.raw(terminal.STDIN))
        if sys.stdin is not None:  # it may be closed
            source = terminal.chunks(terminal.STDIN)
            async for data in self._typed(source) if self._typed else source:
                if not await stream.write(data):
                    return
        await stream.close_stdin()

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


async def _drain(stream: "ExecStream") -> int:
    async for frame in stream.outputs():
        if isinstance(frame, int):
            return frame
        terminal.write(frame.data, to_stderr=frame.to_stderr)
    raise RemoteFailed(
        "the stream ended before the command did", hint="it may still run: look with `vectl exec`"
    )
