"""GET /metrics and /healthz on the asyncio loop: just enough of HTTP/1.1 for Prometheus, and a limit on everything.

The standard library's servers need a thread, and a page is made of what the loop's tasks own; so it is served by the
loop. One request a connection. It is plain text without a certificate: let it listen where only the monitoring gets to.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import structlog

from veapi.errors import InvalidInput, Unavailable

log = structlog.get_logger()
REQUEST_LIMIT_BYTES = 8192
REQUEST_TIMEOUT_S = 5.0
CONNECTIONS_LIMIT = 16
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes = b""

    def encode(self, *, head_only: bool) -> bytes:
        body = self.body or f"{self.status.value} {self.status.phrase}\n".encode()
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {CONTENT_TYPE}",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(["Allow: GET, HEAD"] if self.status is HTTPStatus.METHOD_NOT_ALLOWED else []),
        ]
        head = "\r\n".join(lines) + "\r\n\r\n"
        return head.encode() + (b"" if head_only else body)


@asynccontextmanager
async def serve_metrics(
    listen: str, render: Callable[[], bytes], healthy: Callable[[], bool]
) -> AsyncIterator[str]:
    """Serves until the block ends; gives the address really listened on (port 0 asks for a free one).

    `listen` is host:port, [v6]:port or :port (every address). `render` runs on the loop and must be quick.
    Unavailable when the address can't be had.
    """
    server = _Exposition(render, healthy)
    host, port = _split(listen)
    try:
        listener = await asyncio.start_server(
            server.accept, host or None, port, limit=REQUEST_LIMIT_BYTES
        )
    except OSError as error:
        raise Unavailable(
            f"can't serve metrics on {listen}: {error.strerror or error}",
            hint="choose an address of this host and a free port: [metrics] listen",
        ) from None
    try:
        bound = listener.sockets[0].getsockname()
        yield f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"
    finally:
        listener.close()
        await server.aclose()


class _Exposition:
    def __init__(self, render: Callable[[], bytes], healthy: Callable[[], bool]) -> None:
        self._render = render
        self._healthy = healthy
        self._open: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client connected. One too many is dropped without a word: words would need memory and time."""
        if len(self._open) >= CONNECTIONS_LIMIT:
            log.warning("too many connections for metrics", limit=CONNECTIONS_LIMIT)
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await self._exchange(reader, writer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            log.debug("metrics request dropped")
        finally:
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()  # one that does not read must not keep what was rendered
            else:
                writer.close()

    async def aclose(self) -> None:
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer, head_only = await self._answer_to(reader)
        writer.transport.set_write_buffer_limits(high=0)  # so that `drain` waits for the last byte
        writer.write(answer.encode(head_only=head_only))
        await writer.drain()

    async def _answer_to(self, reader: asyncio.StreamReader) -> tuple[_Answer, bool]:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), False
        match head.split(b"\r\n", 1)[0].split(b" "):
            case [b"GET" | b"HEAD" as method, target, version] if version.startswith(b"HTTP/1."):
                return self._page(target.split(b"?", 1)[0]), method == b"HEAD"
            case [_, _, version] if version.startswith(b"HTTP/1."):
                return _Answer(HTTPStatus.METHOD_NOT_ALLOWED), False
            case _:
                return _Answer(HTTPStatus.BAD_REQUEST), False

    def _page(self, path: bytes) -> _Answer:
        try:
            match path:
                case b"/metrics":
                    return _Answer(HTTPStatus.OK, self._render())
                case b"/healthz":
                    return self._health()
                case _:
                    return _Answer(HTTPStatus.NOT_FOUND, b"try /metrics or /healthz\n")
        except Exception:  # a page that fails must not end the program
            log.exception("metrics page failed", path=path.decode(errors="replace"))
            return _Answer(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _health(self) -> _Answer:
        if self._healthy():
            return _Answer(HTTPStatus.OK, b"ok\n")
        return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"not healthy\n")


def _split(listen: str) -> tuple[str, int]:
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(
            f"metrics address {listen!r} is not host:port", hint="e.g. 10.88.0.1:7480"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)
