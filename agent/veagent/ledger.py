"""The agent's memory on disk: the last set of its host, and one small record per VE.

A set is durable before anything acts on it; a record before its VE is started for the first time (so that ids are
never given twice). The set's file is written beside its name, synced, renamed, and its folder synced; records are appended
to a file of their own (see `recordfile`). Checksums find what a torn or rotten disk left: it is set aside as `.bad`, the
kernel and the next set know better than it. Files of a newer schema are left alone, and the agent refuses to start on them.

Records are written in groups: what is put goes along with the next one that somebody waits for, or after 50 ms at most.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog
from google.protobuf.message import DecodeError

from veagent.record import VERecord
from veagent.recordfile import RecordFile
from veagent.sealed import Damaged, replace_file, seal, unseal
from veagent.storage.threads import to_end
from veapi import codec
from veapi.errors import RemoteFailed, VerackError
from veapi.model import HostSet, Uid
from veapi.v1 import session_pb2

log = structlog.get_logger()
RETRY_S = 1.0
_PATIENCE_S = 0.05


@dataclass(slots=True)
class _Batch:
    """None: the record goes."""

    changes: dict[Uid, VERecord | None] = field(default_factory=dict)
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Ledger:
    """Below `folder`: `set` and `records`."""

    def __init__(self, folder: Path, *, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._set_path = folder / "set"
        self._newest: dict[Uid, VERecord] = {}
        self._records = RecordFile(folder / "records", legacy=folder / "record")
        self._sleep = sleep
        self._saving = asyncio.Lock()
        self._open: _Batch | None = None
        self._writing: _Batch | None = None
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def load(self) -> tuple[HostSet | None, Mapping[Uid, VERecord]]:
        """The set (None: there is none) and all records. InvalidInput when a newer agent wrote them."""
        found, records = _load(self._set_path, _parse_set), self._records.load()
        self._newest = dict(records)
        return found, records

    async def save_set(self, host_set: HostSet) -> None:
        """Returns when it is durable. RemoteFailed when the disk refuses.

        One after the other: a caller that is cancelled waits for its write, or that would overtake the next one's.
        """
        body = codec.host_set_out(host_set).SerializeToString()
        try:
            async with self._saving:
                await to_end(replace_file, self._set_path, seal(b"set", body))
        except OSError as error:
            raise _refused(error) from None

    def put(self, record: VERecord) -> None:
        """Will be written within 50 ms; `sync` waits for it."""
        self._newest[record.uid] = record
        self._change(record.uid, record)

    def drop(self, uid: Uid) -> None:
        self._newest.pop(uid, None)
        self._change(uid, None)

    def newest(self, uid: Uid) -> VERecord | None:
        """The VE's record as it was put last."""
        return self._newest.get(uid)

    async def sync(self) -> None:
        """Returns when all that was put before is durable. RemoteFailed when the disk refuses; it is tried again."""
        batch = self._open or self._writing
        if batch is not None:
            self._hurry.set()
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
            await self._hurried()
            batch, self._open = self._open, None
            self._hurry.clear()
            self._writing = batch
            error = await asyncio.to_thread(_write_batch, self._records, dict(batch.changes))
            self._writing = None
            if error is None:
                batch.done.set_result(None)
            else:
                await self._keep_for_later(batch, error)

    async def _hurried(self) -> None:
        """Until somebody waits for what is put, or for a moment."""
        if not self._hurry.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    await self._hurry.wait()

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


def _write_batch(records: RecordFile, changes: Mapping[Uid, VERecord | None]) -> OSError | None:
    """In a thread."""
    try:
        records.write(changes)
    except OSError as error:
        return error
    return None


def _parse_set(body: bytes) -> HostSet:
    try:
        return codec.host_set_in(session_pb2.HostSet.FromString(body))
    except (DecodeError, ValueError, KeyError) as error:
        raise Damaged(str(error)) from None


T = TypeVar("T")


def _load(path: Path, parse: Callable[[bytes], T]) -> T | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return parse(unseal(content)[1])
    except Damaged as error:
        log.error("ledger file damaged, set aside", path=str(path), error=str(error))  # noqa: TRY400
        path.rename(path.with_name(path.name + ".bad"))
        return None
