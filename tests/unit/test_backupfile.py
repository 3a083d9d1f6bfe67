"""Backup files: whole ones tell what they are, and no other is taken for one."""

import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veapi import backupfile
from veapi.backupfile import Backup, Writer
from veapi.errors import InvalidInput


def snapshot_of(database: bytes) -> bytes:
    """As etcd gives it."""
    return database + hashlib.sha256(database).digest()


def about(snapshot: bytes, **changed) -> Backup:
    fields = {
        "cluster": "rack",
        "incarnation": 3,
        "revision": 42,
        "taken_at": 1_700_000_000,
        "version": "0.1.0",
        "size_bytes": len(snapshot),
        "sha256": hashlib.sha256(snapshot).hexdigest(),
    }
    return Backup(**{**fields, **changed})


def made(snapshot: bytes, piece: int = 7) -> bytes:
    out = io.BytesIO()
    writer = Writer(out)
    for start in range(0, len(snapshot), piece):
        writer.add(snapshot[start : start + piece])
    writer.end(about(snapshot))
    return out.getvalue()


DATABASE = bytes(range(256)) * 5
GOOD = made(snapshot_of(DATABASE))


@given(st.binary(min_size=1, max_size=2000), st.integers(min_value=1, max_value=700))
def test_what_was_written_is_read_again_whole(database: bytes, piece: int) -> None:
    snapshot, out = snapshot_of(database), io.BytesIO()
    assert backupfile.read(io.BytesIO(made(snapshot, piece)), snapshot_to=out) == about(snapshot)
    assert out.getvalue() == snapshot


def test_any_tar_takes_it_apart() -> None:
    with tarfile.open(fileobj=io.BytesIO(GOOD)) as tar:
        assert tar.getnames() == ["snapshot.db", "backup.json"]
        inside = tar.extractfile("snapshot.db")
        assert inside is not None
        assert inside.read() == snapshot_of(DATABASE)


@given(st.integers(min_value=0, max_value=len(GOOD) - 1), st.integers(min_value=1, max_value=255))
def test_a_single_changed_byte_anywhere_is_refused(at: int, by: int) -> None:
    spoilt = bytearray(GOOD)
    spoilt[at] ^= by
    with pytest.raises(InvalidInput, match=r"no whole backup|newer than"):
        backupfile.read(io.BytesIO(bytes(spoilt)))


@given(st.integers(min_value=0, max_value=len(GOOD) - 1))
def test_a_cut_one_is_refused(size: int) -> None:
    with pytest.raises(InvalidInput, match="no whole backup"):
        backupfile.read(io.BytesIO(GOOD[:size]))


def test_a_longer_one_is_refused() -> None:
    with pytest.raises(InvalidInput, match="was changed"):
        backupfile.read(io.BytesIO(GOOD + b"\0"))


@given(st.binary(max_size=3000))
def test_what_is_no_backup_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="no whole backup"):
        backupfile.read(io.BytesIO(data))


def test_a_snapshot_whose_own_sum_is_wrong_becomes_no_backup() -> None:
    torn = DATABASE + bytes(32)
    with pytest.raises(InvalidInput, match="etcd's own sum"):
        made(torn)


def test_a_snapshot_that_is_not_all_of_what_was_sent_becomes_no_backup() -> None:
    snapshot, out = snapshot_of(DATABASE), io.BytesIO()
    writer = Writer(out)
    writer.add(snapshot[:-1])
    with pytest.raises(InvalidInput, match="cut or changed"):
        writer.end(about(snapshot))
