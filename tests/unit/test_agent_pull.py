"""A pull lasts as long as somebody waits for it."""

import asyncio

import pytest

from kit.manualclock import ManualClock
from veagent.fake.storage import FakeImages
from veagent.pipe import Pipe
from veagent.upload import serve_pull
from veapi.errors import NotFound, Unavailable
from veapi.v1 import session_pb2

ASKED = session_pb2.RelayPull(source="docker://registry.example.org/app:1", insecure=True)


class FakePipe(Pipe):
    """Only its ends: no call."""

    def __init__(self):
        self.sent: list[session_pb2.RelayUp] = []
        self.down: asyncio.Queue[session_pb2.RelayDown | None] = asyncio.Queue()

    async def send(self, frame):
        self.sent.append(frame)

    async def receive(self):
        return await self.down.get()


@pytest.fixture
def images(tmp_path):
    return FakeImages(tmp_path / "images", ManualClock())


async def test_progress_then_the_image(images):
    pipe, added = FakePipe(), []
    await serve_pull(pipe, images, ASKED, lambda: added.append(1))
    kinds = [frame.WhichOneof("frame") for frame in pipe.sent]
    assert kinds == ["upload_received_bytes", "upload_done"]
    assert added == [1]
    assert [image.digest for image in images.held()] == [pipe.sent[-1].upload_done.digest]


async def test_who_leaves_ends_it(images):
    images.slow("pull", 1000)
    pipe = FakePipe()
    task = asyncio.create_task(serve_pull(pipe, images, ASKED, lambda: None))
    await asyncio.sleep(0)
    pipe.down.put_nowait(None)
    with pytest.raises(Unavailable):
        await task
    assert pipe.sent == []
    assert not images.held()


async def test_what_failed_is_raised(images):
    images.fail("pull", error=NotFound("no such image"))
    with pytest.raises(NotFound):
        await serve_pull(FakePipe(), images, ASKED, lambda: None)
