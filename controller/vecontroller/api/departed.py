"""Remembers the VEs that went lately, so that a watch from an earlier revision can tell of them.

The view forgets what is deleted. Who listed at revision 10 and watches from there must hear of a VE that went at 12, also
when the watch begins at 20. What is older than this memory can't be told, and is refused rather than left out.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from veapi.errors import Conflict
from veapi.model import VE, Uid
from vecontroller.api.ports import ApiDeps
from vecontroller.view import Changed, Held

KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Gone:
    """A VE as it was last. `revision`: not before which it went."""

    revision: int
    held: Held[VE]


class Departed:
    """`run` must run for as long as watches are served."""

    def __init__(self, deps: ApiDeps, *, kept: int = KEPT) -> None:
        self._deps = deps
        self._kept = kept
        self._gone: deque[Gone] = deque()
        self._floor: int | None = None
        self._known: dict[Uid, Held[VE]] = {}

    async def run(self) -> None:
        """For ever."""
        with self._deps.topic.subscribe() as changes:
            self.begin()
            while True:
                self._heed(await changes.next())

    def begin(self) -> None:
        """Remembers from now on."""
        view = self._deps.mirror.view
        self._floor, self._known = view.revision, dict(view.ves)

    def _heed(self, changed: Changed) -> None:
        view = self._deps.mirror.view
        if self._floor == 0:  # nothing was in the view when we began
            self.begin()
        self._note(self._known.keys() | view.ves.keys() if changed.relisted else changed.ves)

    def since(self, revision: int) -> list[Gone]:
        """What went after that revision. Conflict when that is too long ago to know."""
        self._note(self._known.keys())  # the view may be ahead of what woke us
        if self._floor is None or revision < self._floor:
            raise Conflict(
                f"what changed since revision {revision} is not known any more",
                hint="list again and watch from the revision of that list",
            )
        return [gone for gone in self._gone if gone.revision > revision]

    def _note(self, uids: Iterable[Uid]) -> None:
        view = self._deps.mirror.view
        for uid in list(uids):
            held = view.ves.get(uid)
            if held is not None:
                self._known[uid] = held
            elif uid in self._known:
                self._forget(Gone(view.revision, self._known.pop(uid)))

    def _forget(self, gone: Gone) -> None:
        self._gone.append(gone)
        while len(self._gone) > self._kept:
            self._floor = self._gone.popleft().revision
