"""The commands that the fake controller's exec knows."""

from dataclasses import dataclass
from typing import Any

from kit.fakecluster import FakeCluster
from veapi.v1 import api_pb2


@dataclass
class Command:
    """`exit N`, `cat`, `both` (a word on each output), `size` (window sizes until `q`), `env`, `gone`, `signals`."""

    cluster: FakeCluster
    start: Any
    requests: Any
    context: Any

    async def run(self) -> None:
        await getattr(self, f"_{self.start.command[0].strip('/')}", self._unknown)()

    async def _write(self, **frame: Any) -> None:
        await self.context.write(api_pb2.ExecResponse(**frame))

    async def _unknown(self) -> None:
        await self._write(
            failure=api_pb2.Failure(kind="remote_failed", message="can't run it", hint="try sh")
        )

    async def _exit(self) -> None:
        await self._write(exit_code=int(self.start.command[1]))

    async def _both(self) -> None:
        await self._write(stdout=b"out\n")
        await self._write(stderr=b"err\n")
        await self._write(exit_code=0)

    async def _args(self) -> None:
        await self._write(stdout=" ".join(self.start.command).encode())
        await self._write(exit_code=0)

    async def _gone(self) -> None:
        """The stream ends, and no code comes."""

    async def _cat(self) -> None:
        async for frame in self.requests:
            if frame.stdin_closed:
                break
            await self._write(stdout=frame.stdin)
        await self._write(exit_code=0)

    async def _signals(self) -> None:
        await self._write(stdout=b"ready\n")
        async for frame in self.requests:
            if frame.WhichOneof("frame") == "signal":
                self.cluster.signals.append(frame.signal)
                await self._write(exit_code=128 + frame.signal)
                return

    async def _size(self) -> None:
        window = self.start.window
        first = f"{self.start.term} {self.start.tty} {window.columns}x{window.rows}\r\n"
        await self._write(stdout=first.encode())
        async for frame in self.requests:
            if frame.WhichOneof("frame") == "resize":
                text = f"now {frame.resize.columns}x{frame.resize.rows}\r\n"
                await self._write(stdout=text.encode())
            elif frame.stdin:
                await self._write(stdout=b"got " + frame.stdin.hex().encode() + b"\r\n")
                if b"q" in frame.stdin:
                    break
        await self._write(exit_code=42)
