import asyncio

import pytest

from kit.manualclock import ManualClock
from veagent.fake.storage import FakeImages
from veagent.imagesweep import LEAST_IDLE_S, ROUND_S, ImageSweeper, Needs
from veapi.model import Digest

KEEP_S = 86_400.0


class Host:
    def __init__(self, folder):
        self.clock = ManualClock()
        self.images = FakeImages(folder, self.clock)
        self.spare: set[Digest] = set()
        self.used: set[Digest] = set()
        self.went = 0
        needs = Needs(lambda: frozenset(self.spare), lambda: frozenset(self.used), self._gone)
        self.sweeper = ImageSweeper(self.images, needs, self.clock, keep_s=KEEP_S)

    def _gone(self):
        self.went += 1

    async def add(self, content):
        async def blob():
            yield content

        image = await self.images.add(blob())
        self.images.touch(image.digest)
        return image.digest

    def held(self):
        return {image.digest for image in self.images.held()}


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path / "images")


async def test_a_spare_image_goes_once_it_was_not_used_for_long(host):
    image = await host.add(b"one")
    host.spare.add(image)
    host.clock.jump(KEEP_S - 1)
    await host.sweeper.sweep()
    assert host.held() == {image}
    host.clock.jump(1)
    await host.sweeper.sweep()
    assert host.held() == set()
    assert host.went == 1


async def test_what_nobody_calls_spare_stays_for_ever(host):
    image = await host.add(b"one")
    host.images.wants_room = True
    host.clock.jump(100 * KEEP_S)
    await host.sweeper.sweep()
    assert host.held() == {image}


async def test_what_a_ve_here_was_made_of_stays_and_counts_as_used(host):
    image = await host.add(b"one")
    host.spare.add(image)
    host.used.add(image)
    host.images.wants_room = True
    host.clock.jump(100 * KEEP_S)
    await host.sweeper.sweep()
    host.used.clear()
    host.images.wants_room = False
    await host.sweeper.sweep()
    assert host.held() == {image}
    host.clock.jump(KEEP_S)
    await host.sweeper.sweep()
    assert host.held() == set()


async def test_a_short_pool_takes_one_a_round_the_longest_unused_first(host):
    old = await host.add(b"old")
    host.clock.jump(10)
    new = await host.add(b"new")
    host.spare |= {old, new}
    host.images.wants_room = True
    host.clock.jump(LEAST_IDLE_S)
    await host.sweeper.sweep()
    assert host.held() == {new}
    host.images.wants_room = False
    await host.sweeper.sweep()
    assert host.held() == {new}


async def test_even_a_short_pool_leaves_what_came_just_now(host):
    image = await host.add(b"one")
    host.spare.add(image)
    host.images.wants_room = True
    host.clock.jump(LEAST_IDLE_S - 1)
    await host.sweeper.sweep()
    assert host.held() == {image}


async def test_one_that_can_not_be_removed_does_not_keep_the_others(host):
    images = {await host.add(b"one"), await host.add(b"two")}
    host.spare |= images
    host.images.fail("delete")
    host.clock.jump(KEEP_S)
    await host.sweeper.sweep()
    assert len(host.held()) == 1
    await host.sweeper.sweep()
    assert host.held() == set()


async def test_it_looks_again_and_again(host):
    host.spare.add(await host.add(b"one"))
    task = asyncio.create_task(host.sweeper.run())
    await host.clock.advance(2 * ROUND_S)
    assert host.held()
    await host.clock.advance(KEEP_S)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert host.held() == set()


async def test_one_that_somebody_brings_again_while_another_goes_stays(host):
    images = [await host.add(b"one"), await host.add(b"two")]
    host.spare |= set(images)
    host.clock.jump(KEEP_S)
    host.images.slow("delete", 1)
    sweep = asyncio.create_task(host.sweeper.sweep())
    await host.clock.settle()
    for image in images:
        host.images.touch(image)
    await host.clock.advance(1)
    await sweep
    assert len(host.held()) == 1


async def test_a_disk_that_can_not_be_looked_at_ends_nothing(host):
    image = await host.add(b"one")
    host.spare.add(image)
    host.images.short = lambda: (_ for _ in ()).throw(OSError("the disk fails"))
    task = asyncio.create_task(host.sweeper.run())
    await host.clock.advance(ROUND_S)
    assert not task.done()
    del host.images.short
    await host.clock.advance(KEEP_S)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert host.held() == set()
