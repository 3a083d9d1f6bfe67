"""Runs the real vectl against the fake controller."""

import asyncio
import fcntl
import json
import os
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.fakeapi import FakeApi
from kit.fakecluster import CLUSTER
from veapi.channel import Identity

VECTL = str(Path(sys.executable).parent / "vectl")
LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How one run ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Door:
    """Where a controller listens, fake or not, and who calls it."""

    endpoint: str
    identity: Identity


@dataclass
class Vectl:
    """vectl with a context for a controller."""

    api: FakeApi | Door
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = {"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(self.folder)}
        self.context(self.api.identity)

    def context(self, identity: Identity) -> None:
        """Writes the context file anew, with this identity."""
        path = self.folder / "vectl" / "contexts.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f'[contexts.{CLUSTER}]\nendpoint = "{self.api.endpoint}"\ncluster = "{CLUSTER}"\n'
            f'ca = "{identity.ca}"\ncert = "{identity.cert}"\nkey = "{identity.key}"\n'
        )

    async def start(self, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        given = {"stdin": pipe, "stdout": pipe, "stderr": pipe, "env": self.env, **options}
        return await asyncio.create_subprocess_exec(VECTL, *arguments, **given)

    async def __call__(
        self, *arguments: str, code: int | None = 0, text: bytes = b"", **options: Any
    ) -> Ran:
        """Runs it to its end; asserts the exit code unless it is None, and that no traceback came."""
        process = await self.start(*arguments, **options)
        ran = await ended(process, text)
        assert "Traceback" not in ran.err, ran.err
        assert code in (None, ran.code), ran
        return ran


async def ended(process: asyncio.subprocess.Process, text: bytes = b"") -> Ran:
    try:
        out, err = await asyncio.wait_for(process.communicate(text), LIMIT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ran(process.returncode or 0, (out or b"").decode(), (err or b"").decode())


class Screen:
    """Our end of a program's terminal."""

    def __init__(self, descriptor: int, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.seen = b""
        self._descriptor = descriptor
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 4096)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self.seen += data
        self._news.set()

    async def shows(self, text: bytes) -> None:
        """Waits until the text was written."""
        async with asyncio.timeout(LIMIT_S):
            while text not in self.seen:
                self._news.clear()
                await self._news.wait()

    def type(self, data: bytes) -> None:
        os.write(self._descriptor, data)

    def resize(self, columns: int, rows: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, size)

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self._descriptor)

    async def code(self) -> int:
        return await asyncio.wait_for(self.process.wait(), LIMIT_S)


@asynccontextmanager
async def screen(
    vectl: Vectl, *arguments: str, size: tuple[int, int] = (101, 33)
) -> AsyncIterator[Screen]:
    """vectl on a terminal of its own, which is its controlling one."""
    ours, theirs = os.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    process = await asyncio.create_subprocess_exec(
        "setsid", "--ctty", "--wait", VECTL, *arguments,
        stdin=theirs, stdout=theirs, stderr=theirs, env={**vectl.env, "TERM": "xterm-test"},
    )  # fmt: skip
    shown = Screen(ours, process)
    try:
        yield shown
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        os.close(theirs)
        os.close(ours)
