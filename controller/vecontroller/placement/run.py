"""Many VEs of one kind, one after the other: the same hosts as one at a time, by heaps instead of looks at all hosts.

Only where no company counts and VEs are spread: then a placement changes the score of one host and the load of one rack.
"""

from collections import Counter
from heapq import heapify, heapreplace

import numpy as np

from vecontroller.placement.board import PARTS
from vecontroller.placement.kind import NEVER, WISH_BIT, Kind


class Run:
    """Chooses hosts for VEs of the kind. The board is changed by `close`, not before."""

    def __init__(self, kind: Kind) -> None:
        kind.mend()
        board = kind.board
        self.fitting = kind.fitting()
        self.taken: Counter[int] = Counter()
        self._kind = kind
        self._score = kind.last
        self._free: dict[int, list[int]] = {}
        self._hosts: dict[int, list[tuple[int, int]]] = {}
        self._placed = board.rack_placed.tolist()
        self._able = board.rack_hosts.tolist()
        best = np.minimum.reduceat(kind.last, board.starts).tolist()
        self._racks = [self._entry(rack, score) for rack, score in enumerate(best) if score < NEVER]
        heapify(self._racks)

    def next(self) -> int | None:
        """The index of the host; None: none fits any more. `fitting` is of before."""
        if not self._racks or self._racks[0][2] == NEVER:
            return None
        return self._heap(self._racks[0][3])[0][1]

    def take(self, host: int) -> None:
        """The one that `next` gave."""
        rack = self._racks[0][3]
        hosts = self._hosts[rack]
        self.taken[host] += 1
        score = self._after(host)
        self.fitting -= score == NEVER
        heapreplace(hosts, (score, host))
        self._placed[rack] += 1
        heapreplace(self._racks, self._entry(rack, hosts[0][0]))

    def close(self) -> None:
        """Commits all that was taken to the board."""
        for host, times in self.taken.items():
            self._kind.board.take(host, self._kind.request, times=times)

    def _entry(self, rack: int, best: int) -> tuple[int, int, int, int]:
        load = self._placed[rack] * PARTS // self._able[rack]
        return (best >> WISH_BIT, load, best, rack)

    def _heap(self, rack: int) -> list[tuple[int, int]]:
        found = self._hosts.get(rack)
        if found is None:
            board = self._kind.board
            start, end = int(board.starts[rack]), int(board.ends[rack])
            scores = self._score[start:end].tolist()
            found = self._hosts[rack] = list(zip(scores, range(start, end), strict=True))
            heapify(found)
        return found

    def _after(self, host: int) -> int:
        """Its score with what was taken."""
        kind, board = self._kind, self._kind.board
        columns = self._free.get(host)
        if columns is None:
            columns = self._free[host] = board.columns[:, host].tolist()
        for index, want in enumerate(kind.wanted):
            columns[index] -= want
        columns[8] += 1
        return kind.score_of(host, columns)
