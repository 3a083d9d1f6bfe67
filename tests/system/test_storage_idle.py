"""How long an image was not used, on a real pool: over restarts, and never while it is read."""

import os
import time

import pytest

from kit.storage import BASE, Member, make_storage, storage_folder, stream, tar_of
from veapi.model import Digest

HOUR_S = 3600


@pytest.fixture
def place(tmp_path):
    with storage_folder(tmp_path / "vstor") as made:
        yield made


@pytest.fixture
async def storage(place):
    made = make_storage(place)
    await made.images.setup()
    return made


async def held(storage):
    content = tar_of((*BASE, Member("big", os.urandom(3 << 20))))
    return (await storage.images.add(stream(content))).digest


def idle(storage, digest) -> float:
    seconds: float | None = storage.images.idle_s(digest)
    assert seconds is not None
    return seconds


def age(storage, digest):
    """As if its last use had been an hour ago."""
    folder = storage.pool.images / digest.removeprefix("sha256:")
    for path in (folder / "meta.json", folder / "used"):
        if path.exists():
            os.utime(path, (time.time() - HOUR_S,) * 2)


async def test_it_counts_from_when_it_came_over_restarts_until_it_is_touched(place, storage):
    image = await held(storage)
    assert idle(storage, image) < HOUR_S / 2
    age(storage, image)
    again = make_storage(place)
    await again.images.setup()
    assert idle(again, image) >= HOUR_S - 1
    again.images.touch(image)
    assert idle(again, image) < HOUR_S / 2


async def test_one_that_is_being_read_is_not_idle_and_was_used_afterwards(storage):
    image = await held(storage)
    age(storage, image)
    pieces = storage.images.read_blob(image)
    await anext(pieces)
    assert storage.images.idle_s(image) is None
    await pieces.aclose()
    assert idle(storage, image) < HOUR_S / 2


async def test_of_what_is_not_held_nothing_is_said(storage):
    nothing = Digest("sha256:" + "0" * 64)
    storage.images.touch(nothing)
    assert storage.images.idle_s(nothing) is None


async def test_a_pool_is_short_when_little_beside_its_reserve_is_free(storage, monkeypatch):
    assert not storage.images.short()
    monkeypatch.setattr(storage.pool, "spare_bytes", lambda: storage.pool.capacity_bytes() // 11)
    assert storage.images.short()
