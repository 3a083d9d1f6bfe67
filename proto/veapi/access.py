"""What may be asked of the inside of a VE: users and paths. Whether they are there, only the VE knows.

As in `veapi.validate` each function returns what it accepts, and raises InvalidInput with field, value and limit.
"""

import re

from veapi.errors import InvalidInput

PATH_LIMIT_BYTES = 4095
_PART_LIMIT_BYTES = 255
HIGHEST_ID = 65_535
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?", re.ASCII)
_USER_HINT = "write a user's name or number, e.g. alice, 1000 or alice:adm"


def user(field: str, value: str) -> str:
    """A name or number, with or without :group; may be empty."""
    if not value:
        return value
    name, colon, group = value.partition(":")
    for part in (name, group) if colon else (name,):
        if _USER.fullmatch(part) is None:
            raise InvalidInput(f"{field}: {value[:80]!r} is not a user", hint=_USER_HINT)
        if part.isdigit() and int(part) > HIGHEST_ID:
            raise InvalidInput(
                f"{field}: {part} is beyond a VE's ids; at most {HIGHEST_ID}", hint=_USER_HINT
            )
    return value


def path(field: str, value: str) -> str:
    """Absolute, as the VE has it. `..` is allowed: nothing leads out of a VE's root."""
    hint = "write a path of the VE that begins with /, e.g. /etc/hosts"
    if not value.startswith("/"):
        raise InvalidInput(f"{field}: {value[:80]!r} is not an absolute path", hint=hint)
    if "\0" in value:
        raise InvalidInput(f"{field}: {value[:80]!r} holds a NUL byte", hint="remove the NUL byte")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"{field}: {value[:80]!r} is not UTF-8", hint=hint) from None
    if size > PATH_LIMIT_BYTES:
        raise InvalidInput(f"{field}: {size} bytes; at most {PATH_LIMIT_BYTES}", hint="shorten it")
    if any(len(part.encode()) > _PART_LIMIT_BYTES for part in value.split("/")):
        raise InvalidInput(
            f"{field}: a name in it has more than {_PART_LIMIT_BYTES} bytes", hint="shorten it"
        )
    return value
