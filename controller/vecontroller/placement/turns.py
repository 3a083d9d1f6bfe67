"""In which order VEs that wait get hosts, and when it is worth to look at them again.

The higher priority comes first. Within one, projects take turns: first the oldest VE of each, then the second oldest of
each, so that one which asks for a thousand holds nobody up. Within a turn the older comes first.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter

from veapi.model import Value
from vecontroller.placement.board import amounts
from vecontroller.placement.model import HostRow, Request

_AGE = attrgetter("since", "uid")
_WHO = attrgetter("priority", "project")


def in_turn(requests: Iterable[Request]) -> list[Request]:
    """In the order in which they are served, whatever the order in which they come. Of one project and priority: by age."""
    aged = sorted(requests, key=_AGE)
    if len(set(map(_WHO, aged))) <= 1:
        return aged
    turns: Counter[tuple[int, str]] = Counter()
    ordered = []
    for request in aged:
        who = (-request.priority, request.project)
        ordered.append((who[0], turns[who], request.since, request.uid, request))
        turns[who] += 1
    return [each[-1] for each in sorted(ordered, key=lambda each: each[:-1])]


def could_help(before: HostRow | None, after: HostRow) -> bool:
    """Whether what changed of a host could make something fit that did not. `before` None: the host is new."""
    if not after.able:
        return False
    if before is None or not before.able:
        return True
    same = (before.labels, before.taints) == (after.labels, after.taints)
    fences = before.unfenced and not after.unfenced
    return (
        not same
        or fences
        or any(now > was for was, now in zip(_free(before), _free(after), strict=True))
    )


def _free(row: HostRow) -> tuple[int, ...]:
    pairs = zip(amounts(row.capacity), amounts(row.committed), strict=True)
    return tuple(whole - taken for whole, taken in pairs)


class Change(Value, frozen=True, kw_only=True):
    """What became of hosts since somebody was refused. `room`: something may fit that did not; `any`: something is not as it was."""

    room: bool
    any: bool

    def may_help(self, request: Request) -> bool:
        """Company is minded by wishes: there also a host that is lost, or a VE that came, can make it fit."""
        return self.room or (self.any and bool(request.near or request.apart or request.spread))


def change(before: Sequence[HostRow], after: Sequence[HostRow]) -> Change:
    """Between two looks at all hosts."""
    known = {row.name: row for row in before}
    return Change(
        room=any(
            could_help(was, row)
            for row, was in ((row, known.get(row.name)) for row in after)
            if was is not row
        ),
        any=list(before) != list(after),
    )
