"""How the agent writes what must be found whole again: a line that tells kind, schema, checksum and length, then a body."""

import os
import zlib
from pathlib import Path

from veapi.errors import InvalidInput

SCHEMA = 1
MAGIC = b"verack-"
_HEADER_LIMIT_BYTES = 80


class Damaged(Exception):
    """What a file holds is not what was written."""


def seal(kind: bytes, body: bytes) -> bytes:
    return b"%s%s %d %08x %d\n%s" % (MAGIC, kind, SCHEMA, zlib.crc32(body), len(body), body)


def unseal(content: bytes) -> tuple[bytes, bytes]:
    """Kind and body. Damaged; InvalidInput when a newer agent wrote it."""
    header, newline, body = content.partition(b"\n")
    fields = header[:_HEADER_LIMIT_BYTES].split(b" ")
    if not newline or len(fields) != 4 or not fields[0].startswith(MAGIC):
        raise Damaged("no header")
    try:
        schema, checksum, length = int(fields[1]), int(fields[2], 16), int(fields[3])
    except ValueError:
        raise Damaged("broken header") from None
    if length != len(body) or checksum != zlib.crc32(body):
        raise Damaged("checksum")
    if schema > SCHEMA:
        raise InvalidInput(
            f"the agent's ledger has schema {schema}, this veagent knows {SCHEMA}",
            hint="a newer veagent wrote it: install that version again",
        )
    return fields[0].removeprefix(MAGIC), body


def replace_file(path: Path, content: bytes) -> None:
    """The old content or the new, whatever happens; returns when it is durable."""
    beside = path.with_name(path.name + ".tmp")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    beside.rename(path)
    sync_folder(path.parent)


def append(path: Path, content: bytes) -> None:
    """To a file that is there; returns when it is durable."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
