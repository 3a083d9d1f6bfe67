"""Errors over gRPC: one mapping, both ways. The hint and the kind travel as trailing metadata."""

from collections.abc import Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio

from veapi.errors import (
    Conflict,
    Denied,
    InvalidInput,
    NoHostFits,
    NotFound,
    RemoteFailed,
    TimedOut,
    Unavailable,
    VerackError,
    by_kind,
)

_KIND_KEY = "verack-kind"
_HINT_KEY = "verack-hint-bin"
_STATUS: dict[type[VerackError], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    NoHostFits: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TimedOut: grpc.StatusCode.DEADLINE_EXCEEDED,
    Denied: grpc.StatusCode.PERMISSION_DENIED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    RemoteFailed: grpc.StatusCode.INTERNAL,
}
_ERROR: dict[grpc.StatusCode, type[VerackError]] = {
    **{status: error for error, status in _STATUS.items()},
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.UNAUTHENTICATED: Denied,
    grpc.StatusCode.OUT_OF_RANGE: InvalidInput,
}


def status_of(error: VerackError) -> grpc.StatusCode:
    """The code of the nearest class that has one; INTERNAL else."""
    for cls in type(error).__mro__:
        if cls in _STATUS:
            return _STATUS[cls]
    return grpc.StatusCode.INTERNAL


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", error: VerackError) -> NoReturn:
    """Ends the call with the error; its kind and hint go along."""
    metadata: Sequence[tuple[str, str | bytes]] = (
        (_KIND_KEY, error.kind),
        (_HINT_KEY, error.hint.encode()),
    )
    await context.abort(status_of(error), error.message, metadata)
    raise AssertionError("abort returned")


def from_rpc(error: grpc.aio.AioRpcError) -> VerackError:
    """The error that the server meant; without our metadata, the nearest one."""
    found = dict(error.trailing_metadata() or ())
    message = error.details() or error.code().name
    hint_bytes = found.get(_HINT_KEY, b"")
    hint = hint_bytes.decode() if isinstance(hint_bytes, bytes) else hint_bytes
    kind = found.get(_KIND_KEY)
    if isinstance(kind, str):
        return by_kind(kind, message, hint)
    cls = _ERROR.get(error.code(), RemoteFailed)
    return cls(message, hint=hint)
