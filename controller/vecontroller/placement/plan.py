"""Chooses hosts for VEs: pure, deterministic, never more than a host's ledger has room for.

A VE goes to a host that passes all checks; among those to the rack with the fewest VEs per host, there to the host
with the least committed of its scarcest resource, then the fewest VEs, then the lowest name. Requests are served by age,
so that the order in which they are handed over does not count. A kind of request that was refused once in a plan is
refused again without looking: within a plan room only shrinks.
"""

from collections.abc import Iterable

import msgspec

from vecontroller.placement.board import Board
from vecontroller.placement.kind import Key, Kind, key_of
from vecontroller.placement.model import Assignment, HostRow, Plan, Refusal, Request
from vecontroller.placement.refusal import refusal_of


def plan(hosts: Iterable[HostRow], requests: Iterable[Request]) -> Plan:
    """Every request is either assigned or refused; refusing changes nothing."""
    return place(Board(hosts), requests)


def place(board: Board, requests: Iterable[Request]) -> Plan:
    """As `plan`; what is assigned is taken from the board."""
    assignments: list[Assignment] = []
    refusals: list[Refusal] = []
    kinds: dict[Key, Kind] = {}
    refused: dict[Key, Refusal] = {}
    for request in sorted(requests, key=lambda each: (each.since, each.uid)):
        key = key_of(request)
        kind = kinds.get(key)
        if kind is None:
            kind = kinds[key] = Kind(board, request)
        outcome = refused.get(key) or _place(kind, request)
        if isinstance(outcome, Assignment):
            assignments.append(outcome)
        else:
            refused[key] = outcome
            refusals.append(msgspec.structs.replace(outcome, uid=request.uid))
    return Plan(assignments=tuple(assignments), refusals=tuple(refusals))


def _place(kind: Kind, request: Request) -> Assignment | Refusal:
    host = kind.choose()
    if host is None:
        return refusal_of(kind.board, request)
    message = why(kind, host)
    kind.board.take(host, request)
    return Assignment(uid=request.uid, host=kind.board.hosts[host].name, message=message)


def why(kind: Kind, host: int) -> str:
    """Why this host, before it is taken."""
    board, request = kind.board, kind.request
    row, hosts, fitting = board.hosts[host], len(board.hosts), kind.fitting()
    if request.host:
        return f"this is the host {request.host_why}"
    if fitting == 1:
        return "the only host that fits" if hosts > 1 else "the only host"
    return (
        f"{fitting} of {hosts} hosts fit; rack {row.rack or '(none)'} has the fewest VEs per host, "
        f"{row.name} is the least committed in it"
    )
