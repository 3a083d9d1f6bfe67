"""What all values share: a schema version, and a refusal of what can't be read."""

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from veapi.errors import VerackError

SCHEMA = 1


class Unreadable(VerackError):
    """A value that this version can't read: of a newer schema, or garbage."""

    kind = "unreadable"


M = TypeVar("M", bound=Message)
V = TypeVar("V")


def parse(cls: Callable[[], M], data: bytes) -> M:
    """The message, if it is one of a schema that we know."""
    message = cls()
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise Unreadable(f"no value of ours: {error}") from None
    schema = getattr(message, "schema", 0)
    if schema > SCHEMA:
        raise Unreadable(
            f"schema {schema} is newer than {SCHEMA}", hint="update this controller to read it"
        )
    if schema < 1:
        raise Unreadable("no value of ours: it has no schema")
    return message


def checked(value: V, *required: object) -> V:
    """`value`, unless a field is empty that never is in a value that we wrote."""
    if not all(required):
        raise Unreadable("no value of ours: a field that is always set is empty")
    return value


def model(make: Callable[[], V]) -> V:
    """What `make` gives; an unknown word of an enum is Unreadable."""
    try:
        return make()
    except (ValueError, OverflowError) as error:
        raise Unreadable(f"no value of ours: {error}") from None
