"""A TCP proxy on loopback that cuts, freezes or loses one direction: the network's faults, without a kernel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Forwards to `target` (host:port), which may be changed. Frozen: bytes are taken and kept."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.connections = 0
        self._requests_flow = asyncio.Event()
        self._replies_flow = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.thaw()

    @property
    def endpoint(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def freeze(self, *, requests: bool = True, replies: bool = True) -> None:
        if requests:
            self._requests_flow.clear()
        if replies:
            self._replies_flow.clear()

    def thaw(self) -> None:
        self._requests_flow.set()
        self._replies_flow.set()

    def cut(self) -> None:
        """Ends every connection; what was kept is lost."""
        for task in self._tasks:
            task.cancel()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._join(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self.target.split(":")
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection(host, int(port))
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far, self._requests_flow))
                group.create_task(_pump(far_reader, writer, self._replies_flow))
        except (OSError, ExceptionGroup):
            pass
        finally:
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()


async def _pump(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, flow: asyncio.Event
) -> None:
    while data := await source.read(65536):
        await flow.wait()
        sink.write(data)
        with suppress(ConnectionError):
            await sink.drain()
    raise EOFError


@asynccontextmanager
async def proxied(target: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
