"""Messages of the controller in files, as JSON: saved views, plans. Their versions are judged by the controller."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from veapi.errors import InvalidInput
from vectl.output import as_dict
from vectl.wholefile import whole

if TYPE_CHECKING:
    from google.protobuf.message import Message

M = TypeVar("M", bound="Message")
LIMIT_BYTES = 256 << 20


def write(message: "Message", path: str) -> None:
    """Whole or not at all; it may be read by its owner only, as it tells what runs where."""
    try:
        with whole(Path(path)) as out:
            out.write((json.dumps(as_dict(message), indent=1) + "\n").encode())
    except OSError as error:
        raise InvalidInput(
            f"can't write {path}: {error.strerror}", hint="name a file in a folder that is there"
        ) from None


def read(path: str, into: M, *, what: str, hint: str) -> M:
    """`into`, filled. `what` it is, e.g. "view". InvalidInput: it can't be read, or is none."""
    from google.protobuf.json_format import ParseDict, ParseError  # noqa: PLC0415  # 15 ms

    try:
        with Path(path).open("rb") as file:
            content = file.read(LIMIT_BYTES + 1)
        if len(content) > LIMIT_BYTES:
            raise InvalidInput(f"{path} is larger than {LIMIT_BYTES} bytes", hint=hint)
        found = json.loads(content)
        if not isinstance(found, dict):
            raise InvalidInput(f"{path} is no {what}: it is no JSON object", hint=hint)
        return ParseDict(found, into)
    except OSError as error:
        raise InvalidInput(f"can't read {path}: {error.strerror}", hint="check the name") from None
    except (ParseError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is no {what}: {str(error)[:200]}", hint=hint) from None
