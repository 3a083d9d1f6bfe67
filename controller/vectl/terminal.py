"""The user's terminal: raw while a command runs on the other side, its size, and its bytes."""

import asyncio
import os
import sys
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

STDIN = 0
_CHUNK_BYTES = 32 << 10


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Raw mode, if it is a terminal; restored whatever happens. What was typed ahead is kept."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def size() -> tuple[int, int]:
    """Columns and rows of the terminal at stdin, stdout or stderr; 80 and 24 when there is none."""
    for descriptor in (STDIN, 1, 2):
        try:
            found = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if found.columns and found.lines:
            return found.columns, found.lines
    return 80, 24


@contextmanager
def on_signal(number: int, act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` on the event loop at each such signal."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(number, act)
    try:
        yield
    finally:
        loop.remove_signal_handler(number)


async def chunks(descriptor: int) -> AsyncIterator[bytes]:
    """What can be read, until its end. Nothing is read before the chunk before it was taken.

    The descriptor stays blocking (the shell shares it): it is read only when it is readable. Files and /dev/null can't
    be waited for, and never block.
    """
    while True:
        await _readable(descriptor)
        try:
            data = os.read(descriptor, _CHUNK_BYTES)
        except OSError:
            return  # the terminal hung up
        if not data:
            return
        yield data


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    try:
        loop.add_reader(descriptor, lambda: None if ready.done() else ready.set_result(None))
    except OSError:
        await asyncio.sleep(0)
        return
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def write(data: bytes, *, to_stderr: bool) -> None:
    """All of it, at once."""
    stream = sys.stderr.buffer if to_stderr else sys.stdout.buffer
    stream.write(data)
    stream.flush()
