"""Chooses hosts for VEs: pure, deterministic, never more than a host's ledger has room for, never against a required wish.

A VE goes to a host that passes all checks; among those to one where the fewest preferred wishes fail, by weight; then to the
rack with the fewest VEs per host, there to the host with the least committed of its scarcest resource, then the fewest VEs,
then the lowest name (see `kind`). Requests are served in turn (see `turns`), so that the order in which they are handed over
does not count.
A kind of request that was refused once is refused again without looking: room only shrinks. Only where company counts
another placement can help, so those are looked at again until nothing changes.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec
import numpy as np

from vecontroller.placement.board import Board
from vecontroller.placement.kind import Key, Kind, key_of
from vecontroller.placement.model import Assignment, HostRow, Plan, Refusal, Request, Strategy
from vecontroller.placement.refusal import refusal_of
from vecontroller.placement.run import run_of
from vecontroller.placement.turns import in_turn

RUN_AT = 64
"""Fewer are faster one after the other."""


def plan(hosts: Iterable[HostRow], requests: Iterable[Request]) -> Plan:
    """Every request is either assigned or refused; refusing changes nothing."""
    return place(Board(hosts), requests)


def place(board: Board, requests: Iterable[Request], *, run_at: int = RUN_AT) -> Plan:
    """As `plan`; what is assigned is taken from the board. `run_at`: how many alike are placed at once; it changes no host."""
    placing = _Placing(board, run_at)
    waiting = placing.serve(in_turn(requests))
    while placing.may_help(waiting):
        waiting = placing.serve(waiting)
    return Plan(assignments=tuple(placing.assignments), refusals=tuple(placing.refusals(waiting)))


class _Placing:
    """What is known while one plan is made."""

    def __init__(self, board: Board, run_at: int) -> None:
        self._board = board
        self._run_at = run_at
        self._kinds: dict[Key, Kind] = {}
        self._refused: dict[Key, int] = {}
        """Kinds that fit nowhere, with the length of the board's log at which they did not."""
        self.assignments: list[Assignment] = []

    def serve(self, requests: Sequence[Request]) -> list[Request]:
        """Those that got no host."""
        waiting: list[Request] = []
        for key, same in groupby(requests, key_of):
            alike = list(same)
            if not self._open(key):
                waiting += alike
            elif len(alike) >= self._run_at and self._kind(key, alike[0]).may_run:
                waiting += self._run(key, alike)
            else:
                waiting += [
                    each for each in alike if not (self._open(key) and self._place(key, each))
                ]
        return waiting

    def _kind(self, key: Key, request: Request) -> Kind:
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = Kind(self._board, request)
        return kind

    def _run(self, key: Key, requests: Sequence[Request]) -> list[Request]:
        """All of one kind, as one after the other."""
        kind, board = self._kinds[key], self._board
        run = run_of(kind, len(requests))
        chosen = run.hosts.tolist()
        reasons = whys(kind, chosen, run.fitting.tolist())
        self.assignments += [
            Assignment(uid=request.uid, host=board.hosts[host].name, message=reason)
            for request, host, reason in zip(requests, chosen, reasons, strict=False)
        ]
        hosts, times = np.unique(run.hosts, return_counts=True)
        board.take_many(hosts, times, kind.request)
        if len(chosen) < len(requests):
            self._refused[key] = len(board.log)
        return list(requests[len(chosen) :])

    def may_help(self, waiting: Sequence[Request]) -> bool:
        """Whether something was placed since one of them was refused that could change that."""
        return any(self._open(key_of(request)) for request in waiting)

    def refusals(self, waiting: Sequence[Request]) -> list[Refusal]:
        made: dict[Key, Refusal] = {}
        found = []
        for request in waiting:
            key = key_of(request)
            if key not in made:
                made[key] = refusal_of(self._board, request)
            found.append(msgspec.structs.replace(made[key], uid=request.uid))
        return found

    def _open(self, key: Key) -> bool:
        refused_at = self._refused.get(key)
        if refused_at is None:
            return True
        return self._kinds[key].crowded and refused_at < len(self._board.log)

    def _place(self, key: Key, request: Request) -> bool:
        kind = self._kind(key, request)
        host = kind.choose()
        if host is None:
            self._refused[key] = len(self._board.log)
            return False
        row, message = self._board.hosts[host], why(kind, host, kind.fitting())
        self._board.take(host, request)
        self.assignments.append(Assignment(uid=request.uid, host=row.name, message=message))
        return True


def why(kind: Kind, host: int, fitting: int) -> str:
    """Why this host, before it is taken; `fitting` hosts could have been."""
    board, request = kind.board, kind.request
    row, hosts = board.hosts[host], len(board.hosts)
    if request.host:
        return f"this is the host {request.host_why}"
    if fitting == 1:
        return "the only host that fits" if hosts > 1 else "the only host"
    if request.strategy is Strategy.PACK:
        return f"{fitting} of {hosts} hosts fit; {row.name} has the least left"
    return _first_words(kind, fitting) + board.told[host]


def whys(kind: Kind, hosts: Sequence[int], fitting: Sequence[int]) -> list[str]:
    """As `why`, of many of one kind one after the other."""
    request, told = kind.request, kind.board.told
    if request.host or request.strategy is Strategy.PACK:
        return [why(kind, host, left) for host, left in zip(hosts, fitting, strict=True)]
    words = {left: _first_words(kind, left) for left in set(fitting)}
    return [
        words[left] + told[host] if left > 1 else why(kind, host, left)
        for host, left in zip(hosts, fitting, strict=True)
    ]


def _first_words(kind: Kind, fitting: int) -> str:
    best = " of those where most of its wishes come true" if kind.checks.should[1:] else ""
    return f"{fitting} of {len(kind.board.hosts)} hosts fit;{best}"
