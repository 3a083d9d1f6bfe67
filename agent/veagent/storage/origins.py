"""Of whom VEs are clones: `snap/<clone>/source`, a line for each VE whose bytes it may share. Needed for simple quotas alone.

They leave what a clone shares on the bill of who wrote it, and the writer may be deleted: then nobody would pay, and a VE that
is cloned and deleted again and again could fill the pool. So a deleted VE's group stays as long as there is a clone; what
is left in it once btrfs has cleaned up is what others hold, and goes to the clone's group (`quotas.hand_over`, `tidy`).
The first clone pays; when it is deleted, the next: what is noted of a VE that goes is noted of its heir too.
"""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from veagent.storage import devices
from veagent.storage.quotas import group_of

_NOTE = "source"
_LIMIT_BYTES = 64 << 10
_MOST = 256
"""Of those that were, the newest: so long a line of clones of clones is looked after."""


class Origins:
    """Of all VEs of the pool. Blocks: call it in a thread. Safe to call for several VEs at once."""

    def __init__(self, snapshots: Path) -> None:
        self._folder = snapshots
        self._lock = threading.Lock()

    def note(self, clone: str, source: str) -> None:
        """Before the copy is made: a death in between only leaves a note."""
        with self._lock:
            (self._folder / clone).mkdir(mode=0o700, exist_ok=True)
            self._write(clone, (source, *self._sources(source), *self._sources(clone)))

    def forget(self, clone: str) -> None:
        """It shares nothing any more."""
        with self._lock:
            self._note(clone).unlink(missing_ok=True)

    def bequeath(self, uid: str) -> bool:
        """Before it is deleted, and its note with it. False: no clone may hold what it pays for."""
        with self._lock:
            heir = self._heir(uid)
            if heir is not None:
                self._write(heir, (uid, *self._sources(uid), *self._sources(heir)))
        return heir is not None

    def only_of(self, clone: str) -> set[str]:
        """Those of whom no other is a clone."""
        with self._lock:
            mine = set(self._sources(clone))
            return mine.difference(
                *(self._sources(other) for other in self._clones() if other != clone)
            )

    def heirs(self) -> Mapping[int, int]:
        """The group that inherits each group, by number."""
        with self._lock:
            found = [(source, clone) for clone in self._clones() for source in self._sources(clone)]
        return {group_of(source): group_of(clone) for source, clone in reversed(found)}

    def _heir(self, uid: str) -> str | None:
        """Its own clones come before those of whom it is a clone itself."""
        others = {other: self._sources(other) for other in self._clones() if other != uid}
        for family in ({uid}, set(self._sources(uid))):
            for other, sources in others.items():
                if family.intersection(sources):
                    return other
        return None

    def _clones(self) -> Iterator[str]:
        for folder in sorted(self._folder.iterdir()):
            if self._note(folder.name).exists():
                yield folder.name

    def _sources(self, clone: str) -> tuple[str, ...]:
        try:
            with self._note(clone).open(encoding="utf-8", errors="replace") as file:
                return tuple(file.read(_LIMIT_BYTES).split())
        except FileNotFoundError:
            return ()

    def _write(self, clone: str, sources: tuple[str, ...]) -> None:
        others = dict.fromkeys(source for source in sources if source != clone)
        devices.write_durably(self._note(clone), "\n".join(list(others)[:_MOST]).encode())

    def _note(self, clone: str) -> Path:
        return self._folder / clone / _NOTE
