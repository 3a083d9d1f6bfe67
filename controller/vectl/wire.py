"""Calls with a deadline, and what their failures mean to a user."""

import asyncio
import re
from contextlib import suppress
from typing import TypeVar

import grpc
import grpc.aio

from veapi.errors import Denied, RemoteFailed, Unavailable, VerackError
from veapi.rpc import from_rpc
from vectl.context import Context

Request = TypeVar("Request")
Response = TypeVar("Response")
CALL_S = 10.0
CONNECT_S = 5.0
# A controller that is being restarted refuses connections for a second or so.
REFUSED_S = 3.0
_LOOK_S = 0.5
_CERTIFICATE = ("SSL_ERROR", "Tls handshake failed", "Verification Check failed", "CERTIFICATE")
# Our own certificate is judged after our side of the handshake: all that we see is a connection that ends at once.
_CLOSED = ("Socket closed", "reset by peer", "Broken pipe")
_HOPELESS = ("No such file", "Permission denied", "hostname lookup error")


async def unary(
    method: "grpc.aio.UnaryUnaryMultiCallable[Request, Response]",
    request: Request,
    *,
    context: Context,
    timeout_s: float = CALL_S,
) -> Response:
    """One call with a deadline. Raises veapi.errors; Unavailable when the controller did not answer in time."""
    try:
        return await method(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        raise failure(error, context) from None


def failure(error: grpc.aio.AioRpcError, context: Context) -> VerackError:
    """What the server meant, or what happened on the way there."""
    told = dict(error.trailing_metadata() or ())
    if "verack-leader" in told:
        return Unavailable(
            f"the controller at {context.endpoint} does not lead",
            hint=f"ask the one that does: --endpoint {told['verack-leader']!s}",
        )
    if "verack-kind" in told:
        return from_rpc(error)
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return _lost(error.details() or "", context)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unavailable(
                f"the controller at {context.endpoint} did not answer in time",
                hint="look whether it is alive; what was asked may be done or not: see `vectl list`",
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return RemoteFailed(
                f"the controller at {context.endpoint} does not know this call",
                hint="compare the versions: `vectl version`",
            )
        case _:
            return from_rpc(error)


def _lost(details: str, context: Context) -> VerackError:
    return Unavailable(
        f"lost the controller at {context.endpoint}: {_short(details)}",
        hint="what was asked may be done or not: look with `vectl list`, then ask again",
    )


async def ready(
    channel: grpc.aio.Channel,
    probe: "grpc.aio.UnaryUnaryMultiCallable[Request, Response]",
    request: Request,
    context: Context,
) -> None:
    """Returns once the channel is connected. Else Denied (certificates) or Unavailable, within CONNECT_S."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(CONNECT_S):
            while (state := channel.get_state(try_to_connect=True)) != _READY:
                if state == _FAILING:
                    await _why(probe, request, context, last=loop.time() > began + REFUSED_S)
                with suppress(TimeoutError):
                    # A failing channel rests longer and longer: it is asked again before that.
                    await asyncio.wait_for(channel.wait_for_state_change(state), _LOOK_S)
    except TimeoutError:
        raise _unreachable("no answer", context) from None


_READY = grpc.ChannelConnectivity.READY
_FAILING = grpc.ChannelConnectivity.TRANSIENT_FAILURE


async def _why(
    probe: "grpc.aio.UnaryUnaryMultiCallable[Request, Response]",
    request: Request,
    context: Context,
    *,
    last: bool,
) -> None:
    """Asks for the reason of a failed connect; raises it when another try is pointless."""
    try:
        await probe(request, timeout=1.0, wait_for_ready=False)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            return
        details = error.details() or ""
        if _has(details, _CERTIFICATE) or (last and _has(details, _CLOSED)):
            raise _denied(details, context) from None
        if last or _has(details, _HOPELESS):
            raise _unreachable(details, context) from None


def _has(details: str, words: tuple[str, ...]) -> bool:
    return any(word in details for word in words)


def _denied(details: str, context: Context) -> Denied:
    return Denied(
        f"the controller at {context.endpoint} and we don't trust each other: {_short(details)}",
        hint=f"context {context.name} must have certificates of cluster {context.cluster}"
        " (`vecontroller cert user NAME`), and its endpoint must be that cluster's controller",
    )


def _unreachable(details: str, context: Context) -> Unavailable:
    return Unavailable(
        f"can't reach the controller at {context.endpoint}: {_short(details)}",
        hint=f"is it running? The endpoint is that of context {context.name}; --endpoint gives another",
    )


def _short(details: str) -> str:
    """The last clause of gRPC's nested reasons, which is the one that says something."""
    text = details.rpartition("last error: ")[2] or details
    return re.sub(r"^([A-Z_]+: )?((ipv[46]|unix):\S+: )?", "", text)[:300]
