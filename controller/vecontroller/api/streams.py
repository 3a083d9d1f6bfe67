"""Exec and logs: a person's stream spliced to the agent of the VE's host. Slow readers slow the other end, nothing piles up."""

from collections.abc import AsyncIterator

from veapi import access, validate
from veapi.errors import Conflict, InvalidInput, by_kind
from veapi.model import VE, HostName, VEState
from veapi.v1 import api_pb2, session_pb2
from vecontroller.api.describe import Describe
from vecontroller.api.lookup import find_ve
from vecontroller.api.ports import ApiDeps, Pipe
from vecontroller.api.splice import ended_early, feeding

MAX_WINDOW = 65_535
MAX_TAIL_LINES = 1_000_000
MAX_STDIN_BYTES = 1 << 20
"""Of one frame."""
_EXEC_FRAMES = frozenset(("stdin", "stdin_closed", "resize", "signal"))


async def execute(
    deps: ApiDeps, describe: Describe, requests: AsyncIterator[api_pb2.ExecRequest]
) -> AsyncIterator[api_pb2.ExecResponse]:
    """Runs a command in a Running VE. The last frame is an exit code or a failure."""
    start = _checked_start(await anext(requests, api_pb2.ExecRequest()))
    ve, host = _running(deps, describe, start.ve)
    first = session_pb2.RelayDown(exec=api_pb2.ExecRequest(start=start), uid=ve.uid)
    pipe = await deps.relays.open(host, first)
    async with feeding(pipe, _send_frames(pipe, requests)):
        while (message := await pipe.receive()) is not None:
            frame = _exec_frame(message)
            yield frame
            if frame.WhichOneof("frame") in ("exit_code", "failure"):
                return
    raise ended_early(host)


async def logs(deps: ApiDeps, request: api_pb2.LogsRequest) -> AsyncIterator[api_pb2.LogsResponse]:
    """What the VE's console said; with follow for ever."""
    if not 0 <= request.tail <= MAX_TAIL_LINES:
        raise InvalidInput(
            f"tail: {request.tail}; must be 0 to {MAX_TAIL_LINES}", hint="0 gives all that is kept"
        )
    ve = find_ve(deps.mirror.view, request.ve).value
    host = _host_of(deps, ve)
    wanted = session_pb2.RelayLogs(follow=request.follow, tail=request.tail)
    if request.HasField("since"):
        wanted.since.CopyFrom(request.since)
    pipe = await deps.relays.open(host, session_pb2.RelayDown(logs=wanted, uid=ve.uid))
    async with feeding(pipe, None):
        while (message := await pipe.receive()) is not None:
            match message.WhichOneof("frame"):
                case "log":
                    yield api_pb2.LogsResponse(data=message.log)
                case "failure":
                    raise _error(message.failure)
                case "end":
                    return
    if not _is_leaving(deps, ve):
        raise ended_early(host)


def _is_leaving(deps: ApiDeps, ve: VE) -> bool:
    """Whether its host has nothing more to tell of it, because it goes or is gone."""
    held = deps.mirror.view.ves.get(ve.uid)
    return held is None or held.value.delete_requested_at is not None


def _running(deps: ApiDeps, describe: Describe, ref: api_pb2.VERef) -> tuple[VE, HostName]:
    held = find_ve(deps.mirror.view, ref)
    status = describe.ve(held).status
    if status.state != VEState.RUNNING:
        raise Conflict(
            f"VE {held.value.name} is {status.state}, not Running",
            hint=_how_to_run(held.value.name, status.state),
        )
    return held.value, _host_of(deps, held.value)


def _how_to_run(name: str, state: str) -> str:
    match state:
        case VEState.STOPPED:
            return f"start it: vectl start {name}"
        case VEState.FROZEN:
            return f"let it go on: vectl thaw {name}"
        case VEState.DELETING:
            return "it is being deleted"
        case _:
            return f"see why: vectl show {name}"


def _host_of(deps: ApiDeps, ve: VE) -> HostName:
    placement = deps.mirror.view.placements.get(ve.uid)
    if placement is None:
        raise Conflict(f"VE {ve.name} has no host yet", hint=f"see why: vectl show {ve.name}")
    return placement.value.host


def _checked_start(request: api_pb2.ExecRequest) -> api_pb2.ExecStart:
    if request.WhichOneof("frame") != "start":
        raise InvalidInput("exec: the first frame must be a start", hint="update your client")
    start = request.start
    _check_command(start)
    access.user("user", start.user)
    if start.cwd:
        access.path("cwd", start.cwd)
    validate.environment("env", start.env)
    validate.terminal("term", start.term)
    _check_window(start.window)
    return start


def _check_command(start: api_pb2.ExecStart) -> None:
    """A login and a console bring what runs with them."""
    if not start.login and not start.console:
        validate.command("command", start.command)
    elif start.command or (start.login and start.console):
        raise InvalidInput(
            "command: not with login or console, and only one of both", hint="update your client"
        )
    elif start.console and not start.tty:
        raise InvalidInput("console: needs a terminal", hint="set tty")


def _check_window(window: api_pb2.WindowSize) -> None:
    if max(window.columns, window.rows) > MAX_WINDOW:
        raise InvalidInput(
            f"window: {window.columns}x{window.rows}; at most {MAX_WINDOW} each",
            hint="use the size of your terminal",
        )


async def _send_frames(pipe: Pipe, requests: AsyncIterator[api_pb2.ExecRequest]) -> None:
    """A client that sends no more has nothing more for the command's stdin either."""
    closed = False
    async for request in requests:
        _check_frame(request)
        closed = closed or request.WhichOneof("frame") == "stdin_closed"
        await pipe.send(session_pb2.RelayDown(exec=request))
    if not closed:
        await pipe.send(session_pb2.RelayDown(exec=api_pb2.ExecRequest(stdin_closed=True)))


def _check_frame(request: api_pb2.ExecRequest) -> None:
    frame = request.WhichOneof("frame")
    if frame not in _EXEC_FRAMES:
        raise InvalidInput(f"exec: unexpected frame {frame}", hint="update your client")
    if len(request.stdin) > MAX_STDIN_BYTES:
        raise InvalidInput(
            f"stdin: a frame of {len(request.stdin)} bytes; at most {MAX_STDIN_BYTES}",
            hint="send it in smaller frames",
        )
    _check_window(request.resize)
    if frame == "signal" and not 1 <= request.signal <= 64:
        raise InvalidInput(f"signal: {request.signal}; must be 1 to 64", hint="15 is SIGTERM")


def _exec_frame(message: session_pb2.RelayUp) -> api_pb2.ExecResponse:
    match message.WhichOneof("frame"):
        case "exec":
            return message.exec
        case "failure":
            return api_pb2.ExecResponse(failure=message.failure)
        case other:
            raise InvalidInput(f"exec: the host sent {other}", hint="update its veagent")


def _error(failure: api_pb2.Failure) -> Exception:
    return by_kind(failure.kind, failure.message, failure.hint)
