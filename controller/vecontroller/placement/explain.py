"""What each host says to a request: all that it fails, or how it scores; and what would make one fit.

The same kind, checks and order as in a plan: the host of rank 1 is the one that a plan would take.
"""

import numpy as np

from vecontroller.placement.board import PARTS, RESOURCES, Board, amounts
from vecontroller.placement.check import Check
from vecontroller.placement.checks import Room
from vecontroller.placement.kind import FETCH, Kind
from vecontroller.placement.model import Explanation, Failing, Part, Request, Strategy, Verdict
from vecontroller.placement.refusal import refusal_of

_CHANGES = 3


def explain(board: Board, request: Request) -> Explanation:
    """Nothing is taken from the board."""
    kind = Kind(board, request)
    if request.gone or not board.hosts:
        return Explanation(verdicts=(), refusal=refusal_of(board, request))
    order = kind.order().tolist()
    fit = [_fits(kind, host, rank) for rank, host in enumerate(order, start=1)]
    failed = _failed(kind, set(order))
    return Explanation(
        verdicts=(*fit, *(_fails(kind, host, failed[host]) for host in _nearest(kind, failed))),
        refusal=None if order else refusal_of(board, request),
        changes=() if order else _changes(kind, failed),
    )


def _fits(kind: Kind, host: int, rank: int) -> Verdict:
    row = kind.board.hosts[host]
    return Verdict(host=row.name, rack=row.rack, rank=rank, parts=_parts(kind, host))


def _fails(kind: Kind, host: int, checks: list[Check]) -> Verdict:
    board = kind.board
    row = board.hosts[host]
    failing = tuple(
        Failing(check=each.name, why=each.why(board, host), change=each.change(board, host))
        for each in checks
    )
    return Verdict(host=row.name, rack=row.rack, rank=0, failing=failing)


def _parts(kind: Kind, host: int) -> tuple[Part, ...]:
    board = kind.board
    rack = int(board.rack[host])
    load = int(board.rack_load()[rack])
    share, scarcest = _share(kind, host)
    placed = int(board.placed[host])
    return (
        *_wishes(kind, host),
        *(
            (Part(name="rack", value=load, text=f"{load / PARTS:.2f} VEs per host in its rack"),)
            if kind.request.strategy is Strategy.SPREAD
            else ()
        ),
        Part(
            name="share", value=share, text=f"{share / PARTS:.1%} of its {scarcest} committed then"
        ),
        *_fetch(kind, host),
        Part(name="ves", value=placed, text=f"{placed} VEs"),
    )


def _wishes(kind: Kind, host: int) -> list[Part]:
    """Preferred wishes that don't come true there."""
    board = kind.board
    return [
        Part(
            name=check.name,
            value=weight,
            text=f"{check.name} (weight {weight}): {check.why(board, host)}",
        )
        for check, weight in kind.checks.should
        if not check.passes(board)[host]
    ]


def _fetch(kind: Kind, host: int) -> list[Part]:
    if kind.board.holding(kind.request.image)[host]:
        return []
    return [Part(name="image", value=FETCH, text="its image must be fetched first")]


def _share(kind: Kind, host: int) -> tuple[int, str]:
    """The largest share of a resource that would be committed, in parts, and which it is."""
    board = kind.board
    capacity = np.maximum(board.capacity[:, host], 1)
    shares = (capacity - board.free[:, host] + amounts(kind.request.resources)) / capacity * PARTS
    scarcest = int(shares.argmax())
    return int(shares[scarcest]), RESOURCES[scarcest]


def _failed(kind: Kind, fitting: set[int]) -> dict[int, list[Check]]:
    """The checks that each other host fails."""
    masks = [(check, check.passes(kind.board)) for check in kind.checks.must]
    hosts = (host for host in range(len(kind.board.hosts)) if host not in fitting)
    return {host: [check for check, mask in masks if not mask[host]] for host in hosts}


def _nearest(kind: Kind, failed: dict[int, list[Check]]) -> list[int]:
    """Hosts that fail, that with the least to change first."""
    return sorted(failed, key=lambda host: (_effort(kind, host, failed[host]), host))


def _effort(kind: Kind, host: int, checks: list[Check]) -> float:
    return sum(check.effort(kind.board, host) for check in checks)


def _changes(kind: Kind, failed: dict[int, list[Check]]) -> tuple[str, ...]:
    """Of the nearest host of each set of checks that hosts fail: all of its changes together."""
    found: dict[tuple[str, ...], str] = {}
    for host in _nearest(kind, failed):
        checks = failed[host]
        names = ("room",) if all(isinstance(each, Room) for each in checks) else _names(checks)
        if names not in found and _effort(kind, host, checks) < 10:
            found[names] = " and ".join(each.change(kind.board, host) for each in checks)
    return tuple(found.values())[:_CHANGES]


def _names(checks: list[Check]) -> tuple[str, ...]:
    return tuple(each.name for each in checks)
