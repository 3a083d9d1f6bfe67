"""An image goes from one host's pool to another's."""

import asyncio
import secrets
from typing import cast

import pytest

from kit.certs import issue, make_ca
from kit.storage import (
    MIB,
    UID,
    make_storage,
    pack,
    storage_folder,
    stream,
    tar_of,
)
from veagent.peer import PeerServer, fetch_image
from veagent.ports import Images, RootSource
from veapi.errors import Denied, InvalidInput, VerackError

CLUSTER = "rack"


@pytest.fixture
async def giver(tmp_path):
    with storage_folder(tmp_path / "vstor1") as place:
        storage = make_storage(place)
        await storage.images.setup()
        yield storage


@pytest.fixture
async def taker(tmp_path):
    with storage_folder(tmp_path / "vstor2") as place:
        storage = make_storage(place)
        await storage.images.setup()
        yield storage


@pytest.fixture
def certs(tmp_path):
    folder = make_ca(tmp_path / "ca", CLUSTER)
    return {name: issue(folder, f"{name}.host.{CLUSTER}") for name in ("h1", "h2")}


@pytest.fixture
async def server(giver, certs):
    async with PeerServer(giver.images, certs["h1"], CLUSTER, "127.0.0.1:0") as running:
        yield running


def fetching(server, certs, digest):
    ticket = secrets.token_bytes(16)
    server.grant(ticket, "h2", digest)
    address = f"127.0.0.1:{server.port}"
    return ticket, fetch_image(address, "h1", CLUSTER, certs["h2"], ticket, digest)


async def test_a_fetched_image_is_the_same_and_makes_roots(giver, taker, server, certs):
    blob = pack(tar_of(), "zstd", "-c", "-q")
    image = await giver.images.add(stream(blob))
    _, pieces = fetching(server, certs, image.digest)
    assert await taker.images.add(pieces, expect=image.digest) == image
    root = await taker.roots.create(UID, RootSource(image=image.digest), 64 * MIB, "web")
    assert (root / "sbin/init").exists()


async def test_without_a_ticket_nothing_is_kept(giver, taker, server, certs):
    image = await giver.images.add(stream(tar_of()))
    pieces = fetch_image(
        f"127.0.0.1:{server.port}", "h1", CLUSTER, certs["h2"], bytes(16), image.digest
    )
    with pytest.raises(Denied):
        await taker.images.add(pieces, expect=image.digest)
    assert taker.images.held() == ()
    assert list(taker.pool.tmp.iterdir()) == []


async def test_a_peer_that_gives_something_else_is_not_believed(giver, taker, server, certs):
    image = await giver.images.add(stream(tar_of()))
    held = giver.pool.images / image.digest.removeprefix("sha256:")
    (held / "blob").write_bytes(tar_of()[:-512] + b"\x01" * 512)
    _, pieces = fetching(server, certs, image.digest)
    with pytest.raises(InvalidInput, match="as expected"):
        await taker.images.add(pieces, expect=image.digest)
    assert taker.images.held() == ()


class HalfAsleep:
    """Gives the first piece of a blob, then nothing more."""

    def __init__(self, images):
        self._images = images

    async def read_blob(self, digest):
        async for piece in self._images.read_blob(digest):
            yield piece
            await asyncio.Event().wait()


async def test_a_giver_that_stops_half_way_leaves_nothing_at_the_taker(giver, taker, certs):
    image = await giver.images.add(stream(tar_of() + bytes(4 * MIB)))
    images = cast("Images", HalfAsleep(giver.images))
    server = PeerServer(images, certs["h1"], CLUSTER, "127.0.0.1:0")
    await server.start()
    _, pieces = fetching(server, certs, image.digest)

    async def cut():
        yield await anext(pieces)
        await server.stop()
        async for piece in pieces:
            yield piece

    with pytest.raises(VerackError) as failed:
        await taker.images.add(cut(), expect=image.digest)
    assert failed.value.hint
    assert taker.images.held() == ()
    assert list(taker.pool.tmp.iterdir()) == []
