"""Requests that want the same are one kind: its score of every host is kept, and mended where a host was taken.

The order of hosts is that of one whole number for each: the share of the scarcest resource that would be committed, then
the number of VEs. The least wins; of racks the one with the fewest VEs per host comes first.
"""

from collections.abc import Sequence

import numpy as np

from vecontroller.placement.board import PARTS, Board, Bools, Ints, amounts
from vecontroller.placement.checks import Check, When, checks_of
from vecontroller.placement.model import Request

NEVER = np.iinfo(np.int64).max
"""The score of a host that does not fit."""
_PLACED_BITS = 20
_PLACED_MOST = (1 << _PLACED_BITS) - 1
_MEND_ONE_BY_ONE = 32
Key = tuple[object, ...]


def key_of(request: Request) -> Key:
    """Equal for requests of one kind."""
    return (request.resources, request.host, request.host_why, request.gone)


class Kind:
    """`score` is (hosts,), right for the board as it is after `mend`."""

    def __init__(self, board: Board, request: Request) -> None:
        self.board = board
        self.request = request
        self.checks: Sequence[Check] = checks_of(request)
        self._wanted = amounts(request.resources)
        self._fixed = self._mask(When.NEVER)
        self._seen = len(board.log)
        self.score = self._scores()

    def _mask(self, when: When) -> Bools:
        mask = np.ones(len(self.board.hosts), dtype=np.bool_)
        for check in self.checks:
            if check.when is when:
                mask &= check.passes(self.board)
        return mask

    def choose(self) -> int | None:
        """The index of the host that it gets; None: none fits."""
        if self.request.gone or not self.board.hosts:
            return None
        self.mend()
        return self._first(self.score)

    def fitting(self) -> int:
        """How many hosts fit."""
        return int(np.count_nonzero(self.score < NEVER))

    def mend(self) -> None:
        """Takes in what changed on the board since it was last looked at."""
        log = self.board.log
        changed, self._seen = log[self._seen :], len(log)
        if len(changed) > _MEND_ONE_BY_ONE:
            self.score = self._scores()
        else:
            for host in set(changed):
                self.score[host] = self._score(host)

    def order(self) -> Ints:
        """Indexes of the hosts that fit, the best first."""
        self.mend()
        fit = np.flatnonzero(self.score < NEVER)
        load = self.board.rack_load()[self.board.rack[fit]]
        return fit[np.lexsort((self.score[fit], load))]

    def _first(self, score: Ints) -> int | None:
        """The rack with the fewest VEs per host among those with a host that fits; there the host with the least score."""
        board = self.board
        best = np.minimum.reduceat(score, board.starts)
        fits = best < NEVER
        if not fits.any():
            return None
        load = np.where(fits, board.rack_load(), NEVER)
        racks = np.flatnonzero(load == load.min())
        rack = int(racks[best[racks].argmin()])
        start, end = int(board.starts[rack]), int(board.ends[rack])
        return start + int(score[start:end].argmin())

    def _scores(self) -> Ints:
        board = self.board
        capacity = np.maximum(board.capacity, 1)
        # Divided first: bytes times a million overflow 64 bits at 9 TB.
        shares = (capacity - board.free + self._wanted) / capacity * PARTS
        share = shares.max(axis=1, initial=0).astype(np.int64)
        score = (share << _PLACED_BITS) | np.minimum(board.placed, _PLACED_MOST)
        fits = self._fixed & (board.free >= self._wanted).all(axis=1)
        return np.where(fits, score, NEVER)

    def _score(self, host: int) -> int:
        """As `_scores`, of one host: to the last bit."""
        board = self.board
        if not self._fixed[host]:
            return NEVER
        share = 0.0
        free, capacity = board.free[host].tolist(), board.capacity[host].tolist()
        for left, whole, want in zip(free, capacity, self._wanted, strict=True):
            if left < want:
                return NEVER
            of = max(whole, 1)
            share = max(share, (of - left + want) / of * PARTS)
        return (int(share) << _PLACED_BITS) | min(int(board.placed[host]), _PLACED_MOST)
