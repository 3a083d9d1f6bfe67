"""Hosts that are imagined to come or to go."""

from collections.abc import Iterable, Sequence
from itertools import count

from veapi.errors import InvalidInput, NotFound
from veapi.model import HostName, Resources
from vecontroller.placement import HostRow
from vecontroller.placement.ledger import RACK_LABEL
from vecontroller.whatif.model import AddedHosts

HOSTS_LIMIT = 10_000
_SHOWN = 8


def removed(rows: Sequence[HostRow], hosts: Iterable[str], racks: Iterable[str]) -> set[HostName]:
    """Names of the hosts that go. NotFound: there is no such host or rack."""
    names, gone = {row.name for row in rows}, set[HostName]()
    for host in hosts:
        if host not in names:
            raise NotFound(f"no host {host[:80]}", hint=f"there are {_some(names)}")
        gone.add(HostName(host))
    for rack in racks:
        inside = {row.name for row in rows if row.rack == rack}
        if not inside:
            known = {row.rack for row in rows if row.rack}
            raise NotFound(f"no host is in rack {rack[:80]}", hint=f"there are {_some(known)}")
        gone |= inside
    return gone


def added(rows: Sequence[HostRow], wishes: Iterable[AddedHosts]) -> list[HostRow]:
    """New hosts: empty, able, with names that are free. NotFound: there is none to be like."""
    names, made = {row.name: row for row in rows}, list[HostRow]()
    free = (name for number in count(1) if (name := HostName(f"new-{number}")) not in names)
    for wish in wishes:
        like = names.get(wish.like)
        if like is None:
            raise NotFound(f"no host {wish.like[:80]} to be like", hint=f"there are {_some(names)}")
        if wish.count < 1 or len(rows) + len(made) + wish.count > HOSTS_LIMIT:
            raise InvalidInput(
                f"add: {wish.count} hosts to {len(rows) + len(made)}",
                hint=f"add at least one, and to at most {HOSTS_LIMIT} in all",
            )
        made += [_like(like, next(free), wish.rack) for _ in range(wish.count)]
    return made


def _like(row: HostRow, name: HostName, rack: str) -> HostRow:
    return HostRow(
        name=name,
        rack=rack or row.rack,
        capacity=row.capacity,
        committed=Resources(),
        placed=0,
        labels={**row.labels, **({RACK_LABEL: rack} if rack else {})},
        taints=row.taints,
    )


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - _SHOWN
    return (", ".join(ordered[:_SHOWN]) or "none") + (f" and {more} more" if more > 0 else "")
