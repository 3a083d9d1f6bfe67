"""Files that come into being whole, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast


@contextmanager
def whole(file: Path) -> Iterator[BinaryIO]:
    """To be written; it appears, on disk, when all of it is, and only its owner may read it. OSError: it can't be written."""
    draft: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=file.parent, prefix=f".{file.name}.", delete=False
        ) as out:
            draft = Path(out.name)
            yield cast("BinaryIO", out)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
        draft = None
        _sync_folder(file.parent)
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
