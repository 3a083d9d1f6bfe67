"""All records of a host in one file, to which changes are appended: one write and one sync for many VEs.

A file for each record would cost a new inode, two syncs and a rename for every change, more than half a millisecond of
CPU. The file is written anew, with what counts alone, once it has grown well beyond that, and after any write that failed
(what of it is on disk is not known then). Lines that a torn or rotten disk left are skipped, the file is kept as `.bad`.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import structlog

from veagent.record import VERecord
from veagent.sealed import MAGIC, Damaged, append, replace_file, seal, unseal
from veapi.model import Uid

log = structlog.get_logger()
_RECORD = b"record"
_GONE = b"gone"
_LEAST_LIMIT_BYTES = 1 << 18
_GROWTH = 4


class RecordFile:
    """Not for two threads at once. `legacy`: the folder in which earlier versions had a file for each record."""

    def __init__(self, path: Path, *, legacy: Path) -> None:
        self._path = path
        self._legacy = legacy
        self._live: dict[Uid, bytes] = {}
        self._size = 0
        self._limit = 0
        self._whole = False
        """What the file holds is known, so that more may be appended."""

    def load(self) -> dict[Uid, VERecord]:
        """What counts, by VE. InvalidInput when a newer agent wrote it: then nothing is touched."""
        content = self._path.read_bytes() if self._path.exists() else b""
        records: dict[Uid, VERecord] = {}
        damaged = 0
        for entry in [*self._legacy_entries(), *_entries(content)]:
            try:
                _take(entry, records)
            except Damaged as error:
                log.error("record damaged", path=str(self._path), error=str(error))  # noqa: TRY400
                damaged += 1
        self._live = {uid: _line(record) for uid, record in records.items()}
        self._size, self._limit = len(content), self._limit_bytes()
        self._whole = bool(content) and not damaged
        if damaged or self._legacy.exists():
            self._tidy(content if damaged else b"")
        return records

    def _tidy(self, bad: bytes) -> None:
        """On a full disk things stay as they are: the next write tries again, with all that counts."""
        try:
            if bad:
                self._path.with_name(self._path.name + ".bad").write_bytes(bad)
            self._rewrite()
        except OSError as error:
            log.warning("records not written anew", path=str(self._path), error=str(error))
        else:
            shutil.rmtree(self._legacy, ignore_errors=True)

    def write(self, changes: Mapping[Uid, VERecord | None]) -> None:
        """Returns when they are durable; None: the record goes. OSError: nothing is known of them, write them again."""
        added = b"".join(self._change(uid, record) for uid, record in changes.items())
        if not self._whole or self._size + len(added) > self._limit:
            self._rewrite()
            return
        self._whole = False
        append(self._path, added)
        self._whole = True
        self._size += len(added)

    def _change(self, uid: Uid, record: VERecord | None) -> bytes:
        if record is None:
            self._live.pop(uid, None)
            return seal(_GONE, uid.encode()) + b"\n"
        try:
            self._live[uid] = line = _line(record)
        except (ValueError, TypeError, OverflowError) as error:
            # A mistake of ours in one record: the others' must not wait for ever, and its last state stands.
            log.error("record can't be written", ve=uid, error=str(error))  # noqa: TRY400
            return b""
        return line

    def _rewrite(self) -> None:
        self._whole = False
        content = b"".join(self._live.values())
        replace_file(self._path, content)
        self._whole = True
        self._size = len(content)
        self._limit = self._limit_bytes()

    def _limit_bytes(self) -> int:
        return max(_LEAST_LIMIT_BYTES, _GROWTH * sum(map(len, self._live.values())))

    def _legacy_entries(self) -> Iterator[bytes]:
        if self._legacy.exists():
            for path in sorted(self._legacy.iterdir()):
                if path.suffix not in (".tmp", ".bad"):
                    yield path.read_bytes()


def _line(record: VERecord) -> bytes:
    """Two lines in fact: the JSON has no line breaks of its own, so that what follows a damage is found again."""
    return seal(_RECORD, msgspec.json.encode(record)) + b"\n"


def _entries(content: bytes) -> Iterator[bytes]:
    """Whole or damaged ones, each with its header if it has one."""
    entry: list[bytes] = []
    *lines, rest = content.split(b"\n")
    for line in lines:
        if line.startswith(MAGIC) or len(entry) == 2:
            if entry:
                yield b"\n".join(entry)
            entry = []
        entry.append(line)
    if entry:
        yield b"\n".join(entry)
    if rest:
        yield rest


def _take(entry: bytes, records: dict[Uid, VERecord]) -> None:
    kind, body = unseal(entry)
    if kind == _GONE:
        records.pop(Uid(body.decode(errors="replace")), None)
        return
    try:
        record = msgspec.json.decode(body, type=VERecord)
    except msgspec.DecodeError as error:
        raise Damaged(str(error)) from None
    records[record.uid] = record
