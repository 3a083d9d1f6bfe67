"""An image over a stream, from a person to this host."""

from collections.abc import AsyncIterator, Callable

from veagent.pipe import Pipe
from veagent.ports import Images
from veapi import codec
from veapi.errors import Unavailable
from veapi.v1 import session_pb2

PROGRESS_EVERY_BYTES = 1 << 20


async def serve_upload(pipe: Pipe, images: Images, added: Callable[[], None]) -> None:
    """Chunks until `end`, then the image. An upload that breaks off leaves nothing."""
    image = await images.add(_chunks(pipe))
    added()
    await pipe.send(session_pb2.RelayUp(upload_done=codec.held_image_out(image)))


async def _chunks(pipe: Pipe) -> AsyncIterator[bytes]:
    received = told = 0
    while True:
        frame = await pipe.receive()
        if frame is None:
            raise Unavailable("the upload broke off", hint="start it again")
        if frame.WhichOneof("frame") == "end":
            break
        received += len(frame.chunk)
        yield frame.chunk
        if received - told >= PROGRESS_EVERY_BYTES:
            told = received
            await pipe.send(session_pb2.RelayUp(upload_received_bytes=received))
    await pipe.send(session_pb2.RelayUp(upload_received_bytes=received))
