"""Checks of what a VE wishes: labels and taints of hosts, and the company of other VEs."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from veapi.selector import Terms
from veapi.wishes import MAX_LIMIT, Among, Taint, taint_of
from vecontroller.placement.board import Board, Bools, Ints
from vecontroller.placement.check import When
from vecontroller.placement.crowd import Crowd

_WISH = 1.0


@dataclass(frozen=True, slots=True)
class Require:
    """The host's labels are so."""

    terms: Terms
    name: str = "require"
    when: When = When.NEVER

    def passes(self, board: Board) -> Bools:
        return board.matching(self.terms)

    def why(self, board: Board, host: int) -> str:
        labels = board.hosts[host].labels
        has = ", ".join(
            f"{key}={labels[key]}" if key in labels else f"no {key}"
            for key in dict.fromkeys(term.key for term in self.terms.terms)
        )
        return f"wants {self.terms}; the host has {has}"

    def change(self, board: Board, host: int) -> str:
        return f"require no {self.terms}, or label {board.hosts[host].name} so"

    def effort(self, board: Board, host: int) -> float:
        del board, host
        return _WISH

    def counted(self, board: Board, failing: Bools) -> list[str]:
        del board
        return [f"{int(failing.sum())} without {self.terms}"]


@dataclass(frozen=True, slots=True)
class Tolerate:
    """Each taint of the host is tolerated. `preferred`: looks at the taints that only keep VEs away while others fit."""

    tolerations: tuple[str, ...]
    preferred: bool = False
    name: str = "taint"
    when: When = When.NEVER

    def passes(self, board: Board) -> Bools:
        return ~board.tainted(lambda taints: bool(self._minds(taints)))

    def _minds(self, taints: tuple[str, ...]) -> list[Taint]:
        read = (taint_of(text) for text in taints)
        return [
            taint
            for taint in read
            if taint.preferred is self.preferred and not taint.tolerated(self.tolerations)
        ]

    def why(self, board: Board, host: int) -> str:
        return f"tainted {self._names(board, host)}, which it does not tolerate"

    def change(self, board: Board, host: int) -> str:
        return f"tolerate {self._names(board, host)}"

    def _names(self, board: Board, host: int) -> str:
        return " and ".join(
            str(taint).partition(":")[0] for taint in self._minds(board.hosts[host].taints)
        )

    def effort(self, board: Board, host: int) -> float:
        del board, host
        return _WISH

    def counted(self, board: Board, failing: Bools) -> list[str]:
        words = Counter(self._names(board, int(host)) for host in np.flatnonzero(failing))
        return [f"{count} tainted `{word}`" for word, count in sorted(words.items())]


@dataclass(frozen=True, slots=True, eq=False)
class _Company:
    """Base of wishes about other VEs. `own`: the VE is one of those that the wish is about; `crowd`: where these are."""

    wish: Among
    own: bool
    crowd: Crowd

    @property
    def name(self) -> str:
        return self.wish.kind

    @property
    def when(self) -> When:
        return When.CROWD

    def _where(self, table: Bools) -> Bools:
        """By host, of a table by place."""
        return np.asarray(table.take(self.crowd.domain.index), dtype=np.bool_)

    def place(self, host: int) -> str:
        """`rack r1`, or that the host is in none."""
        name = self.crowd.domain.name(host)
        return (
            f"{self.wish.over} {name}" if name is not None else f"a host without {self.wish.over}"
        )

    def labelled(self, board: Board, host: int) -> str:
        """The change where the host has no such label."""
        return f"label {board.hosts[host].name} with its {self.wish.over}"

    def count(self, host: int) -> int:
        """Of those VEs where the host is."""
        return int(self.crowd.counts[self.crowd.domain.index[host]])

    def effort(self, board: Board, host: int) -> float:
        del board, host
        return _WISH


class Near(_Company):
    """At least one of those VEs is there. The first of VEs that are to be near each other may go anywhere."""

    def passes(self, board: Board) -> Bools:
        del board
        there = self.crowd.counts > 0
        if self.own and self.crowd.total == 0:
            there = np.ones_like(there)
        there[self.crowd.domain.nowhere] = False
        return self._where(there)

    def why(self, board: Board, host: int) -> str:
        del board
        return f"no VE {self.wish.match} in {self.place(host)}"

    def change(self, board: Board, host: int) -> str:
        if self.crowd.domain.name(host) is None:
            return self.labelled(board, host)
        return f"place a VE {self.wish.match} in {self.place(host)} first, or only prefer it"

    def counted(self, board: Board, failing: Bools) -> list[str]:
        del board
        return [f"{int(failing.sum())} with no {self.wish.match} in their {self.wish.over}"]


class Apart(_Company):
    """Fewer of those VEs are there than may be together. Hosts without the label are no company."""

    def passes(self, board: Board) -> Bools:
        del board
        few = self.crowd.counts < self.wish.limit
        few[self.crowd.domain.nowhere] = True
        return self._where(few)

    def why(self, board: Board, host: int) -> str:
        del board
        there, most = self.count(host), self.wish.limit
        return f"{there} of {self.wish.match} in {self.place(host)}, at most {most}"

    def change(self, board: Board, host: int) -> str:
        del board
        more = self.count(host) + 1
        # Those that are there and wish the same would mind it else.
        return f"allow {more} of {self.wish.match} per {self.wish.over}, for all of them"

    def effort(self, board: Board, host: int) -> float:
        """The more would have to be allowed, the larger."""
        del board
        return _WISH + (self.count(host) - self.wish.limit) / MAX_LIMIT

    def counted(self, board: Board, failing: Bools) -> list[str]:
        del board
        wish = self.wish
        most = f"{wish.limit} of " if wish.limit > 1 else ""
        return [f"{int(failing.sum())} with {most}{wish.match} in their {wish.over}"]


@dataclass(frozen=True, slots=True, eq=False)
class Minded(_Company):
    """VEs that wish to be apart from it (`holders`) are not there, or there are fewer than the `most` that they bear."""

    most: int
    holders: Crowd

    def passes(self, board: Board) -> Bools:
        del board
        few = (self.crowd.counts < self.most) | (self.holders.counts == 0)
        few[self.crowd.domain.nowhere] = True
        return self._where(few)

    def why(self, board: Board, host: int) -> str:
        del board
        return f"a VE in {self.place(host)} wishes to be apart from {self.wish.match}"

    def change(self, board: Board, host: int) -> str:
        del board
        return f"change the wish of the VE in {self.place(host)}: apart {self.wish}"

    def counted(self, board: Board, failing: Bools) -> list[str]:
        del board
        wish = self.wish
        return [f"{int(failing.sum())} where others are apart from {wish.match} over {wish.over}"]


@dataclass(frozen=True, slots=True, eq=False)
class Spread(_Company):
    """With it there, no place has more than `limit` more of those VEs than the place with the fewest.

    `places` count: those with an able host which passes all that placing VEs never changes.
    """

    places: Ints

    def passes(self, board: Board) -> Bools:
        del board
        even = self.crowd.counts + int(self.own) <= self._least() + self.wish.limit
        even[self.crowd.domain.nowhere] = False
        return self._where(even)

    def _least(self) -> int:
        return int(self.crowd.counts[self.places].min()) if self.places.size else 0

    def _skew(self, host: int) -> int:
        """If it was there."""
        return self.count(host) + int(self.own) - self._least()

    def why(self, board: Board, host: int) -> str:
        del board
        wish = self.wish
        if self.crowd.domain.name(host) is None:
            return f"the host has no label {wish.over}"
        return (
            f"{self.count(host)} of {wish.match} in {self.place(host)}, {self._least()} in another: "
            f"one more were uneven by more than {wish.limit}"
        )

    def change(self, board: Board, host: int) -> str:
        if self.crowd.domain.name(host) is None:
            return self.labelled(board, host)
        return f"allow a skew of {self._skew(host)} of {self.wish.match} over {self.wish.over}"

    def effort(self, board: Board, host: int) -> float:
        """The more uneven it would become, the larger."""
        del board
        return _WISH + self._skew(host) / MAX_LIMIT

    def counted(self, board: Board, failing: Bools) -> list[str]:
        del board
        word = f"made uneven by {self.wish.match} over {self.wish.over} (skew {self.wish.limit})"
        return [f"{int(failing.sum())} {word}"]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A wish that this version can't read must not be taken for none."""

    text: str
    name: str = "wish"
    when: When = When.NEVER

    def passes(self, board: Board) -> Bools:
        return np.zeros(len(board.hosts), dtype=np.bool_)

    def why(self, board: Board, host: int) -> str:
        del board, host
        return f"{self.text[:80]!r} can't be read by this version"

    def change(self, board: Board, host: int) -> str:
        del board, host
        return "change the wish that can't be read"

    def effort(self, board: Board, host: int) -> float:
        del board, host
        return _WISH

    def counted(self, board: Board, failing: Bools) -> list[str]:
        return [f"{int(failing.sum())} {self.why(board, 0)}"]
