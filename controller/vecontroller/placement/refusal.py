"""Why no host fits, in the words of a person: reasons summed over hosts, and what to do."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from veapi.model import HostState, Resources
from veapi.units import format_cpu, format_size
from vecontroller.placement.columns import RESOURCES, Columns, Ints, vector
from vecontroller.placement.model import ASKED_FOR, HostRow, Refusal, Request

NO_HOST_FITS = "NoHostFits"
_WAIT = "it starts by itself as soon as a host has room; or delete it"


def _cores(millis: int) -> str:
    return f"{format_cpu(millis)} cores"


_FORMAT: dict[str, Callable[[int], str]] = {
    "cpu": _cores,
    "memory": format_size,
    "disk": format_size,
    "pids": str,
}


def explain(columns: Columns, request: Request, wanted: Ints) -> Refusal:
    """The refusal of a request that fits nowhere."""
    if request.gone:
        return _refusal(request, request.gone, "delete it")
    if not columns.hosts:
        return _refusal(request, "there is no host yet", "start a veagent on a host; " + _WAIT)
    if request.host:
        return _explain_pinned(columns, request, wanted)
    reasons = [*_room_reasons(columns, wanted), *_state_reasons(columns.hosts)]
    message = f"{_hosts(len(columns.hosts))}: {', '.join(reasons)}"
    return _refusal(request, message, _hint(columns, wanted))


def shortage(free: Resources, wanted: Resources) -> list[str]:
    """What is too little, and how much of it there is: `memory (free 1.5G)`. Nothing is wanted of what is 0."""
    return [
        f"{resource} (free {_FORMAT[resource](max(int(left), 0))}, wanted {_FORMAT[resource](int(want))})"
        for resource, left, want in zip(RESOURCES, vector(free), vector(wanted), strict=True)
        if want > 0 and want > left
    ]


def _refusal(request: Request, message: str, hint: str) -> Refusal:
    return Refusal(uid=request.uid, reason=NO_HOST_FITS, message=message, hint=hint)


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"


def _room_reasons(columns: Columns, wanted: Ints) -> list[str]:
    """For each resource: how many able hosts have too little of it, and the most that any of them has free."""
    lacking = (columns.free < wanted) & columns.able[:, np.newaxis]
    reasons = []
    for index, resource in enumerate(RESOURCES):
        count = int(lacking[:, index].sum())
        if count:
            largest = max(int(columns.free[lacking[:, index], index].max()), 0)
            reasons.append(
                f"{count} too little {resource} (largest free {_FORMAT[resource](largest)})"
            )
    return reasons


def _state_reasons(hosts: Sequence[HostRow]) -> list[str]:
    counts = Counter(_state_word(row) for row in hosts if not row.able)
    return [f"{count} {word}" for word, count in sorted(counts.items())]


def _state_word(row: HostRow) -> str:
    match row.state:
        case HostState.SILENT:
            return "silent"
        case HostState.UNKNOWN:
            return "not heard of yet"
        case HostState.READY:
            return f"refuses new VEs ({row.refuses})" if row.refuses else "reconnecting"


def _elsewhere(request: Request) -> str:
    if request.host_why == ASKED_FOR:
        return "let the controller choose the host"
    return "make room on that host"


def _state_clause(row: HostRow) -> str:
    word = _state_word(row)
    return word if word.startswith("refuses") else f"is {word}"


def _hint(columns: Columns, wanted: Ints) -> str:
    over = [
        f"{resource} (at most {_FORMAT[resource](int(most))})"
        for resource, most, want in zip(
            RESOURCES, columns.capacity.max(axis=0), wanted, strict=True
        )
        if want > most
    ]
    if over:
        return f"no host is that large: ask for less {' and '.join(over)}; or delete it"
    if not columns.able.any():
        return "look at `vectl host list`; " + _WAIT
    return f"ask for less, or add a host; {_WAIT}"


def _explain_pinned(columns: Columns, request: Request, wanted: Ints) -> Refusal:
    found = [index for index, row in enumerate(columns.hosts) if row.name == request.host]
    if not found:
        known = ", ".join(row.name for row in columns.hosts[:10])
        return _refusal(
            request,
            f"host {request.host} is not known",
            f"known hosts: {known}; delete it and create it without a host, or with another one",
        )
    row = columns.hosts[found[0]]
    if not row.able:
        return _refusal(
            request,
            f"host {row.name}, {request.host_why}, {_state_clause(row)}",
            "it starts by itself when the host is able again; or delete it",
        )
    lacks = [
        f"{resource} (free {_FORMAT[resource](max(int(free), 0))})"
        for resource, free, want in zip(RESOURCES, columns.free[found[0]], wanted, strict=True)
        if want > free
    ]
    return _refusal(
        request,
        f"host {row.name}, {request.host_why}, has too little {' and '.join(lacks)}",
        f"ask for less, or {_elsewhere(request)}; {_WAIT}",
    )
