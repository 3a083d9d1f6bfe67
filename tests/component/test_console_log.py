import asyncio
import os
from pathlib import Path

import pytest

from kit.eventually import eventually
from kit.manualclock import ManualClock
from veagent.consolelog import read_console
from veagent.consolemarks import (
    MARKS_KEPT,
    ConsoleMarks,
    Mark,
    marks_of,
    offset_since,
    read_marks,
    rotated,
    thinned,
)
from veapi.model import Uid

UID = Uid("u1")


async def read(path: Path, **options) -> bytes:
    return b"".join([piece async for piece in read_console(path, follow=False, **options)])


def rotate(path: Path, fresh: bytes = b"") -> None:
    """As LXC does."""
    path.replace(rotated(path))
    path.write_bytes(fresh)


async def test_a_console_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert await read(tmp_path / "none") == b""


async def test_both_files_are_read_the_older_first(tmp_path: Path) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"1\n2\n")
    rotate(path, b"3\n4\n")
    assert await read(path) == b"1\n2\n3\n4\n"


@pytest.mark.parametrize(
    ("lines", "found"),
    [(1, b"4\n"), (2, b"3\n4\n"), (3, b"2\n3\n4\n"), (9, b"1\n2\n3\n4\n")],
)
async def test_the_tail_goes_over_both_files(tmp_path: Path, lines: int, found: bytes) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"1\n2\n")
    rotate(path, b"3\n4\n")
    assert await read(path, tail=lines) == found


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Follower:
    def __init__(self, path: Path) -> None:
        self.seen = b""
        self._task = asyncio.create_task(self._read(path))

    async def _read(self, path: Path) -> None:
        async for piece in read_console(path, follow=True):
            self.seen += piece

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def follower(tmp_path: Path):
    made = Follower(tmp_path / "console")
    yield made
    await made.aclose()


async def test_who_follows_sees_what_comes_through_rotations(
    tmp_path: Path, follower: Follower
) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"a\n")
    await eventually(lambda: follower.seen == b"a\n")
    with path.open("ab") as held:
        rotate(path, b"c\n")
        held.write(b"b\n")
        held.flush()
        await eventually(lambda: follower.seen == b"a\nb\nc\n")
    rotate(path, b"d\n")
    await eventually(lambda: follower.seen.endswith(b"d\n"))
    path.write_bytes(b"")
    await eventually(lambda: path.stat().st_size == 0)
    await asyncio.sleep(0.1)
    with path.open("ab") as held:
        held.write(b"e\n")
    await eventually(lambda: follower.seen == b"a\nb\nc\nd\ne\n")


async def test_two_rotations_between_two_looks_lose_nothing(
    tmp_path: Path, follower: Follower
) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"a\n")
    await eventually(lambda: follower.seen == b"a\n")
    rotate(path, b"b\n")
    rotate(path, b"c\n")
    await eventually(lambda: follower.seen == b"a\nb\nc\n")


async def test_who_follows_a_silent_console_costs_no_descriptors_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"a\n")
    before = open_descriptors()
    made = Follower(path)
    await eventually(lambda: made.seen == b"a\n")
    await made.aclose()
    assert open_descriptors() == before


# Marks.


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def marks(clock: ManualClock):
    made = ConsoleMarks(clock)
    yield made
    made.close()


MARKS = [Mark(7, 0, 10, 100.0), Mark(7, 10, 30, 200.0), Mark(8, 0, 5, 300.0)]


@pytest.mark.parametrize(
    ("inode", "since", "offset"),
    [
        (7, 0.0, 0),
        (7, 100.0, 0),
        (7, 100.1, 10),
        (7, 200.0, 10),
        (7, 250.0, 30),
        (8, 250.0, 0),
        (8, 301.0, 5),
        (9, 400.0, 0),
        (9, 401.0, 40),
    ],
)
def test_since_begins_at_the_first_mark_of_that_time(inode: int, since: float, offset: int) -> None:
    assert offset_since(MARKS, inode=inode, size=40, changed_at=400.0, since=since) == offset


def test_thinning_keeps_the_newer_half_exact() -> None:
    many = [Mark(1, at, at + 1, float(at)) for at in range(8)]
    assert [mark.start for mark in thinned(many)] == [0, 2, 4, 5, 6, 7]


async def test_what_is_added_is_marked_once_a_second_at_most(
    tmp_path: Path, clock: ManualClock, marks: ConsoleMarks
) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"")
    marks.watch(UID, path)
    with path.open("ab", buffering=0) as file:
        file.write(b"one\n")
        await eventually(lambda: len(read_marks(path)) == 1)
        for _ in range(50):
            file.write(b"two\n")
            await asyncio.sleep(0.001)
        assert len(read_marks(path)) == 1
        await eventually(lambda: len(read_marks(path)) == 2)
    inode = path.stat().st_ino
    first, second = read_marks(path)
    assert (first.inode, first.start, first.end) == (inode, 0, 4)
    assert (second.start, second.end) == (4, 204)


async def test_a_rotation_is_marked_and_marks_of_gone_files_go(
    tmp_path: Path, marks: ConsoleMarks
) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"a\n")
    marks.watch(UID, path)
    old = path.stat().st_ino
    rotate(path, b"new\n")
    fresh = path.stat().st_ino
    await eventually(lambda: any(mark.inode == fresh for mark in read_marks(path)), timeout_s=5)
    assert {mark.inode for mark in read_marks(path)} == {old, fresh}
    marks.unwatch(UID)
    rotated(path).unlink()
    rotate(path, b"newer\n")
    marks.watch(UID, path)
    assert {mark.inode for mark in read_marks(path)} == {fresh, path.stat().st_ino}


async def test_what_was_written_while_nobody_watched_has_the_time_of_its_file(
    tmp_path: Path, clock: ManualClock, marks: ConsoleMarks
) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"before\n")
    os.utime(path, (1000.0, 1000.0))
    marks.watch(UID, path)
    marks.unwatch(UID)
    with path.open("ab") as file:
        file.write(b"meanwhile\n")
    os.utime(path, (5000.0, 5000.0))
    marks.watch(UID, path)
    last = read_marks(path)[-1]
    assert (last.start, last.end, last.time) == (7, 17, 5000.0)
    assert await read(path, since=4999.0) == b"before\nmeanwhile\n"[last.start :]


async def test_marks_never_grow_without_end_and_rubbish_in_them_is_passed_over(
    tmp_path: Path, marks: ConsoleMarks
) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"x" * 10)
    inode = path.stat().st_ino
    lines = "".join(Mark(inode, 0, 10, float(at)).line() for at in range(MARKS_KEPT))
    marks_of(path).write_text("rubbish\n1 2\n" + lines)
    with path.open("ab") as file:
        file.write(b"more\n")
    marks.watch(UID, path)
    kept = read_marks(path)
    assert len(kept) < MARKS_KEPT
    assert kept[-1].end == 15


async def test_a_console_that_is_not_there_yet_is_watched_once_it_is(
    tmp_path: Path, marks: ConsoleMarks
) -> None:
    path = tmp_path / "console"
    marks.watch(UID, path)
    path.write_bytes(b"hello\n")
    await eventually(lambda: len(read_marks(path)) == 1, timeout_s=5)
