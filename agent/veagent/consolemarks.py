"""When a console said what: marks beside its log, for `logs --since`.

LXC writes the log, without times. So its growth is watched: a mark says that what lies between two offsets of a file
was written at a time. An event at most once a second for each VE: its watch fires once and is set again a second later, so
a VE that floods its console costs no more than one that speaks now and then, and one that is silent costs nothing.

A file is told by its inode number, as LXC renames a full `console` to `console.1`. Numbers are used again: marks of
files that are no more are dropped before the next one begins.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from veagent.inotify import DELETED_SELF, MODIFY, MOVED_SELF, ONESHOT, Inotify
from veapi.clock import Clock
from veapi.model import Uid

log = structlog.get_logger()
APART_S = 1.0
MARKS_KEPT = 2048
_LINE_LIMIT_BYTES = 100


@dataclass(frozen=True, slots=True)
class Mark:
    """Bytes `start` to `end` of the file `inode` were written at `time` (Unix seconds), to the second."""

    inode: int
    start: int
    end: int
    time: float

    def line(self) -> str:
        return f"{self.inode} {self.start} {self.end} {self.time:.3f}\n"


def marks_of(log_path: Path) -> Path:
    """Where the marks of a console's log are."""
    return log_path.with_name(f"{log_path.name}.times")


def rotated(log_path: Path) -> Path:
    """The log before this one."""
    return log_path.with_name(f"{log_path.name}.1")


def read_marks(log_path: Path) -> list[Mark]:
    """Oldest first; what can't be read is left out."""
    try:
        with marks_of(log_path).open("rb") as file:
            data = file.read(2 * MARKS_KEPT * _LINE_LIMIT_BYTES)
    except OSError:
        return []
    return [mark for line in data.splitlines() if (mark := _parsed(line)) is not None]


def offset_since(
    marks: list[Mark], *, inode: int, size: int, changed_at: float, since: float
) -> int:
    """Where in a file begins what was written at `since` or later. Without marks its time of change decides for all of it."""
    own = [mark for mark in marks if mark.inode == inode]
    if not own:
        return 0 if changed_at >= since else size
    found = next((mark.start for mark in own if mark.time >= since), own[-1].end)
    return min(found, size)


def thinned(marks: list[Mark]) -> list[Mark]:
    """Every second one of the older half: the newer stay exact."""
    half = len(marks) // 2
    return marks[:half:2] + marks[half:]


class ConsoleMarks:
    """Keeps the marks of all consoles that are watched."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._inotify: Inotify | None = None
        self._consoles: dict[Uid, _Console] = {}
        self._watches: dict[int, Uid] = {}

    def watch(self, uid: Uid, log_path: Path) -> None:
        """From now on; what was written since the last mark is marked with the file's time of change. Again: anew."""
        self.unwatch(uid)
        self._consoles[uid] = console = _Console(log_path)
        self._try(console.resume)
        self._arm(uid, console)

    def unwatch(self, uid: Uid) -> None:
        """Marks what was written to the end. Nothing when it is not watched."""
        console = self._consoles.pop(uid, None)
        if console is None:
            return
        if console.timer is not None:
            console.timer.cancel()
        if self._inotify is not None and self._watches.pop(console.watch, None) is not None:
            self._inotify.remove(console.watch)
        self._try(console.look, self._clock.wall())

    def close(self) -> None:
        for uid in tuple(self._consoles):
            self.unwatch(uid)
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _arm(self, uid: Uid, console: "_Console") -> None:
        """Waits for the next change; when it came meanwhile, or the file is not there, looks again in a second."""
        console.timer = None
        if self._inotify is None:
            self._inotify = Inotify(self._happened)
        try:
            mask = MODIFY | MOVED_SELF | DELETED_SELF | ONESHOT
            console.watch = self._inotify.add(console.path, mask)
        except OSError:
            self._look_later(uid, console)
            return
        self._watches[console.watch] = uid
        if self._try(console.look, self._clock.wall()):
            self._look_later(uid, console)

    def _happened(self, number: int) -> None:
        uid = self._watches.pop(number, None)
        console = self._consoles.get(uid) if uid is not None else None
        if uid is not None and console is not None and console.timer is None:
            self._try(console.look, self._clock.wall())
            self._look_later(uid, console)

    def _look_later(self, uid: Uid, console: "_Console") -> None:
        loop = asyncio.get_running_loop()
        console.timer = loop.call_later(APART_S, self._arm, uid, console)

    @staticmethod
    def _try(act: Callable[..., bool], *args: float) -> bool:
        """Marks are a convenience: a full disk costs them, and nothing else."""
        try:
            return act(*args)
        except OSError as error:
            log.debug("console not marked", error=str(error))
            return False


@dataclass(slots=True)
class _Console:
    path: Path
    inode: int = 0
    end: int = 0
    count: int = 0
    watch: int = -1
    timer: asyncio.TimerHandle | None = field(default=None)

    def resume(self) -> bool:
        """Takes up where the marks end."""
        marks = read_marks(self.path)
        if marks:
            self.inode, self.end, self.count = marks[-1].inode, marks[-1].end, len(marks)
        found = self.path.stat()
        return self.look(found.st_mtime) if found.st_size else False

    def look(self, time: float) -> bool:
        """Marks what was added; whether there was something."""
        found = self.path.stat()
        if found.st_ino == self.inode and found.st_size == self.end:
            return False
        marks = []
        if found.st_ino != self.inode or found.st_size < self.end:
            marks += self._left_behind(found.st_ino, time)
            self._drop_others(found.st_ino)
            self.inode, self.end = found.st_ino, 0
        if found.st_size > self.end:
            marks.append(Mark(self.inode, self.end, found.st_size, time))
        self.end = found.st_size
        self._append(marks)
        return bool(marks)

    def _left_behind(self, inode: int, time: float) -> list[Mark]:
        """What was still added to the last file before it was full."""
        try:
            before = rotated(self.path).stat()
        except OSError:
            return []
        if before.st_ino != self.inode or inode == self.inode or before.st_size <= self.end:
            return []
        return [Mark(self.inode, self.end, before.st_size, time)]

    def _drop_others(self, fresh: int) -> None:
        """Marks of files that are gone; the number of the new one may be that of such a file."""
        try:
            kept = rotated(self.path).stat().st_ino
        except OSError:
            kept = 0
        marks = [m for m in read_marks(self.path) if m.inode == kept and m.inode != fresh]
        self._write(marks)

    def _append(self, marks: list[Mark]) -> None:
        if not marks:
            return
        with marks_of(self.path).open("a") as file:
            file.write("".join(mark.line() for mark in marks))
        self.count += len(marks)
        if self.count > MARKS_KEPT:
            self._write(thinned(read_marks(self.path)))

    def _write(self, marks: list[Mark]) -> None:
        beside = self.path.with_name(f"{self.path.name}.times.new")
        beside.write_text("".join(mark.line() for mark in marks))
        beside.replace(marks_of(self.path))
        self.count = len(marks)


def _parsed(line: bytes) -> Mark | None:
    try:
        inode, start, end, time = line.split()
        return Mark(int(inode), int(start), int(end), float(time))
    except ValueError:
        return None
