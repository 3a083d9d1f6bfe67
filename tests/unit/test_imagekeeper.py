import asyncio
from typing import cast

import pytest

from kit.eventually import eventually
from kit.manualclock import ManualClock
from veagent.imagefetch import RETRY_LIMIT_S, ImageKeeper
from veagent.ports import Images
from veapi.errors import Unavailable
from veapi.model import Digest, HeldImage

DIGEST = Digest("sha256:" + "a" * 64)


class Peer:
    """An ImageSource that gives when the test says so, as a fetch that several want goes on without any of them."""

    def __init__(self):
        self.asked = 0
        self.flight = None
        self.images = []

    def held(self):
        return self.images

    async def fetch(self, digest):
        self.asked += 1
        self.flight = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self.flight)

    def gives(self):
        image = HeldImage(digest=DIGEST, blob_digest=DIGEST, size_bytes=1, blob_bytes=1)
        self.images.append(image)
        assert self.flight is not None
        self.flight.set_result(image)


@pytest.fixture
async def kept():
    peer = Peer()
    told: list[object] = []
    keeper = ImageKeeper(cast("Images", peer), peer, ManualClock(), told.append)
    yield keeper, peer, told
    await keeper.aclose()


async def test_an_image_that_nobody_wants_any_more_when_it_comes_is_told_all_the_same(kept):
    keeper, peer, told = kept
    keeper.want(frozenset([DIGEST]))
    await eventually(lambda: peer.flight)
    keeper.want(frozenset())
    peer.gives()
    await eventually(lambda: told == [DIGEST])
    assert keeper.holds(DIGEST)


async def test_what_is_not_wanted_any_more_is_not_tried_again(kept):
    keeper, peer, told = kept
    keeper.want(frozenset([DIGEST]))
    await eventually(lambda: peer.flight)
    peer.flight.set_exception(Unavailable("gone"))
    keeper.want(frozenset())
    await eventually(lambda: told)
    keeper.want(frozenset())
    await ManualClock.settle()
    assert (peer.asked, keeper.trouble(DIGEST)) == (1, "")


async def test_a_fetch_that_fails_unexpectedly_is_told_and_tried_again(kept):
    keeper, peer, told = kept
    keeper.want(frozenset([DIGEST]))
    await eventually(lambda: peer.flight)
    peer.flight.set_exception(ValueError("nobody thought of this"))
    await eventually(lambda: told)
    assert "internal error" in keeper.trouble(DIGEST)
    await keeper._clock.advance(RETRY_LIMIT_S)
    await eventually(lambda: peer.asked == 2)
    peer.gives()
    await eventually(lambda: keeper.holds(DIGEST))
    assert keeper.trouble(DIGEST) == ""
