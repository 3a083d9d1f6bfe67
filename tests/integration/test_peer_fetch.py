"""Images from host to host over mTLS, with an image store in memory."""

import asyncio
import secrets

import pytest

from kit.certs import issue, make_ca
from kit.eventually import eventually
from veagent.peer import PeerServer, fetch_image
from veapi.errors import Denied, InvalidInput, NotFound, Unavailable
from veapi.model import Digest

CLUSTER = "rack"
DIGEST = Digest("sha256:" + "a" * 64)
OTHER = Digest("sha256:" + "b" * 64)


class FakeImages:
    def __init__(self, blobs):
        self.blobs = blobs
        self.reads = 0

    async def read_blob(self, digest):
        self.reads += 1
        if digest not in self.blobs:
            raise NotFound(f"image {digest} is not held by this host", hint="look elsewhere")
        for piece in self.blobs[digest]:
            yield piece


@pytest.fixture
def certs(tmp_path):
    folder = make_ca(tmp_path / "ca", CLUSTER)
    names = ("h1.host.rack", "h2.host.rack", "h3.host.rack", "ann.user.rack", "controller.rack")
    return {name: issue(folder, name) for name in names}


@pytest.fixture
def images():
    return FakeImages({DIGEST: [b"x" * (1 << 20)] * 3})


@pytest.fixture
async def server(certs, images):
    identity = certs["h1.host.rack"]
    async with PeerServer(images, identity, CLUSTER, "127.0.0.1:0", ticket_wait_s=0.1) as running:
        yield running


@pytest.fixture
async def patient(certs, images):
    """A server that waits for tickets as long as any test."""
    identity = certs["h1.host.rack"]
    async with PeerServer(images, identity, CLUSTER, "127.0.0.1:0", ticket_wait_s=60.0) as running:
        yield running


class Fetching:
    """A fetch by `who` from `server`, with a ticket that was granted for h2 and DIGEST."""

    def __init__(self, server, certs):
        self.server = server
        self.certs = certs
        self.ticket = secrets.token_bytes(16)

    async def __call__(self, *, who="h2.host.rack", peer="h1", digest=DIGEST, ticket=None):
        address = f"127.0.0.1:{self.server.port}"
        shown = self.ticket if ticket is None else ticket
        pieces = fetch_image(address, peer, CLUSTER, self.certs[who], shown, digest)
        return b"".join([piece async for piece in pieces])


@pytest.fixture
def fetch(server, certs):
    fetching = Fetching(server, certs)
    server.grant(fetching.ticket, "h2", DIGEST)
    return fetching


async def test_the_whole_blob_comes_and_the_ticket_is_spent(fetch, images):
    assert await fetch() == b"x" * (3 << 20)
    with pytest.raises(Denied) as refused:
        await fetch()
    assert refused.value.hint
    assert images.reads == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"who": "h3.host.rack"},
        {"who": "ann.user.rack"},
        {"who": "controller.rack"},
        {"digest": OTHER},
        {"ticket": b"\0" * 16},
        {"ticket": b""},
    ],
    ids=str,
)
async def test_nothing_is_streamed_without_the_right_ticket_host_and_image(fetch, images, wrong):
    with pytest.raises(Denied):
        await fetch(**wrong)
    assert images.reads == 0


async def test_a_user_s_attempt_does_not_spend_the_ticket(fetch):
    with pytest.raises(Denied):
        await fetch(who="ann.user.rack")
    assert await fetch()


async def test_a_server_with_another_host_s_certificate_is_not_believed(fetch, images):
    with pytest.raises(Unavailable):
        await fetch(peer="h2")
    assert images.reads == 0


async def test_an_image_that_is_not_held_is_not_found(server, fetch):
    ticket = secrets.token_bytes(16)
    server.grant(ticket, "h2", OTHER)
    with pytest.raises(NotFound) as missing:
        await fetch(digest=OTHER, ticket=ticket)
    assert missing.value.hint == "look elsewhere"


async def test_a_host_of_another_cluster_gets_no_connection(server, tmp_path):
    foreign = issue(make_ca(tmp_path / "foreign", CLUSTER), "h2.host.rack")
    pieces = fetch_image(
        f"127.0.0.1:{server.port}", "h1", CLUSTER, foreign, secrets.token_bytes(16), DIGEST
    )
    with pytest.raises(Unavailable):
        await anext(pieces)


async def test_a_peer_that_does_not_answer_is_unavailable(certs):
    identity = certs["h2.host.rack"]
    pieces = fetch_image("127.0.0.1:1", "h1", CLUSTER, identity, bytes(16), DIGEST)
    with pytest.raises(Unavailable):
        await anext(pieces)


async def test_a_taken_address_is_an_error_with_a_hint(server, certs, images):
    listen = f"127.0.0.1:{server.port}"
    with pytest.raises(Unavailable, match="can't listen"):
        await PeerServer(images, certs["h2.host.rack"], CLUSTER, listen).start()


async def test_a_short_ticket_is_refused_by_the_server(server):
    with pytest.raises(InvalidInput):
        server.grant(b"short", "h2", DIGEST)


async def test_a_host_that_is_here_before_its_ticket_waits_for_it(patient, certs):
    fetch = Fetching(patient, certs)
    fetching = asyncio.create_task(fetch())
    await eventually(lambda: patient.waiting == 1)
    patient.grant(secrets.token_bytes(16), "h2", DIGEST)
    patient.grant(fetch.ticket, "h2", DIGEST)
    assert await fetching == b"x" * (3 << 20)
    assert patient.waiting == 0


async def test_a_ticket_that_comes_for_another_host_admits_nobody_who_waits(patient, certs, images):
    fetch = Fetching(patient, certs)
    fetching = asyncio.create_task(fetch())
    await eventually(lambda: patient.waiting == 1)
    patient.grant(fetch.ticket, "h3", DIGEST)
    with pytest.raises(Denied):
        await fetching
    assert images.reads == 0


async def test_users_and_malformed_tickets_never_wait(patient, certs):
    fetch = Fetching(patient, certs)
    for wrong in ({"who": "ann.user.rack"}, {"ticket": b"t" * 15}):
        with pytest.raises(Denied):
            await fetch(**wrong)


async def test_who_waits_and_goes_frees_its_place(patient, certs):
    fetching = asyncio.create_task(Fetching(patient, certs)())
    await eventually(lambda: patient.waiting == 1)
    fetching.cancel()
    await eventually(lambda: patient.waiting == 0)
