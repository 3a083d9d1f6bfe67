"""How much more fits, now and after a loss, and which VEs could not be placed again: by placing them.

A loss takes hosts away. Their VEs are placed again on the others, oldest first, as a plan would; what is left then is
what still fits. What a VE's policy is does not count: this says what could be done.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from veapi.model import Resources, Uid, Value
from vecontroller.placement.board import RESOURCES, Board, Bools, Ints, amounts
from vecontroller.placement.checks import checks_of
from vecontroller.placement.model import HostRow, Refusal, Request
from vecontroller.placement.plan import place

HOST, RACK = "host", "rack"


class Loss(Value, frozen=True, kw_only=True):
    """Of a host or rack, with its `ves`. `more`: how many of each flavor still fit; `stranded`: who can't be placed again."""

    kind: str
    name: str
    ves: int
    more: tuple[int, ...]
    stranded: tuple[Refusal, ...] = ()


class Flavor(Value, frozen=True, kw_only=True):
    """How many more of one size fit. `stopped_by`: on how many hosts each resource is the first to run out."""

    resources: Resources
    now: int
    stopped_by: tuple[tuple[str, int], ...]


class Capacity(Value, frozen=True, kw_only=True):
    """Losses are of every single host and of every rack that has hosts, by kind and name."""

    flavors: tuple[Flavor, ...]
    losses: tuple[Loss, ...]

    def worst(self, kind: str, flavor: int) -> Loss | None:
        """The loss after which the fewest fit; of equal ones the first."""
        of_kind = [loss for loss in self.losses if loss.kind == kind]
        return min(of_kind, key=lambda loss: loss.more[flavor], default=None)


def capacity(board: Board, sizes: Sequence[Resources]) -> Capacity:
    """The board is left as it is."""
    return Capacity(
        flavors=tuple(_flavor(board, size) for size in sizes),
        losses=(
            *(_lose(board, HOST, row.name, [index], sizes) for index, row in _by_name(board)),
            *(
                _lose(board, RACK, rack, range(int(start), int(end)), sizes)
                for rack, start, end in zip(board.racks, board.starts, board.ends, strict=True)
            ),
        ),
    )


def more(board: Board, size: Resources) -> int:
    """How many of that size, with no wishes, fit beside what is there."""
    return int(_each(board, size).min(axis=0, initial=_BOUNDLESS)[_open(board, size)].sum())


def _open(board: Board, size: Resources) -> Bools:
    """Hosts that take VEs without wishes."""
    return checks_of(board, Request(uid=Uid(""), resources=size)).fixed


_BOUNDLESS = 1 << 40


def _each(board: Board, size: Resources) -> Ints:
    """Shape (4, hosts): how many fit by each resource alone; never below 0."""
    wanted = np.array(amounts(size))[:, np.newaxis]
    return np.where(wanted > 0, np.maximum(board.free, 0) // np.maximum(wanted, 1), _BOUNDLESS)


def _flavor(board: Board, size: Resources) -> Flavor:
    each = _each(board, size)
    firsts = Counter(
        RESOURCES[index] for index in each[:, _open(board, size)].argmin(axis=0).tolist()
    )
    by_count = sorted(firsts.items(), key=lambda item: (-item[1], item[0]))
    return Flavor(resources=size, now=more(board, size), stopped_by=tuple(by_count))


def _by_name(board: Board) -> list[tuple[int, HostRow]]:
    return sorted(enumerate(board.hosts), key=lambda item: item[1].name)


def _lose(
    board: Board, kind: str, name: str, hosts: Sequence[int], sizes: Sequence[Resources]
) -> Loss:
    left = board.without(hosts)
    tenants = [tenant for host in hosts for tenant in board.hosts[host].tenants]
    made = place(left, tenants)
    return Loss(
        kind=kind,
        name=name,
        ves=len(tenants),
        more=tuple(more(left, size) for size in sizes),
        stranded=made.refusals,
    )
