"""Push, pull and export: a person's stream spliced to the agent of the VE's host, whether the VE runs or not."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from veapi import access
from veapi.errors import Conflict, InvalidInput, VerackError, by_kind
from veapi.model import VE, HostName
from veapi.v1 import api_pb2, session_pb2
from vecontroller.api.describe import Describe
from vecontroller.api.lookup import find_ve
from vecontroller.api.ports import ApiDeps, Pipe
from vecontroller.api.splice import ended_early, feeding

MAX_CHUNK_BYTES = 1 << 20
MAX_PATHS = 64
HEARS_WITHIN_S = 10.0
"""How long a caller that was told of a failure may take to end its call."""
MAX_TAG = 63
_HIGHEST_MODE = 0o7777


async def push(
    deps: ApiDeps, requests: AsyncIterator[api_pb2.PushRequest]
) -> AsyncIterator[api_pb2.PushResponse]:
    """Says what has arrived; last, what was written, or why not. Then it is for the caller to end the call."""
    try:
        async with aclosing(_pushed(deps, requests)) as responses:
            async for response in responses:
                yield response
    except VerackError as error:
        failure = api_pb2.Failure(kind=error.kind, message=error.message, hint=error.hint)
        yield api_pb2.PushResponse(failure=failure)
        await deps.clock.sleep(HEARS_WITHIN_S)


async def _pushed(
    deps: ApiDeps, requests: AsyncIterator[api_pb2.PushRequest]
) -> AsyncGenerator[api_pb2.PushResponse, None]:
    start = _checked_start(await anext(requests, api_pb2.PushRequest()))
    ve, host = _placed(deps, start.ve)
    pipe = await deps.relays.open(host, session_pb2.RelayDown(push_files=start, uid=ve.uid))
    async with feeding(pipe, _send_chunks(pipe, requests)):
        while (message := await pipe.receive()) is not None:
            match message.WhichOneof("frame"):
                case "push_received_bytes":
                    yield api_pb2.PushResponse(received_bytes=message.push_received_bytes)
                case "transferred":
                    yield api_pb2.PushResponse(done=message.transferred)
                    return
                case "failure":
                    raise _error(message)
    raise ended_early(host)


async def pull(deps: ApiDeps, request: api_pb2.PullRequest) -> AsyncIterator[api_pb2.PullResponse]:
    """A tar; last, what is in it."""
    if not 1 <= len(request.paths) <= MAX_PATHS:
        raise InvalidInput(
            f"paths: {len(request.paths)}; must be 1 to {MAX_PATHS}",
            hint="name a folder of them, with -r",
        )
    for path in request.paths:
        access.path("path", path)
    ve, host = _placed(deps, request.ve)
    pipe = await deps.relays.open(host, session_pb2.RelayDown(pull_files=request, uid=ve.uid))
    async with feeding(pipe, None):
        while (message := await pipe.receive()) is not None:
            match message.WhichOneof("frame"):
                case "chunk":
                    yield api_pb2.PullResponse(chunk=message.chunk)
                case "transferred":
                    yield api_pb2.PullResponse(done=message.transferred)
                    return
                case "failure":
                    raise _error(message)
    raise ended_early(host)


async def export(
    deps: ApiDeps, describe: Describe, request: api_pb2.ExportRequest
) -> AsyncIterator[api_pb2.ExportResponse]:
    """The VE as it is asked for, its root, and an end only when all of it came."""
    if len(request.snapshot) > MAX_TAG or "\0" in request.snapshot:
        raise InvalidInput(
            f"snapshot: {request.snapshot[:80]!r} is no tag", hint="see `vectl snapshot list`"
        )
    ve, host = _placed(deps, request.ve)
    wanted = session_pb2.RelayExport(snapshot=request.snapshot)
    pipe = await deps.relays.open(host, session_pb2.RelayDown(export_root=wanted, uid=ve.uid))
    async with feeding(pipe, None):
        yield api_pb2.ExportResponse(ve=describe.ve(find_ve(deps.mirror.view, request.ve)))
        while (message := await pipe.receive()) is not None:
            match message.WhichOneof("frame"):
                case "chunk":
                    yield api_pb2.ExportResponse(chunk=message.chunk)
                case "end":
                    yield api_pb2.ExportResponse(end=True)
                    return
                case "failure":
                    raise _error(message)
    raise ended_early(host)


def _placed(deps: ApiDeps, ref: api_pb2.VERef) -> tuple[VE, HostName]:
    ve = find_ve(deps.mirror.view, ref).value
    if ve.delete_requested_at is not None:
        raise Conflict(f"VE {ve.name} is being deleted", hint="see `vectl list --deleted`")
    placement = deps.mirror.view.placements.get(ve.uid)
    if placement is None:
        raise Conflict(f"VE {ve.name} has no host yet", hint=f"see why: vectl show {ve.name}")
    return ve, placement.value.host


def _checked_start(request: api_pb2.PushRequest) -> api_pb2.PushStart:
    if request.WhichOneof("frame") != "start":
        raise InvalidInput("push: the first frame must be a start", hint="update your client")
    start = request.start
    access.path("path", start.path)
    access.user("owner", start.owner)
    if start.mode > _HIGHEST_MODE:
        raise InvalidInput(f"mode: {start.mode:o}; at most 7777", hint="write e.g. 0644")
    return start


async def _send_chunks(pipe: Pipe, requests: AsyncIterator[api_pb2.PushRequest]) -> None:
    """The end of the requests is that of the data: who broke off has cancelled the call."""
    async for request in requests:
        if request.WhichOneof("frame") != "chunk":
            raise InvalidInput("push: only chunks may follow the start", hint="update your client")
        if len(request.chunk) > MAX_CHUNK_BYTES:
            raise InvalidInput(
                f"chunk: {len(request.chunk)} bytes; at most {MAX_CHUNK_BYTES}",
                hint="send smaller chunks",
            )
        await pipe.send(session_pb2.RelayDown(chunk=request.chunk))
    await pipe.send(session_pb2.RelayDown(end=True))


def _error(message: session_pb2.RelayUp) -> Exception:
    failure = message.failure
    return by_kind(failure.kind, failure.message, failure.hint)
