"""A backup of the store in one file: a tar of etcd's own snapshot and of what it is, that is told whole from cut or changed.

    snapshot.db   as etcd gave it: its database, and behind that the 32 bytes of its sha256
    backup.json   cluster, incarnation, revision, time, size and sha256 of the snapshot, and a seal over these

So `tar x` gives what etcd's own tools take. Every byte of the file counts: the snapshot is checked by both sums, and all
else must be exactly what these words and this size give.
"""

import hashlib
import json
from pathlib import Path
from typing import BinaryIO

import msgspec

from veapi import tarstream
from veapi.errors import InvalidInput
from veapi.tarstream import BLOCK, Member

FORMAT = 1
SNAPSHOT, ABOUT = b"snapshot.db", b"backup.json"
LIMIT_BYTES = 8 << 30
"""Of a snapshot: twice what the store may grow to."""
_TAIL_LIMIT_BYTES = 64 << 10
_PIECE_BYTES = 1 << 20
_SUM_BYTES = hashlib.sha256().digest_size


class Backup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup says of itself. `revision`: all up to it is inside. `taken_at`: whole Unix seconds. `version`: the controller's."""

    cluster: str
    incarnation: int
    revision: int
    taken_at: int
    version: str
    size_bytes: int
    sha256: str
    format: int = FORMAT


class Writer:
    """Puts a snapshot that comes in pieces into an open, empty file. Only `end` makes a backup of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._check = _Check()
        file.seek(BLOCK)  # the first header tells the size: it is written last

    @property
    def size_bytes(self) -> int:
        return self._check.size

    @property
    def sha256(self) -> str:
        return self._check.sha256

    def add(self, data: bytes) -> None:
        """InvalidInput when it grows too large."""
        if self._check.size + len(data) > LIMIT_BYTES:
            raise InvalidInput(
                f"the store's snapshot is larger than {LIMIT_BYTES >> 30} GiB",
                hint="compact and defragment etcd",
            )
        self._check.add(data)
        self._file.write(data)

    def end(self, backup: Backup) -> None:
        """InvalidInput when what came is not the whole of what `backup` says, or no snapshot of etcd."""
        self._check.refuse_other(backup)
        self._file.write(_tail(backup))
        self._file.seek(0)
        self._file.write(_head(backup.size_bytes, backup.taken_at))


def verify(path: Path) -> Backup:
    """What the backup says of itself. InvalidInput when it is none, or not whole; OSError when it can't be read."""
    with path.open("rb") as file:
        return read(file)


def read(file: BinaryIO, *, snapshot_to: BinaryIO | None = None) -> Backup:
    """Checks all of it; writes the snapshot on the way. Only when this returns is what was written good."""
    first, check = file.read(BLOCK), _Check()
    left = _size(first)
    while left:
        piece = file.read(min(left, _PIECE_BYTES))
        if not piece:
            raise _refused("it is cut")
        check.add(piece)
        left -= len(piece)
        if snapshot_to is not None:
            snapshot_to.write(piece)
    rest = file.read(_TAIL_LIMIT_BYTES)
    backup = _about(rest, check.size)
    if first + rest != _head(backup.size_bytes, backup.taken_at) + _tail(backup) or file.read(1):
        raise _refused("it was changed")
    check.refuse_other(backup)
    return backup


class _Check:
    """Sums of a snapshot: of all of it, and of all but its last 32 bytes, which are etcd's sum of the others."""

    def __init__(self) -> None:
        self.size = 0
        self._all, self._database = hashlib.sha256(), hashlib.sha256()
        self._last = b""

    @property
    def sha256(self) -> str:
        return self._all.hexdigest()

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self._all.update(data)
        both = self._last + data
        cut = max(0, len(both) - _SUM_BYTES)
        self._database.update(both[:cut])
        self._last = both[cut:]

    def refuse_other(self, backup: Backup) -> None:
        """InvalidInput unless this is what the backup says, and etcd's own sum is right."""
        if (self.size, self.sha256) != (backup.size_bytes, backup.sha256):
            raise _refused("its snapshot was cut or changed")
        if self._database.digest() != self._last:
            raise _refused("etcd's own sum of its snapshot is wrong")


def _head(size: int, at: int) -> bytes:
    return tarstream.header(Member(SNAPSHOT, size=size, mtime=at, mode=0o600))


def _tail(backup: Backup) -> bytes:
    """All behind the snapshot."""
    about = _sealed(backup)
    header = tarstream.header(Member(ABOUT, size=len(about), mtime=backup.taken_at, mode=0o600))
    return b"".join(
        (
            tarstream.padding(backup.size_bytes),
            header,
            about,
            tarstream.padding(len(about)),
            tarstream.END,
        )
    )


def _sealed(backup: Backup) -> bytes:
    words = msgspec.to_builtins(backup)
    seal = hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()
    return json.dumps({**words, "seal": seal}, indent=1).encode() + b"\n"


def _size(block: bytes) -> int:
    """Of the snapshot, as the first header says."""
    if len(block) != BLOCK or not block.startswith(SNAPSHOT + b"\0"):
        raise _refused("it does not begin as one")
    return _octal(block)


def _octal(block: bytes) -> int:
    try:
        return int(block[124:136].rstrip(b"\0 "), 8)
    except ValueError:
        raise _refused("it was changed") from None


def _about(rest: bytes, size: int) -> Backup:
    begin = -size % BLOCK
    header = rest[begin : begin + BLOCK]
    if len(header) != BLOCK or not header.startswith(ABOUT + b"\0"):
        raise _refused("it is cut, or was changed")
    begin += BLOCK
    try:
        words = json.loads(rest[begin : begin + _octal(header)])
        if (
            isinstance(words, dict)
            and isinstance(words.get("format"), int)
            and words["format"] > FORMAT
        ):
            raise InvalidInput(
                f"the backup is of format {words['format']}, newer than {FORMAT}",
                hint="use the version of verack that made it",
            )
        del words["seal"]
        return msgspec.convert(words, Backup)
    except (ValueError, KeyError, TypeError, msgspec.ValidationError):
        raise _refused("what it says of itself can't be read") from None


def _refused(why: str) -> InvalidInput:
    return InvalidInput(
        f"this is no whole backup: {why}",
        hint="it is no file of `vectl cluster backup`, or was changed or cut; take another copy",
    )
