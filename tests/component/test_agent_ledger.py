"""What is on disk after writes that were torn, refused or overtaken."""

import asyncio
import errno
import os
import threading
from pathlib import Path

import msgspec
import pytest

from kit.agenthost import U1, U2, entry, host_set
from kit.eventually import eventually
from kit.manualclock import ManualClock
from veagent.ledger import Ledger
from veagent.record import VERecord, first_record
from veagent.sealed import seal
from veapi.errors import InvalidInput, RemoteFailed
from veapi.model import Uid

ONE = first_record(entry(U1), 1_000_000)
TWO = first_record(entry(U2), 1_065_536)


def open_ledger(folder: Path, clock: ManualClock | None = None) -> Ledger:
    ledger = Ledger(folder, sleep=(clock or ManualClock()).sleep)
    ledger.load()
    return ledger


def loaded(folder: Path) -> dict[Uid, VERecord]:
    return dict(open_ledger(folder).load()[1])


async def test_what_was_synced_is_found_again(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.put(ONE)
    ledger.put(TWO)
    await ledger.sync()
    await ledger.save_set(host_set(3, entry()))
    assert loaded(tmp_path) == {U1: ONE, U2: TWO}
    assert open_ledger(tmp_path).load()[0] == host_set(3, entry())
    ledger.drop(U1)
    await ledger.sync()
    assert loaded(tmp_path) == {U2: TWO}


async def test_the_newest_of_many_puts_counts(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    for restarts in range(50):
        ledger.put(msgspec.structs.replace(ONE, restarts=restarts))
        await asyncio.sleep(0)
    await ledger.sync()
    assert loaded(tmp_path)[U1].restarts == 49


async def test_a_record_that_can_not_be_written_keeps_no_other_from_it(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.put(ONE)
    await ledger.sync()
    ledger.put(msgspec.structs.replace(ONE, name="\udcff"))
    ledger.put(TWO)
    await asyncio.wait_for(ledger.sync(), 5)
    assert loaded(tmp_path) == {U1: ONE, U2: TWO}


@pytest.mark.parametrize("kept", [0, 3, 20, 60, -1])
async def test_a_torn_set_is_set_aside(tmp_path: Path, kept: int) -> None:
    ledger = open_ledger(tmp_path)
    ledger.put(ONE)
    await ledger.sync()
    await ledger.save_set(host_set(1, entry()))
    path = tmp_path / "set"
    path.write_bytes(path.read_bytes()[:kept])
    host, records = open_ledger(tmp_path).load()
    assert host is None
    assert records == {U1: ONE}
    assert path.with_name("set.bad").exists()
    assert not path.exists()


@pytest.mark.parametrize("lost", [1, 2, 100, 399])
async def test_a_torn_end_of_the_records_costs_the_last_change_alone(
    tmp_path: Path, lost: int
) -> None:
    ledger = open_ledger(tmp_path)
    for record in (ONE, TWO, msgspec.structs.replace(TWO, restarts=1)):
        ledger.put(record)
        await ledger.sync()
    path = tmp_path / "records"
    torn = path.read_bytes()[:-lost]
    path.write_bytes(torn)
    newer = open_ledger(tmp_path)
    assert loaded(tmp_path) in (
        {U1: ONE, U2: TWO},
        {U1: ONE, U2: msgspec.structs.replace(TWO, restarts=1)},
    )
    assert (tmp_path / "records.bad").read_bytes() == torn
    newer.put(msgspec.structs.replace(ONE, restarts=2))
    await newer.sync()
    assert loaded(tmp_path)[U1].restarts == 2


@pytest.mark.parametrize("where", [0, 5, 30, 70, 200])
async def test_a_flipped_bit_costs_its_record_alone(tmp_path: Path, where: int) -> None:
    ledger = open_ledger(tmp_path)
    for record in (ONE, TWO):
        ledger.put(record)
        await ledger.sync()
    path = tmp_path / "records"
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    assert loaded(tmp_path) == {U2: TWO}
    assert (tmp_path / "records.bad").read_bytes() == content
    assert loaded(tmp_path) == {U2: TWO}


async def test_a_rewrite_that_was_cut_leaves_the_older_file(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.put(ONE)
    await ledger.sync()
    (tmp_path / "records.tmp").write_bytes(b"verack-rec")
    assert loaded(tmp_path) == {U1: ONE}


async def test_the_file_of_records_does_not_grow_with_the_changes(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    for restarts in range(2000):
        ledger.put(msgspec.structs.replace(ONE, restarts=restarts))
        if restarts % 2:
            ledger.drop(U2)
        else:
            ledger.put(TWO)
        await ledger.sync()
    assert (tmp_path / "records").stat().st_size <= 1 << 18
    assert loaded(tmp_path) == {U1: msgspec.structs.replace(ONE, restarts=1999)}


async def test_records_of_earlier_versions_are_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "record"
    folder.mkdir()
    (folder / U1).write_bytes(seal(b"record", msgspec.json.encode(ONE)))
    (folder / f"{U2}.tmp").write_bytes(b"verack-rec")
    assert loaded(tmp_path) == {U1: ONE}
    assert not folder.exists()
    assert loaded(tmp_path) == {U1: ONE}


async def test_what_is_put_is_written_though_nobody_waits(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.put(ONE)
    await eventually((tmp_path / "records").exists)
    assert loaded(tmp_path) == {U1: ONE}


async def test_a_newer_schema_is_left_alone_and_refused(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.put(ONE)
    await ledger.sync()
    path = tmp_path / "records"
    newer = path.read_bytes().replace(b"verack-record 1 ", b"verack-record 2 ", 1)
    path.write_bytes(newer)
    with pytest.raises(InvalidInput, match="schema 2"):
        loaded(tmp_path)
    assert path.read_bytes() == newer


@pytest.mark.parametrize("records", [(), (ONE, TWO)], ids=["first", "later"])
async def test_a_disk_that_refuses_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: tuple[VERecord, ...]
) -> None:
    clock = ManualClock()
    ledger = open_ledger(tmp_path, clock)
    for record in records:
        ledger.put(record)
    await ledger.sync()
    real = os.fsync
    full = True

    def fsync(fd: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    ledger.put(ONE)
    with pytest.raises(RemoteFailed, match="No space left"):
        await ledger.sync()
    with pytest.raises(RemoteFailed, match="No space left"):
        await ledger.save_set(host_set(1))
    ledger.put(TWO)
    full = False
    await clock.advance(1.0)
    await ledger.sync()
    assert loaded(tmp_path) == {U1: ONE, U2: TWO}
    assert not (tmp_path / "records.bad").exists()


async def test_a_save_that_is_cancelled_never_overtakes_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger(tmp_path)
    real, began, go_on = os.fsync, threading.Event(), threading.Event()

    def slow_once(fd: int) -> None:
        if not began.is_set():
            began.set()
            assert go_on.wait(10)
        real(fd)

    monkeypatch.setattr(os, "fsync", slow_once)
    older = asyncio.create_task(ledger.save_set(host_set(1)))
    await eventually(began.is_set)
    older.cancel()
    newer = asyncio.create_task(ledger.save_set(host_set(2, entry())))
    await asyncio.wait([older, newer], timeout=0.2)  # what is too early has come by then
    early = newer.done()
    go_on.set()
    await asyncio.gather(older, newer, return_exceptions=True)
    assert older.cancelled()
    assert not early
    assert open_ledger(tmp_path).load()[0] == host_set(2, entry())
