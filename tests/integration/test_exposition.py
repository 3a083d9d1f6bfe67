"""/metrics and /healthz over real sockets, and how they behave towards clients that don't."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from veapi import exposition
from veapi.errors import InvalidInput, Unavailable
from veapi.exposition import serve_metrics


class World:
    """What the page says, for a test to change."""

    def __init__(self) -> None:
        self.page = b"verack_x 1\n"
        self.healthy = True

    def render(self) -> bytes:
        assert self.page, "no page"
        return self.page


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def address(world: World) -> AsyncIterator[str]:
    async with serve_metrics("127.0.0.1:0", world.render, lambda: world.healthy) as bound:
        yield bound


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def ask(address: str, request: bytes) -> tuple[int, bytes]:
    reader, writer = await connect(address)
    try:
        writer.write(request)
        answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def get(address: str, path: str) -> tuple[int, bytes]:
    return await ask(address, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


async def dropped(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    """Waits for the server to end the connection; whether it did so without an answer."""
    reader, writer = connection
    try:
        return await asyncio.wait_for(reader.read(), 10) == b""
    except ConnectionResetError:
        return True
    finally:
        writer.close()


async def test_the_page_and_the_health_are_served(address: str, world: World) -> None:
    assert await get(address, "/metrics") == (200, b"verack_x 1\n")
    assert await get(address, "/metrics?x=y") == (200, b"verack_x 1\n")
    assert await get(address, "/healthz") == (200, b"ok\n")
    world.healthy = False
    assert (await get(address, "/healthz"))[0] == 503


async def test_a_large_page_comes_whole(address: str, world: World) -> None:
    world.page = b"verack_x 1\n" * 500_000
    assert await get(address, "/metrics") == (200, world.page)


async def test_a_head_request_gets_no_body(address: str) -> None:
    assert await ask(address, b"HEAD /metrics HTTP/1.1\r\n\r\n") == (200, b"")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"hello\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 20_000, 431),
    ],
)
async def test_anything_else_is_refused(address: str, request_bytes: bytes, status: int) -> None:
    assert (await ask(address, request_bytes))[0] == status
    assert (await get(address, "/metrics"))[0] == 200


async def test_a_page_that_fails_is_a_500_and_the_next_one_works(
    address: str, world: World
) -> None:
    world.page = b""
    assert (await get(address, "/metrics"))[0] == 500
    world.page = b"back\n"
    assert await get(address, "/metrics") == (200, b"back\n")


async def test_idle_connections_are_limited_and_dropped_in_time(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "REQUEST_TIMEOUT_S", 0.5)
    idle = [await connect(address) for _ in range(exposition.CONNECTIONS_LIMIT)]
    try:
        assert await dropped(await connect(address))
        for each in idle:
            assert await dropped(each)
        assert (await get(address, "/metrics"))[0] == 200
    finally:
        for _, writer in idle:
            writer.close()


async def test_one_that_does_not_read_is_dropped(
    address: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "REQUEST_TIMEOUT_S", 0.5)
    world.page = b"x" * (32 << 20)
    reader, writer = await connect(address)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    while True:  # until the server gave up, which the kernel tells the writer
        await asyncio.sleep(0.05)
        try:
            writer.write(b"x")
            await writer.drain()
        except OSError:
            break
    writer.close()


async def test_the_end_of_the_block_ends_open_connections(world: World) -> None:
    async with serve_metrics("127.0.0.1:0", world.render, lambda: True) as bound:
        reader, writer = await connect(bound)
        writer.write(b"GET")
        await writer.drain()
    assert await dropped((reader, writer))
    with pytest.raises(ConnectionRefusedError):
        await connect(bound)


async def test_an_address_that_can_not_be_had_says_so(address: str, world: World) -> None:
    with pytest.raises(Unavailable, match="can't serve metrics"):
        async with serve_metrics(address, world.render, lambda: True):
            pass
    for wrong in ("7480", "host:port", "127.0.0.1:99999"):
        with pytest.raises(InvalidInput, match="not host:port"):
            async with serve_metrics(wrong, world.render, lambda: True):
                pass
