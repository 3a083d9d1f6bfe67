"""Import of an image: a person's bytes go to one host, and the others fetch it from there. Nothing is stored but a whole image.

The tag is written with the image in one transaction, after the host has unpacked all of it. A broken upload leaves nothing.
"""

import asyncio
from collections.abc import AsyncIterator

from veapi import validate
from veapi.codec import held_image_in
from veapi.errors import Conflict, InvalidInput, RemoteFailed, TimedOut, Unavailable, by_kind
from veapi.model import Digest, HeldImage, HostName, HostState
from veapi.v1 import api_pb2, session_pb2
from vecontroller.api.describe import Describe, holders
from vecontroller.api.imagerecord import record
from vecontroller.api.ports import ApiDeps, Pipe
from vecontroller.api.splice import ended_early, feeding
from vecontroller.placement import committed
from vecontroller.view import View

MAX_IMAGE_BYTES = 64 << 30
MAX_CHUNK_BYTES = 1 << 20
SILENCE_S = 600.0
"""How long the host may say nothing: it unpacks."""
REPLICATED_WITHIN_S = 60.0
HOSTS_TRIED = 3
Requests = AsyncIterator[api_pb2.ImportImageRequest]
Response = api_pb2.ImportImageResponse


async def import_image(
    deps: ApiDeps, describe: Describe, requests: Requests
) -> AsyncIterator[api_pb2.ImportImageResponse]:
    """Progress, then the image. Hosts that don't hold it within 60 s fetch it later."""
    start = _checked_start(await anext(requests, api_pb2.ImportImageRequest()))
    upload = _Upload(start, requests)
    first = session_pb2.RelayDown(upload=session_pb2.RelayUpload(size_bytes=start.size_bytes))
    host, pipe = await _open_somewhere(deps, first)
    done: HeldImage | None = None
    async with feeding(pipe, upload.feed(pipe)):
        while done is None:
            message = await _receive(pipe, host)
            match message.WhichOneof("frame"):
                case "upload_received_bytes":
                    yield upload.progress(message.upload_received_bytes)
                case "upload_done":
                    done = held_image_in(message.upload_done)
                case _:
                    raise _failed(message, host)
    held = await record(deps, start.name, done)
    async for progress in _replicated(deps, held.value.digest, upload.sent_bytes):
        yield progress
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

    def progress(self, received_bytes: int) -> api_pb2.ImportImageResponse:
        whole = self._ended and received_bytes >= self.sent_bytes
        step = "unpacking" if whole else "uploading"
        return _progress(step, received_bytes)

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


async def _open_somewhere(deps: ApiDeps, first: session_pb2.RelayDown) -> tuple[HostName, Pipe]:
    """To the best host that can be reached; a few are tried."""
    failed: Unavailable | None = None
    for host in _receivers(deps)[:HOSTS_TRIED]:
        try:
            return host, await deps.relays.open(host, first)
        except Unavailable as error:
            failed = error
    raise failed or Conflict(
        "no host is Ready to take an image",
        hint="look at `vectl host list`; an import needs one host at least",
    )


def _receivers(deps: ApiDeps) -> list[HostName]:
    """Ready hosts, those with the most disk that is not promised to a VE first; by name where equal."""
    view = deps.mirror.view
    return sorted(ready_hosts(deps), key=lambda name: (-_free_disk_bytes(view, name), name))


def ready_hosts(deps: ApiDeps) -> list[HostName]:
    hosts = sorted(deps.mirror.view.hosts)
    return [name for name in hosts if deps.hosts.host_state(name) is HostState.READY]


def _free_disk_bytes(view: View, host: HostName) -> int:
    return view.hosts[host].value.capacity.disk_bytes - committed(view, host).disk_bytes


async def _receive(pipe: Pipe, host: HostName) -> session_pb2.RelayUp:
    try:
        message = await asyncio.wait_for(pipe.receive(), SILENCE_S)
    except TimeoutError:
        raise TimedOut(
            f"host {host} said nothing for {SILENCE_S:g} s", hint=f"look at veagent on {host}"
        ) from None
    if message is None:
        raise ended_early(host)
    return message


def _failed(message: session_pb2.RelayUp, host: HostName) -> Exception:
    if message.WhichOneof("frame") == "failure":
        failure = message.failure
        return by_kind(failure.kind, failure.message, failure.hint)
    return RemoteFailed(f"host {host} sent something unexpected", hint=f"update veagent on {host}")


async def _replicated(
    deps: ApiDeps, digest: Digest, received_bytes: int
) -> AsyncIterator[api_pb2.ImportImageResponse]:
    """Until all ready hosts hold it, at most 60 s; says each step."""
    until, last = deps.clock.boot() + REPLICATED_WITHIN_S, (-1, -1)
    with deps.topic.subscribe() as changes:
        while True:
            ready = ready_hosts(deps)
            done = len(set(ready).intersection(holders(deps.mirror.view, digest)))
            if (done, len(ready)) != last:
                last = (done, len(ready))
                yield _progress("replicating", received_bytes, done=done, wanted=len(ready))
            if done == len(ready):
                return
            try:
                await asyncio.wait_for(changes.next(), max(until - deps.clock.boot(), 0))
            except TimeoutError:
                return


def _progress(
    step: str, received_bytes: int, *, done: int = 0, wanted: int = 0
) -> api_pb2.ImportImageResponse:
    return Response(
        progress=api_pb2.ImportProgress(
            step=step, received_bytes=received_bytes, hosts_done=done, hosts_wanted=wanted
        )
    )
