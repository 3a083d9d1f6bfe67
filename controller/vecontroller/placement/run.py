"""Many VEs of one kind at once: the same hosts, in the same order, as one after the other.

Only where no company counts and VEs are spread: then a placement changes the score of one host, which only gets worse, and the
load of one rack, which only grows. So what one after the other would take is known beforehand: of each rack the places on its
hosts (the first VE there, the second, ...) by score, and of all racks these by wishes, load and score. That is two sorts.
How many places of a host are looked at is guessed; where the guess was too low for some rack, it is doubled.
"""

from dataclasses import dataclass

import numpy as np

from vecontroller.placement.board import PARTS, Bools, Ints
from vecontroller.placement.kind import NEVER, WISH_BIT, Kind

_FEWEST_PLACES = 2


@dataclass(frozen=True, slots=True)
class Run:
    """`hosts`: indexes, in the order in which they are taken; `fitting`: how many hosts fit before each."""

    hosts: Ints
    fitting: Ints


@dataclass(frozen=True, slots=True)
class _Places:
    """Places in the order of rack and score. `rank`: within the rack, from 0; `last`: of those that were looked at on the host.

    `full`: whether the host has no more after it.
    """

    host: Ints
    rack: Ints
    score: Ints
    rank: Ints
    last: Bools
    full: Bools


def run_of(kind: Kind, count: int) -> Run:
    """The first `count`, or fewer when no more fit. The board is left as it is."""
    kind.mend()
    fit = np.flatnonzero(kind.last < NEVER)
    room = np.minimum(_room(kind, fit), count)
    wanted = min(count, int(room.sum()))
    if not wanted:
        return Run(fit[:0], fit[:0])
    deep = max(_FEWEST_PLACES, 4 * wanted // len(fit))
    while True:
        places = _places(kind, fit, room, deep)
        taken = _first(kind, places, wanted)
        if _deep_enough(places, taken):
            break
        deep *= 2
    filled = (places.last & places.full)[taken]
    fitting = len(fit) - np.cumsum(filled) + filled
    return Run(places.host[taken], fitting)


def _room(kind: Kind, hosts: Ints) -> Ints:
    """How many fit on each, of hosts on which one does."""
    left = kind.board.free[:, hosts]
    wanted = np.array(kind.wanted)[:, np.newaxis]
    each = np.where(wanted > 0, left // np.maximum(wanted, 1), np.iinfo(np.int64).max)
    return np.asarray(each.min(axis=0), dtype=np.int64)


def _places(kind: Kind, fit: Ints, room: Ints, deep: int) -> _Places:
    counts = np.minimum(room, deep)
    ends = np.cumsum(counts)
    host = np.repeat(fit, counts)
    before = np.arange(len(host)) - np.repeat(ends - counts, counts)
    score, rack = kind.scores_after(host, before), kind.board.rack[host]
    order = np.lexsort((score, rack))  # stable: the lower host first, and there the earlier place
    rack = rack[order]
    last, full = np.zeros(len(host), dtype=np.bool_), np.repeat(room <= deep, counts)
    last[ends - 1] = True
    rank = np.arange(len(rack)) - np.searchsorted(rack, rack)
    return _Places(host[order], rack, score[order], rank, last[order], full[order])


def _first(kind: Kind, places: _Places, wanted: int) -> Ints:
    """Indexes of the places that are taken, in order."""
    board = kind.board
    load = (board.rack_placed[places.rack] + places.rank) * PARTS // board.rack_hosts[places.rack]
    wish = places.score >> WISH_BIT
    near = np.arange(len(load))
    if wish.min() == wish.max() and wanted < len(load):
        near = np.flatnonzero(load <= np.partition(load, wanted - 1)[wanted - 1])
    order = np.lexsort((places.rack[near], places.score[near], load[near], wish[near]))
    return np.asarray(near[order[:wanted]], dtype=np.int64)


def _deep_enough(places: _Places, taken: Ints) -> bool:
    """Whether no rack was emptied up to a place after which its host has more that were not looked at.

    Up to that place, and with it, the order of the rack is right: so what is left of it is no better than that place.
    """
    chosen = np.zeros(len(places.host), dtype=np.bool_)
    chosen[taken] = True
    return not bool((chosen & places.last & ~places.full).any())
