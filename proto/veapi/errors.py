"""Every error that a user can meet: a small tree, each with what to do about it.

A message says what was refused and why; a hint says what to do. `veapi.rpc` carries them over gRPC; `exit_code` is
what vectl ends with.
"""


class VerackError(Exception):
    """Base of all expected errors."""

    kind = "internal"
    exit_code = 8

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidInput(VerackError):
    """A value is not acceptable; nothing was changed. The message names field, value and limit."""

    kind = "invalid_input"
    exit_code = 2


class NotFound(VerackError):
    kind = "not_found"
    exit_code = 3


class Conflict(VerackError):
    """A name is taken, or the object is not in the state or at the revision that the caller assumed."""

    kind = "conflict"
    exit_code = 4


class NoHostFits(VerackError):
    kind = "no_host_fits"
    exit_code = 5


class TimedOut(VerackError):
    kind = "timeout"
    exit_code = 6


class Denied(VerackError):
    kind = "denied"
    exit_code = 7


class Unavailable(VerackError):
    """The other side can't be reached, or does not lead; nothing is known of the request's effect when it was a write."""

    kind = "unavailable"
    exit_code = 8


class RemoteFailed(VerackError):
    """The other side tried and failed."""

    kind = "remote_failed"
    exit_code = 8


def by_kind(kind: str, message: str, hint: str) -> VerackError:
    """The error of that kind; an unknown kind gives RemoteFailed."""
    for cls in (
        InvalidInput,
        NotFound,
        Conflict,
        NoHostFits,
        TimedOut,
        Denied,
        Unavailable,
        RemoteFailed,
    ):
        if cls.kind == kind:
            return cls(message, hint=hint)
    return RemoteFailed(message, hint=hint)
