"""Views in files: JSON of the controller's message, with its version."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from veapi.errors import InvalidInput
from vectl.output import as_dict

if TYPE_CHECKING:
    from veapi.v1.simulate_pb2 import SavedView

LIMIT_BYTES = 256 << 20
_HINT = "give a file that `vectl simulate --save-view FILE` wrote"


def write(view: "SavedView", path: str) -> None:
    """Whole or not at all; it may be read by its owner only, as it tells what runs where."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.new")
    try:
        beside.touch(mode=0o600)
        beside.write_text(json.dumps(as_dict(view), indent=1) + "\n")
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InvalidInput(
            f"can't write {path}: {error.strerror}", hint="name a file in a folder that is there"
        ) from None


def read(path: str) -> "SavedView":
    """InvalidInput: it can't be read, or is no view. Its version is judged by the controller."""
    from google.protobuf.json_format import ParseDict, ParseError  # noqa: PLC0415  # 15 ms

    from veapi.v1.simulate_pb2 import SavedView  # noqa: PLC0415

    try:
        with Path(path).open("rb") as file:
            content = file.read(LIMIT_BYTES + 1)
        if len(content) > LIMIT_BYTES:
            raise InvalidInput(f"{path} is larger than {LIMIT_BYTES} bytes", hint=_HINT)
        found = json.loads(content)
        if not isinstance(found, dict):
            raise InvalidInput(f"{path} is no view: it is no JSON object", hint=_HINT)
        return ParseDict(found, SavedView())
    except OSError as error:
        raise InvalidInput(f"can't read {path}: {error.strerror}", hint="check the name") from None
    except (ParseError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is no view: {str(error)[:200]}", hint=_HINT) from None
