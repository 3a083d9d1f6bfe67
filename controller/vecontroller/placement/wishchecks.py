"""Checks of what a VE wishes: labels and taints of hosts, and the company of other VEs."""

from collections import Counter
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from veapi.selector import Terms
from veapi.wishes import MAX_LIMIT, Among, Taint, taint_of
from vecontroller.placement.board import Board, Bools
from vecontroller.placement.check import When
from vecontroller.placement.crowd import Crowd, Minding
from vecontroller.placement.model import Request

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
        fine: dict[tuple[str, ...], bool] = {}
        for row in board.hosts:
            if row.taints not in fine:
                fine[row.taints] = not self._minds(row.taints)
        return np.array([fine[row.taints] for row in board.hosts], dtype=np.bool_)

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


@dataclass(frozen=True, slots=True)
class _Company:
    """Base of wishes about other VEs. `own`: the VE is one of those that the wish is about."""

    wish: Among
    project: str
    own: bool
    when: When = When.CROWD

    def crowd(self, board: Board) -> Crowd:
        return board.crowds.members(self.project, self.wish)

    def place(self, board: Board, host: int) -> str:
        """`rack r1`, or that the host is in none."""
        name = board.domain(self.wish.over).name(host)
        return f"{self.wish.over} {name}" if name else f"a host without {self.wish.over}"

    def count(self, board: Board, host: int) -> int:
        crowd = self.crowd(board)
        return int(crowd.counts[crowd.domain.index[host]])

    def effort(self, board: Board, host: int) -> float:
        del board, host
        return _WISH


@dataclass(frozen=True, slots=True)
class Near(_Company):
    """At least one of those VEs is there. The first of VEs that are to be near each other may go anywhere."""

    name: str = "near"

    def passes(self, board: Board) -> Bools:
        crowd = self.crowd(board)
        there = crowd.counts > 0
        if self.own and crowd.total == 0:
            there = np.ones_like(there)
        there[crowd.domain.nowhere] = False
        return np.asarray(there[crowd.domain.index], dtype=np.bool_)

    def why(self, board: Board, host: int) -> str:
        return f"no VE {self.wish.match} in {self.place(board, host)}"

    def change(self, board: Board, host: int) -> str:
        return f"place a VE {self.wish.match} in {self.place(board, host)} first, or only prefer it"

    def counted(self, board: Board, failing: Bools) -> list[str]:
        del board
        return [f"{int(failing.sum())} with no {self.wish.match} in their {self.wish.over}"]


@dataclass(frozen=True, slots=True)
class Apart(_Company):
    """Fewer of those VEs are there than may be together. Hosts without the label are no company."""

    name: str = "apart"

    def passes(self, board: Board) -> Bools:
        crowd = self.crowd(board)
        few = crowd.counts < self.wish.limit
        few[crowd.domain.nowhere] = True
        return np.asarray(few[crowd.domain.index], dtype=np.bool_)

    def why(self, board: Board, host: int) -> str:
        there, most = self.count(board, host), self.wish.limit
        return f"{there} of {self.wish.match} in {self.place(board, host)}, at most {most}"

    def change(self, board: Board, host: int) -> str:
        more = self.count(board, host) + 1
        return f"allow {more} of {self.wish.match} per {self.wish.over}"

    def effort(self, board: Board, host: int) -> float:
        """The more would have to be allowed, the larger."""
        return _WISH + (self.count(board, host) - self.wish.limit) / MAX_LIMIT

    def counted(self, board: Board, failing: Bools) -> list[str]:
        del board
        wish = self.wish
        most = f"{wish.limit} of " if wish.limit > 1 else ""
        return [f"{int(failing.sum())} with {most}{wish.match} in their {wish.over}"]


@dataclass(frozen=True, slots=True)
class Minded(_Company):
    """Others that wish to be apart from it are not there, or mind one more not."""

    minding: Minding | None = None
    name: str = "apart"

    def passes(self, board: Board) -> Bools:
        assert self.minding is not None
        holders = board.crowds.holders(self.minding)
        few = (self.crowd(board).counts < self.minding.most) | (holders.counts == 0)
        few[holders.domain.nowhere] = True
        return np.asarray(few[holders.domain.index], dtype=np.bool_)

    def why(self, board: Board, host: int) -> str:
        return f"a VE in {self.place(board, host)} wishes to be apart from {self.wish.match}"

    def change(self, board: Board, host: int) -> str:
        return f"change the wish of the VE in {self.place(board, host)}: apart {self.wish}"

    def counted(self, board: Board, failing: Bools) -> list[str]:
        del board
        wish = self.wish
        return [f"{int(failing.sum())} where others are apart from {wish.match} over {wish.over}"]


@dataclass(frozen=True, slots=True, eq=False)
class Spread(_Company):
    """With it there, no place has more than `limit` more of those VEs than the place with the fewest.

    Places count that have an able host which passes all checks that stand as long as the board stands (`eligible`).
    """

    eligible: Bools | None = None
    name: str = "spread"

    def passes(self, board: Board) -> Bools:
        crowd = self.crowd(board)
        even = crowd.counts + int(self.own) <= self._least(crowd) + self.wish.limit
        even[crowd.domain.nowhere] = False
        return np.asarray(even[crowd.domain.index], dtype=np.bool_)

    def _least(self, crowd: Crowd) -> int:
        assert self.eligible is not None
        places = crowd.domain.index[self.eligible]
        counts = crowd.counts[places[places < crowd.domain.nowhere]]
        return int(counts.min()) if counts.size else 0

    def why(self, board: Board, host: int) -> str:
        crowd, wish = self.crowd(board), self.wish
        if int(crowd.domain.index[host]) == crowd.domain.nowhere:
            return f"the host has no label {wish.over}"
        return (
            f"{self.count(board, host)} of {wish.match} in {self.place(board, host)}, {self._least(crowd)} in another: "
            f"one more were uneven by more than {wish.limit}"
        )

    def change(self, board: Board, host: int) -> str:
        skew = self._skew(board, host)
        return f"allow a skew of {skew} of {self.wish.match} over {self.wish.over}"

    def effort(self, board: Board, host: int) -> float:
        """The more uneven it would become, the larger."""
        return _WISH + self._skew(board, host) / MAX_LIMIT

    def _skew(self, board: Board, host: int) -> int:
        """If it was there."""
        return self.count(board, host) + int(self.own) - self._least(self.crowd(board))

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


C = TypeVar("C", bound=_Company)


def company(kind: type[C], wish: Among, request: Request) -> C:
    """The check of a wish of the request."""
    return kind(wish=wish, project=request.project, own=wish.match(request.labels))
