"""Thinks changes through on a copy of the world: what goes where then, and what fits nowhere.

The order is that in which it would be seen for real: what VEs on hosts that stay are to have more is taken there first (it
is refused, not moved, where there is no room); then hosts go and come; then all who have no host are served in their turn,
by the plan that the scheduler makes. What a VE's policy says of the loss of its host does not count: this says what could be done.
"""

from collections.abc import Mapping, Sequence

import msgspec

from veapi.errors import InvalidInput
from veapi.model import HostName, Resources, Uid
from vecontroller.placement import Board, HostRow, Refusal, Request, place, shortage
from vecontroller.placement.refusal import NO_HOST_FITS
from vecontroller.whatif import hosts as imagined
from vecontroller.whatif.model import Change, Changes, Fate, HostChange, Outcome, World

VES_LIMIT = 100_000
"""Of those that a simulation looks for hosts for: some seconds of work."""


def simulate(world: World, changes: Changes) -> Outcome:
    """The world is left as it is. NotFound: no such host or rack; InvalidInput: more than can be thought through."""
    new, changed = _sorted_out(world, changes)
    gone = imagined.removed(world.hosts, changes.remove_hosts, changes.remove_racks)
    come = imagined.added(world.hosts, changes.add)
    grown, staying = _grow([row for row in world.hosts if row.name not in gone], changed)
    displaced = {
        each.uid: (row.name, each)
        for row in world.hosts
        if row.name in gone
        for each in row.tenants
    }
    without = [*world.waiting, *(each for _, each in displaced.values())]
    seekers = [*(changed.get(each.uid, each) for each in without), *new]
    if len(seekers) > VES_LIMIT:
        raise InvalidInput(
            f"{len(seekers)} VEs need a host then; at most {VES_LIMIT} can be simulated",
            hint="remove fewer hosts at once, or apply less",
        )
    board = Board([*staying, *come])
    was_on = {uid: host for uid, (host, _) in displaced.items()}
    fates = _served(board, seekers, was_on, {each.uid for each in new})
    return Outcome(fates=(*grown, *fates), hosts=_hosts(world.hosts, board, gone, come))


def _sorted_out(world: World, changes: Changes) -> tuple[list[Request], dict[Uid, Request]]:
    """The new, and those that change."""
    new = [each for each in changes.apply if each.uid not in world.known]
    return new, {each.uid: each for each in changes.apply if each.uid in world.known}


def _grow(
    rows: Sequence[HostRow], changed: Mapping[Uid, Request]
) -> tuple[list[Fate], list[HostRow]]:
    """VEs that have a host and are to be otherwise, in the order of `changed`; and the hosts as they are with them."""
    after, fates = {row.name: row for row in rows}, list[Fate]()
    held = {each.uid: (row.name, each) for row in rows for each in row.tenants}
    for uid, wanted in changed.items():
        if uid in held and held[uid][1] != wanted:
            host, tenant = held[uid]
            fate, after[host] = _grown(after[host], tenant, wanted)
            fates.append(fate)
    return fates, list(after.values())


def _grown(row: HostRow, tenant: Request, wanted: Request) -> tuple[Fate, HostRow]:
    more, free = _minus(wanted.resources, tenant.resources), _minus(row.capacity, row.committed)
    fate = Fate(uid=tenant.uid, change=Change.CHANGED, was_on=row.name)
    lacks = shortage(free, more)
    if lacks:
        message = (
            f"host {row.name} has too little {' and '.join(lacks)} for what it is to have more"
        )
        refusal = Refusal(
            uid=tenant.uid,
            reason=NO_HOST_FITS,
            message=message,
            hint=f"ask for less, or make room there: `vectl host show {row.name}`",
        )
        return msgspec.structs.replace(fate, refusal=refusal), row
    tenants = tuple(wanted if each.uid == tenant.uid else each for each in row.tenants)
    taken = msgspec.structs.replace(row, tenants=tenants, committed=row.committed + more)
    return msgspec.structs.replace(fate, host=row.name, message="it stays where it is"), taken


def _minus(one: Resources, other: Resources) -> Resources:
    """May be below 0."""
    return Resources(
        cpu_millis=one.cpu_millis - other.cpu_millis,
        memory_bytes=one.memory_bytes - other.memory_bytes,
        disk_bytes=one.disk_bytes - other.disk_bytes,
        pids=one.pids - other.pids,
    )


def _served(
    board: Board, seekers: Sequence[Request], displaced: Mapping[Uid, HostName], new: set[Uid]
) -> list[Fate]:
    made = place(board, seekers)

    def begun(uid: Uid) -> Fate:
        if uid in new:
            return Fate(uid=uid, change=Change.NEW)
        if uid in displaced:
            return Fate(uid=uid, change=Change.DISPLACED, was_on=displaced[uid])
        return Fate(uid=uid, change=Change.WAITING)

    return [
        *(
            msgspec.structs.replace(begun(each.uid), host=each.host, message=each.message)
            for each in made.assignments
        ),
        *(msgspec.structs.replace(begun(each.uid), refusal=each) for each in made.refusals),
    ]


def _hosts(
    before: Sequence[HostRow], board: Board, gone: set[HostName], come: Sequence[HostRow]
) -> tuple[HostChange, ...]:
    lines = [_line(row, row, board, "removed" if row.name in gone else "") for row in before]
    lines += [_line(None, row, board, "added") for row in come]
    return tuple(sorted(lines, key=lambda line: line.name))


def _line(was: HostRow | None, row: HostRow, board: Board, change: str) -> HostChange:
    at = board.index.get(row.name)
    after, ves = Resources(), 0
    if at is not None:
        taken = (board.capacity[:, at] - board.free[:, at]).tolist()
        after = Resources(
            cpu_millis=taken[0], memory_bytes=taken[1], disk_bytes=taken[2], pids=taken[3]
        )
        ves = int(board.placed[at])
    return HostChange(
        name=row.name,
        rack=row.rack,
        change=change,
        able=row.able and at is not None,
        room=row.capacity,
        before=was.committed if was is not None else Resources(),
        after=after,
        ves_before=was.placed if was is not None else 0,
        ves_after=ves,
    )
