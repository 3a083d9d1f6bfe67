"""Calls with a deadline, and what their failures mean to a user."""

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import grpc
import grpc.aio

from veapi.errors import Denied, RemoteFailed, Unavailable, VerackError
from veapi.rpc import from_rpc
from vectl.context import Context
from vectl.following import Following

Request = TypeVar("Request")
Response = TypeVar("Response")
CALL_S = 10.0
MAX_HOPS = 3
_LEADER = "verack-leader"
_LOOK_S = 0.5
_READS = ("Get", "List", "Version")


@dataclass(frozen=True, slots=True)
class Patience:
    """With one controller: how long to connect, how long refused connections are tried again, and to answer."""

    connect_s: float
    refused_s: float
    answer_s: float


# A controller that is being restarted refuses connections for a second or so.
ALONE = Patience(connect_s=5.0, refused_s=3.0, answer_s=CALL_S)
AMONG = Patience(connect_s=1.5, refused_s=0.0, answer_s=1.5)
"""One of several: rather the next is asked."""
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
    """One call with a deadline. Raises veapi.errors; Unavailable when the controller did not answer in time.

    It is asked again of the controller that leads, a few times, if that does no harm: see `_leader_to_ask`.
    """
    for _ in range(MAX_HOPS - 1):
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            leader = _leader_to_ask(method, request, error)
            if leader is None:
                raise failure(error, context) from None
        assert isinstance(method, Following)
        await method.find_leader(leader)
    try:
        return await method(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        raise failure(error, context) from None


def _leader_to_ask(method: object, request: object, error: grpc.aio.AioRpcError) -> str | None:
    """Whom to ask again: host:port, or empty for whoever is found. None: nobody, it might be done twice.

    A controller that does not lead has done nothing. After another loss only what reads may be asked again, and what
    has a request id, by which the controllers know it.
    """
    if not isinstance(method, Following):
        return None
    leader = named_leader(error)
    if leader is not None:
        return leader
    lost = error.code() is grpc.StatusCode.UNAVAILABLE
    harmless = method.name.startswith(_READS) or bool(getattr(request, "request_id", ""))
    return "" if lost and harmless else None


def named_leader(error: grpc.aio.AioRpcError) -> str | None:
    """None unless the controller refused because it does not lead; else host:port of who does, empty when not known."""
    named = dict(error.trailing_metadata() or ()).get(_LEADER)
    if named is None:
        return None
    return named if isinstance(named, str) else named.decode(errors="replace")


_WORD_LOST = "Internal error from Core"
"""What gRPC says when a write came after the other side's end: the end, with its reason, is lost."""


def _is_lost(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.UNAVAILABLE or error.details() == _WORD_LOST


def failure(error: grpc.aio.AioRpcError, context: Context) -> VerackError:
    """What the server meant, or what happened on the way there."""
    told = dict(error.trailing_metadata() or ())
    if _LEADER in told:
        return Unavailable(
            f"the controller at {context.endpoint} does not lead; nothing was done",
            hint="ask again: the one that leads is looked for each time",
        )
    if "verack-kind" in told:
        return from_rpc(error)
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.INTERNAL if _is_lost(error):
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


def cut(error: grpc.aio.AioRpcError, context: Context, *, hint: str) -> VerackError:
    """As `failure`, of a stream that goes through the controller: `hint` says what to do when that one is lost."""
    meant = failure(error, context)
    told = dict(error.trailing_metadata() or ())
    if isinstance(meant, Unavailable) and not {_LEADER, "verack-kind"} & told.keys():
        meant.hint = hint
    return meant


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
    patience: Patience = ALONE,
) -> None:
    """Returns once the channel is connected. Else Denied (certificates) or Unavailable, as `patience` allows."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(patience.connect_s):
            while (state := channel.get_state(try_to_connect=True)) != _READY:
                if state == _FAILING:
                    late = loop.time() > began + patience.refused_s
                    await _why(probe, request, context, last=late)
                with suppress(TimeoutError):
                    # A failing channel rests longer and longer: it is asked again before that.
                    async with asyncio.timeout(_LOOK_S):
                        await channel.wait_for_state_change(state)
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
