"""Requests that want the same are one kind: its score of every host is kept, and mended where a host was taken.

The order of hosts is that of one whole number for each, the least first. From its highest bits to its lowest: the weights of
wishes that do not come true, the share of the scarcest resource that would be committed (or that would be left, where VEs
are packed), and the number of VEs. Where VEs are spread, the rack with the fewest VEs per host goes before the share.
An image that a host lacks counts as a twentieth of the share.
"""

from operator import attrgetter

import numpy as np

from vecontroller.placement.board import PARTS, Board, Ints, amounts
from vecontroller.placement.check import Check, When
from vecontroller.placement.checks import Checks, checks_of
from vecontroller.placement.model import Request, Strategy

NEVER = np.iinfo(np.int64).max
"""The score of a host that does not fit."""
FETCH = PARTS // 20
PLACED_BITS = 20
_PLACED_MOST = (1 << PLACED_BITS) - 1
SHARE_BITS = 21
WISH_BIT = PLACED_BITS + SHARE_BITS
_MEND_ONE_BY_ONE = 4
Key = tuple[object, ...]
_OF_KIND = attrgetter(
    "resources",
    "host",
    "host_why",
    "gone",
    "project",
    "image",
    "strategy",
    "require",
    "prefer",
    "tolerate",
    "near",
    "apart",
    "spread",
    "fenced",
)
_NO_LABELS: frozenset[tuple[str, str]] = frozenset()


def key_of(request: Request) -> Key:
    """Equal for requests of one kind."""
    labels = frozenset(request.labels.items()) if request.labels else _NO_LABELS
    return (*_OF_KIND(request), labels)


class Kind:
    """`score` is (hosts,), right for the board as it is after `mend`: all but the company of other VEs is in it.

    `crowded`: that company counts, so a request that was refused may fit after another one was placed.
    """

    def __init__(self, board: Board, request: Request) -> None:
        self.board = board
        self.request = request
        self.wanted = amounts(request.resources)
        self._column = np.array(self.wanted)[:, np.newaxis]
        self._look()
        self.score = self._scores()
        self.last = self.score
        """As the last choice saw it, with company."""

    def _look(self) -> None:
        board, request = self.board, self.request
        self.checks: Checks = checks_of(board, request)
        self._minded_version = board.crowds.minded_version
        self._minded = board.crowds.minded(request)
        self._seen = len(board.log)
        must, should = self.checks.must, self.checks.should
        self._company = [check for check in must if check.when is When.CROWD]
        self._soft_company = [pair for pair in should if pair[0].when is When.CROWD]
        extra = np.where(board.holding(request.image), 0, FETCH) << PLACED_BITS
        wishes = self._cost([pair for pair in should if pair[0].when is not When.CROWD])
        self._base = (wishes << WISH_BIT) + extra

    @property
    def may_run(self) -> bool:
        """Whether a placement changes nothing for the kind but one host and its rack."""
        company = self._company or self._soft_company
        return self.request.strategy is Strategy.SPREAD and not company and not self.request.gone

    @property
    def crowded(self) -> bool:
        return bool(self._company)

    def _cost(self, wishes: list[tuple[Check, int]]) -> Ints:
        """The weights of those that do not come true, per host."""
        cost = np.zeros(len(self.board.hosts), dtype=np.int64)
        for check, weight in wishes:
            cost += np.where(check.passes(self.board), 0, weight)
        return cost

    def choose(self) -> int | None:
        """The index of the host that it gets; None: none fits."""
        if self.request.gone or not self.board.hosts:
            return None
        self.mend()
        return self._first(self.last)

    def fitting(self) -> int:
        """How many hosts fit, as the last choice saw it."""
        return int(np.count_nonzero(self.last < NEVER))

    def mend(self) -> None:
        """Takes in what changed on the board since it was last looked at."""
        self._look_who_minds()
        log = self.board.log
        changed, self._seen = log[self._seen :], len(log)
        if len(changed) <= _MEND_ONE_BY_ONE:
            for host in set(changed):
                self.score[host] = self._score(host)
        else:
            hosts = np.array(changed)  # some twice: to the same score
            self.score[hosts] = self._scores(hosts)
        self.last = self._in_company(self.score)

    def _look_who_minds(self) -> None:
        """Others that wish to be apart from such VEs may have come or gone."""
        crowds = self.board.crowds
        if self._minded_version == crowds.minded_version:
            return
        self._minded_version = crowds.minded_version
        if crowds.minded(self.request) != self._minded:
            self._look()
            self.score = self._scores()

    def _in_company(self, score: Ints) -> Ints:
        if self._company:
            fits = self._company[0].passes(self.board)
            for check in self._company[1:]:
                fits = fits & check.passes(self.board)
            score = np.where(fits, score, NEVER)
        if self._soft_company:
            cost = self._cost(self._soft_company) << WISH_BIT
            score = np.where(score < NEVER, score + cost, NEVER)
        return score

    def order(self) -> Ints:
        """Indexes of the hosts that fit, the best first."""
        self.mend()
        score = self.last
        fit = np.flatnonzero(score < NEVER)
        return fit[
            np.lexsort((score[fit], self._load()[self.board.rack[fit]], score[fit] >> WISH_BIT))
        ]

    def _load(self) -> Ints:
        """Of each rack; nothing where VEs are packed."""
        load = self.board.rack_load()
        return load if self.request.strategy is Strategy.SPREAD else np.zeros_like(load)

    def _first(self, score: Ints) -> int | None:
        """As the first of `order`: the best of each rack, then the best of these."""
        board = self.board
        if self.request.strategy is Strategy.PACK:
            host = int(score.argmin())
            return host if score[host] < NEVER else None
        best = np.minimum.reduceat(score, board.starts)
        wishes = best >> WISH_BIT
        racks = np.flatnonzero(wishes == wishes.min())
        load = board.rack_load()[racks]
        racks = racks[load == load.min()] if best[racks[0]] < NEVER else racks
        rack = int(racks[best[racks].argmin()])
        if best[rack] == NEVER:
            return None
        start, end = int(board.starts[rack]), int(board.ends[rack])
        return start + int(score[start:end].argmin())

    def _scores(self, hosts: Ints | None = None) -> Ints:
        """Of some hosts, or of all."""
        board = self.board
        columns = board.columns if hosts is None else board.columns.take(hosts, axis=1)
        left, whole = columns[:4], columns[4:8]
        # Divided first: bytes times a million overflow 64 bits at 9 TB.
        share = ((whole - left + self._column) / whole).max(axis=0, initial=0.0)
        fits = (left >= self._column).all(axis=0)
        fixed, base = self.checks.fixed, self._base
        if hosts is not None:
            fixed, base = fixed.take(hosts), base.take(hosts)
        parts = (share * PARTS).astype(np.int64)
        if self.request.strategy is Strategy.PACK:
            parts = PARTS - parts
        score = base + (parts << PLACED_BITS) + np.minimum(columns[8], _PLACED_MOST)
        return np.where(fits & fixed, score, NEVER)

    def scores_after(self, hosts: Ints, before: Ints) -> Ints:
        """Of hosts that fit, once they took so many of the kind `before`; all as `_scores`, to the last bit."""
        columns = self.board.columns.take(hosts, axis=1)
        whole = columns[4:8]
        share = ((whole - columns[:4] + self._column * (before + 1)) / whole).max(axis=0)
        parts = (share * PARTS).astype(np.int64)
        placed = np.minimum(columns[8] + before, _PLACED_MOST)
        return np.asarray(self._base[hosts] + (parts << PLACED_BITS) + placed, dtype=np.int64)

    def _score(self, host: int) -> int:
        """As `_scores`, of one host: to the last bit."""
        return self.score_of(host, self.board.columns[:, host].tolist())

    def score_of(self, host: int, columns: list[int]) -> int:
        """Of a host whose columns were so."""
        if not self.checks.fixed[host]:
            return NEVER
        most = 0.0
        for left, whole, want in zip(columns[:4], columns[4:8], self.wanted, strict=True):
            if left < want:
                return NEVER
            most = max(most, (whole - left + want) / whole)
        parts = int(most * PARTS)
        if self.request.strategy is Strategy.PACK:
            parts = PARTS - parts
        return int(self._base[host]) + (parts << PLACED_BITS) + min(columns[8], _PLACED_MOST)
