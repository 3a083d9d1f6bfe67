"""The agent's memory on disk: the last set of its host, and one small record per VE.

A set is durable before anything acts on it; a record before its VE is started for the first time (so that ids are
never given twice). Every file is written beside its name, synced, renamed, and its folder synced; a checksum in its
first line finds what a torn or rotten disk left. Such a file is set aside as `.bad`: the kernel and the next set know
better than it. Files of a newer schema are left alone, and the agent refuses to start on them.

Records are written in groups: what is put while a write is under way goes along with the next one.
"""

import asyncio
import os
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
from google.protobuf.message import DecodeError

from veagent.record import VERecord
from veagent.storage.threads import to_end
from veapi import codec
from veapi.errors import InvalidInput, RemoteFailed, VerackError
from veapi.model import HostSet, Uid
from veapi.v1 import session_pb2

log = structlog.get_logger()
SCHEMA = 1
RETRY_S = 1.0
_MAGIC = b"verack"
_HEADER_LIMIT_BYTES = 80


class Damaged(Exception):
    """What a file holds is not what was written."""


@dataclass(slots=True)
class _Batch:
    """None: the record goes."""

    changes: dict[Uid, VERecord | None] = field(default_factory=dict)
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Ledger:
    """Below `folder`: `set`, and `record/<uid>`."""

    def __init__(self, folder: Path, *, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._set_path = folder / "set"
        self._records_path = folder / "record"
        self._sleep = sleep
        self._saving = asyncio.Lock()
        self._open: _Batch | None = None
        self._writing: _Batch | None = None
        self._task: asyncio.Task[None] | None = None

    def load(self) -> tuple[HostSet | None, Mapping[Uid, VERecord]]:
        """The set (None: there is none) and all records. InvalidInput when a newer agent wrote them."""
        self._records_path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _load(self._set_path, _parse_set), self._load_records()

    def _load_records(self) -> dict[Uid, VERecord]:
        records = {}
        for path in sorted(self._records_path.iterdir()):
            if path.suffix == ".tmp":
                path.unlink()
            if path.suffix in (".tmp", ".bad"):
                continue
            record = _load(path, _parse_record)
            if record is not None:
                records[record.uid] = record
        return records

    async def save_set(self, host_set: HostSet) -> None:
        """Returns when it is durable. RemoteFailed when the disk refuses.

        One after the other: a caller that is cancelled waits for its write, or that would overtake the next one's.
        """
        body = codec.host_set_out(host_set).SerializeToString()
        try:
            async with self._saving:
                await to_end(_replace_file, self._set_path, _seal(b"set", body))
        except OSError as error:
            raise _refused(error) from None

    def put(self, record: VERecord) -> None:
        """Will be written soon; `sync` waits for it."""
        self._change(record.uid, record)

    def drop(self, uid: Uid) -> None:
        self._change(uid, None)

    async def sync(self) -> None:
        """Returns when all that was put before is durable. RemoteFailed when the disk refuses; it is tried again."""
        batch = self._open or self._writing
        if batch is not None:
            await asyncio.shield(batch.done)

    async def aclose(self) -> None:
        """Writes what is left; gives up on a disk that refuses."""
        try:
            await self.sync()
        except VerackError as error:
            log.error("ledger not saved", error=error.message)  # noqa: TRY400
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _change(self, uid: Uid, record: VERecord | None) -> None:
        if self._open is None:
            self._open = _Batch()
        self._open.changes[uid] = record
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_all(), name="ledger")

    async def _write_all(self) -> None:
        while self._open is not None:
            batch, self._open = self._open, None
            self._writing = batch
            error = await asyncio.to_thread(_write_batch, self._records_path, dict(batch.changes))
            self._writing = None
            if error is None:
                batch.done.set_result(None)
            else:
                await self._keep_for_later(batch, error)

    async def _keep_for_later(self, batch: _Batch, error: OSError) -> None:
        log.error("ledger write failed", error=str(error))
        newer = self._open
        self._open = _Batch(dict(batch.changes)) if newer is None else newer
        for uid, record in batch.changes.items():
            self._open.changes.setdefault(uid, record)
        batch.done.set_exception(_refused(error))
        batch.done.exception()  # retrieved: perhaps nobody waits for it
        await self._sleep(RETRY_S)


def _refused(error: OSError) -> RemoteFailed:
    return RemoteFailed(
        f"the host can't write its ledger: {error.strerror or error}",
        hint="free or repair the disk of the agent's state folder",
    )


def _write_batch(folder: Path, changes: Mapping[Uid, VERecord | None]) -> OSError | None:
    """In a thread: every file is synced on its own, the folder once."""
    try:
        for uid, record in changes.items():
            if record is None:
                (folder / uid).unlink(missing_ok=True)
            else:
                _write_beside(folder / uid, _seal(b"record", msgspec.json.encode(record)))
        _sync_folder(folder)
    except OSError as error:
        return error
    return None


def _replace_file(path: Path, content: bytes) -> None:
    _write_beside(path, content)
    _sync_folder(path.parent)


def _write_beside(path: Path, content: bytes) -> None:
    beside = path.with_name(path.name + ".tmp")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    beside.rename(path)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _seal(kind: bytes, body: bytes) -> bytes:
    return b"%s-%s %d %08x %d\n%s" % (_MAGIC, kind, SCHEMA, zlib.crc32(body), len(body), body)


def _unseal(content: bytes) -> bytes:
    header, newline, body = content.partition(b"\n")
    fields = header[:_HEADER_LIMIT_BYTES].split(b" ")
    if not newline or len(fields) != 4 or not fields[0].startswith(_MAGIC):
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
    return body


def _parse_set(body: bytes) -> HostSet:
    try:
        return codec.host_set_in(session_pb2.HostSet.FromString(body))
    except (DecodeError, ValueError, KeyError) as error:
        raise Damaged(str(error)) from None


def _parse_record(body: bytes) -> VERecord:
    try:
        return msgspec.json.decode(body, type=VERecord)
    except msgspec.DecodeError as error:
        raise Damaged(str(error)) from None


T = TypeVar("T")


def _load(path: Path, parse: Callable[[bytes], T]) -> T | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return parse(_unseal(content))
    except Damaged as error:
        log.error("ledger file damaged, set aside", path=str(path), error=str(error))  # noqa: TRY400
        path.rename(path.with_name(path.name + ".bad"))
        return None
