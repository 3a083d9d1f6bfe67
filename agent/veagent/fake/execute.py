"""Commands inside a VE that only seems to run: a handful, run by nobody but this file."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from veagent.ports import ExecCommand, Stream

NOT_FOUND = 127
_BY_SIGNAL = 128


class FakeProcess:
    """Knows echo, cat (also as the login shell), true, false, hostname, sleep, exit, err (echo to stderr); else 127."""

    def __init__(self, command: ExecCommand, *, hostname: str) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.closed = False
        self._hostname = hostname
        self._stdin: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=16)
        self._output: asyncio.Queue[tuple[Stream, bytes] | None] = asyncio.Queue(maxsize=16)
        self._task = asyncio.create_task(self._run(list(command.argv)))

    def on_end(self, call: Callable[[], None]) -> None:
        self._task.add_done_callback(lambda _: call())

    async def write(self, data: bytes) -> None:
        await self._stdin.put(data)

    async def close_stdin(self) -> None:
        await self._stdin.put(None)

    def resize(self, columns: int, rows: int) -> None:
        self.sizes.append((columns, rows))

    def signal(self, number: int) -> None:
        self._task.cancel(str(number))

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while (piece := await self._output.get()) is not None:
            yield piece

    async def exit_code(self) -> int:
        return await asyncio.shield(self._task)

    async def close(self) -> None:
        self.closed = True
        self._task.cancel("9")
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, argv: Sequence[str]) -> int:
        try:
            code = await self._command(argv)
        except asyncio.CancelledError as stop:
            code = _BY_SIGNAL + int(str(stop) or "9")
        if not self.closed:
            await self._output.put(None)
        return code

    async def _command(self, argv: Sequence[str]) -> int:
        match argv:
            case ["echo", *words]:
                return await self._print(" ".join(words))
            case ["err", *words]:
                return await self._print(" ".join(words), Stream.STDERR)
            case ["hostname"]:
                return await self._print(self._hostname)
            case ["cat"] | []:  # a login shell echoes
                return await self._cat()
            case _:
                return await self._quiet_command(argv)

    async def _quiet_command(self, argv: Sequence[str]) -> int:
        match argv:
            case ["sleep", seconds]:
                await asyncio.sleep(float(seconds))
                return 0
            case ["exit", code]:
                return int(code)
            case ["true" | "false" as word]:
                return 0 if word == "true" else 1
            case _:
                await self._print(f"{argv[0]}: not found", Stream.STDERR)
                return NOT_FOUND

    async def _print(self, line: str, stream: Stream = Stream.STDOUT) -> int:
        await self._output.put((stream, f"{line}\n".encode()))
        return 0

    async def _cat(self) -> int:
        while (data := await self._stdin.get()) is not None:
            await self._output.put((Stream.STDOUT, data))
        return 0
