"""Import of an image: a person's bytes go to one host, and the others fetch it from there. Nothing is stored but a whole image.

The tag is written with the image in one transaction, after the host has unpacked all of it. A broken upload leaves nothing.
"""

from collections.abc import AsyncIterator

from veapi import registry, validate
from veapi.errors import InvalidInput
from veapi.model import HeldImage
from veapi.v1 import api_pb2, session_pb2
from vecontroller.api.describe import Describe
from vecontroller.api.imagerecord import record
from vecontroller.api.ports import ApiDeps, Pipe
from vecontroller.api.splice import feeding
from vecontroller.api.taking import Response, open_somewhere, progress, replicated, taken

MAX_IMAGE_BYTES = 64 << 30
MAX_CHUNK_BYTES = 1 << 20
Requests = AsyncIterator[api_pb2.ImportImageRequest]


async def import_image(
    deps: ApiDeps, describe: Describe, requests: Requests
) -> AsyncIterator[Response]:
    """Progress, then the image. Hosts that don't hold it within 60 s fetch it later."""
    start = _checked_start(await anext(requests, api_pb2.ImportImageRequest()))
    upload = _Upload(start, requests)
    first = session_pb2.RelayDown(upload=session_pb2.RelayUpload(size_bytes=start.size_bytes))
    host, pipe = await open_somewhere(deps, first)
    async with feeding(pipe, upload.feed(pipe)):
        async for step in taken(pipe, host, upload.progress):
            if isinstance(step, HeldImage):
                done = step
            else:
                yield step
    async for step in kept(deps, describe, start.name, done, upload.sent_bytes):
        yield step


async def pull_image(
    deps: ApiDeps, describe: Describe, request: api_pb2.PullImageRequest
) -> AsyncIterator[Response]:
    """As an import, but a host gets it from a registry. It stops when nobody waits for it any more."""
    validate.image_name("name", request.name)
    source = registry.source("source", request.source)
    pull = session_pb2.RelayPull(source=source, insecure=request.insecure)
    host, pipe = await open_somewhere(deps, session_pb2.RelayDown(pull=pull))
    received = 0
    async with feeding(pipe, None):
        async for step in taken(pipe, host, lambda size: progress("pulling", size)):
            if isinstance(step, HeldImage):
                done = step
            else:
                received = step.progress.received_bytes
                yield step
    async for last in kept(deps, describe, request.name, done, received):
        yield last


async def kept(
    deps: ApiDeps, describe: Describe, tag: str, done: HeldImage, received_bytes: int
) -> AsyncIterator[Response]:
    """Writes down what a host holds now, waits for the other hosts, and gives the image."""
    held = await record(deps, tag, done)
    async for step in replicated(deps, held.value.digest, received_bytes):
        yield step
    yield Response(image=describe.image(held))


class _Upload:
    """What the person sends, counted."""

    def __init__(self, start: api_pb2.ImportImageStart, requests: Requests) -> None:
        self._expected_bytes = start.size_bytes
        self._requests = requests
        self._ended = False
        self.sent_bytes = 0

    async def feed(self, pipe: Pipe) -> None:
        """Passes all chunks on; the end only if all came."""
        async for request in self._requests:
            _check_chunk(request)
            self.sent_bytes += len(request.chunk)
            self._refuse_more()
            await pipe.send(session_pb2.RelayDown(chunk=request.chunk))
        self._refuse_less()
        self._ended = True
        await pipe.send(session_pb2.RelayDown(end=True))

    def progress(self, received_bytes: int) -> Response:
        whole = self._ended and received_bytes >= self.sent_bytes
        step = "unpacking" if whole else "uploading"
        return progress(step, received_bytes)

    def _refuse_more(self) -> None:
        limit = self._expected_bytes or MAX_IMAGE_BYTES
        if self.sent_bytes > limit:
            raise InvalidInput(
                f"image: more than {limit} bytes came",
                hint="the file changed while it was sent, or it is too large",
            )

    def _refuse_less(self) -> None:
        if self.sent_bytes < max(self._expected_bytes, 1):
            raise InvalidInput(
                f"image: the upload ended after {self.sent_bytes} of {self._expected_bytes} bytes",
                hint="send all of it again; nothing was stored",
            )


def _checked_start(request: api_pb2.ImportImageRequest) -> api_pb2.ImportImageStart:
    if request.WhichOneof("frame") != "start":
        raise InvalidInput("import: the first frame must be a start", hint="update your client")
    validate.image_name("name", request.start.name)
    size = request.start.size_bytes
    validate.size_bytes("size_bytes", size, 0, MAX_IMAGE_BYTES)
    return request.start


def _check_chunk(request: api_pb2.ImportImageRequest) -> None:
    if request.WhichOneof("frame") != "chunk":
        raise InvalidInput("import: only chunks may follow the start", hint="update your client")
    if len(request.chunk) > MAX_CHUNK_BYTES:
        raise InvalidInput(
            f"chunk: {len(request.chunk)} bytes; at most {MAX_CHUNK_BYTES}",
            hint="send smaller chunks",
        )
