"""Chooses hosts for VEs: pure, deterministic, never more than a host's ledger has room for.

A VE goes to a host that has room for all of it; among those to the rack with the fewest VEs per host, there to the host
with the least committed of its scarcest resource, then the fewest VEs, then the lowest name. Requests are served by age,
so that the order in which they are handed over does not count. A request of a shape that was refused once in a plan is
refused again without looking: within a plan room only shrinks.
"""

from collections.abc import Iterable

import msgspec
import numpy as np

from veapi.model import Resources
from vecontroller.placement.columns import Columns, Ints, vector
from vecontroller.placement.model import Assignment, HostRow, Plan, Refusal, Request
from vecontroller.placement.refusal import explain

_Shape = tuple[Resources, str, str, str]


def plan(hosts: Iterable[HostRow], requests: Iterable[Request]) -> Plan:
    """Every request is either assigned or refused; refusing changes nothing."""
    columns = Columns(list(hosts))
    assignments: list[Assignment] = []
    refusals: list[Refusal] = []
    refused: dict[_Shape, Refusal] = {}
    for request in sorted(requests, key=lambda each: (each.since, each.uid)):
        shape = (request.resources, request.host, request.host_why, request.gone)
        outcome = refused.get(shape) or _place(columns, request)
        if isinstance(outcome, Assignment):
            assignments.append(outcome)
        else:
            refused[shape] = outcome
            refusals.append(msgspec.structs.replace(outcome, uid=request.uid))
    return Plan(assignments=tuple(assignments), refusals=tuple(refusals))


def _place(columns: Columns, request: Request) -> Assignment | Refusal:
    wanted = vector(request.resources)
    candidates = _candidates(columns, request, wanted)
    if not candidates.size:
        return explain(columns, request, wanted)
    host = _choose(columns, candidates, wanted)
    columns.take(host, wanted)
    return Assignment(
        uid=request.uid,
        host=columns.hosts[host].name,
        message=_why(columns.hosts[host], request, candidates.size, len(columns.hosts)),
    )


def _candidates(columns: Columns, request: Request, wanted: Ints) -> Ints:
    """Indexes of the hosts that may have it, ascending: in the order of their names."""
    if not columns.hosts:
        return np.zeros(0, dtype=np.int64)
    if request.gone:
        return np.zeros(0, dtype=np.int64)
    mask = columns.fits(wanted) & columns.able
    if request.host:
        mask &= np.array([row.name == request.host for row in columns.hosts])
    return np.flatnonzero(mask)


def _choose(columns: Columns, candidates: Ints, wanted: Ints) -> int:
    candidates = _least(candidates, columns.rack_load(candidates))
    candidates = _least(candidates, columns.share(candidates, wanted))
    candidates = _least(candidates, columns.placed[candidates])
    return int(candidates[0])


def _least(candidates: Ints, score: Ints) -> Ints:
    least: Ints = candidates[score == score.min()]
    return least


def _why(row: HostRow, request: Request, fitting: int, hosts: int) -> str:
    if request.host:
        return f"this is the host {request.host_why}"
    if fitting == 1:
        return "the only host that fits" if hosts > 1 else "the only host"
    return (
        f"{fitting} of {hosts} hosts fit; rack {row.rack or '(none)'} has the fewest VEs per host, "
        f"{row.name} is the least committed in it"
    )
