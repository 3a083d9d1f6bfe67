"""An image over a stream, from a person to this host; or from a registry, while a person waits."""

import asyncio
from collections.abc import AsyncIterator, Callable

from veagent.pipe import Pipe
from veagent.ports import Images, RegistrySource
from veapi import codec
from veapi.errors import Unavailable
from veapi.v1 import session_pb2

PROGRESS_EVERY_BYTES = 1 << 20


async def serve_upload(pipe: Pipe, images: Images, added: Callable[[], None]) -> None:
    """Chunks until `end`, then the image. An upload that breaks off leaves nothing."""
    image = await images.add(_chunks(pipe))
    added()
    await pipe.send(session_pb2.RelayUp(upload_done=codec.held_image_out(image)))


async def serve_pull(
    pipe: Pipe, images: Images, asked: session_pb2.RelayPull, added: Callable[[], None]
) -> None:
    """Fetches it from the registry for as long as somebody waits for it."""
    source = RegistrySource(asked.source, insecure=asked.insecure)

    async def tell(received_bytes: int) -> None:
        await pipe.send(session_pb2.RelayUp(upload_received_bytes=received_bytes))

    pulling = asyncio.create_task(images.pull(source, tell), name="pull")
    leaving = asyncio.create_task(_left(pipe), name="pull-left")
    try:
        await asyncio.wait((pulling, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not pulling.done():
            raise Unavailable("nobody waits for the pull any more", hint="start it again")
        image = pulling.result()
    finally:
        pulling.cancel()
        leaving.cancel()
        await asyncio.gather(pulling, leaving, return_exceptions=True)
    added()
    await pipe.send(session_pb2.RelayUp(upload_done=codec.held_image_out(image)))


async def _left(pipe: Pipe) -> None:
    while await pipe.receive() is not None:
        pass


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
