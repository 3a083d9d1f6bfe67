"""Placement as it is told in words, one host after the other in plain Python: what the fast one must equal."""

from dataclasses import dataclass, field

from veapi import selector
from veapi.wishes import among, preferred, taint_of
from vecontroller.placement import HostRow, Request, Strategy

PARTS = 1_000_000
FIELDS = ("cpu_millis", "memory_bytes", "disk_bytes", "pids")


@dataclass
class Place:
    """A host and who is on it by now."""

    row: HostRow
    taken: list[Request] = field(default_factory=list)

    @property
    def everybody(self) -> list[Request]:
        return [*self.row.tenants, *self.taken]

    @property
    def placed(self) -> int:
        return self.row.placed + len(self.taken)

    def used(self, name: str):
        return getattr(self.row.committed, name) + sum(
            getattr(each.resources, name) for each in self.taken
        )

    def value(self, key: str) -> str | None:
        return self.row.name if key == "host" else self.row.labels.get(key)


def brute_plan(hosts: list[HostRow], requests: list[Request]) -> dict[str, str]:
    """Host by uid of those that get one."""
    places = [Place(row) for row in sorted(hosts, key=lambda row: (row.rack, row.name))]
    given: dict[str, str] = {}
    waiting = queue(requests)
    while True:
        before = len(given)
        for request in [each for each in waiting if each.uid not in given]:
            place = choose(places, request)
            if place is not None:
                place.taken.append(request)
                given[request.uid] = place.row.name
        if len(given) == before:
            return given


def queue(requests: list[Request]) -> list[Request]:
    """By priority; projects take turns, the oldest of each first."""
    left, ordered = sorted(requests, key=lambda each: (each.since, each.uid)), []
    while left:
        highest = max(each.priority for each in left)
        heads = {each.project: each for each in reversed(left) if each.priority == highest}
        turn = [each for each in left if heads.get(each.project) is each]
        ordered += turn
        left = [each for each in left if each not in turn]
    return ordered


def choose(places: list[Place], request: Request) -> Place | None:
    fixed = [place for place in places if passes_alone(place, request)]
    fit = [
        place
        for place in fixed
        if has_room(place, request) and fails(places, fixed, place, request, required=True) == 0
    ]
    if request.gone or not fit:
        return None
    return min(fit, key=lambda place: order(places, fixed, place, request))


def passes_alone(place: Place, request: Request) -> bool:
    row = place.row
    return (
        row.able
        and request.host in {"", row.name}
        and all(selector.selector(text)(row.labels) for text in request.require)
        and not taints(row, request, preferred_ones=False)
    )


def taints(row: HostRow, request: Request, *, preferred_ones: bool) -> bool:
    read = [taint_of(text) for text in row.taints]
    return any(
        each.preferred is preferred_ones
        and each.key not in request.tolerate
        and f"{each.key}={each.value}" not in request.tolerate
        for each in read
    )


def has_room(place: Place, request: Request) -> bool:
    return all(
        place.used(name) + getattr(request.resources, name) <= getattr(place.row.capacity, name)
        for name in FIELDS
    )


def fails(places, fixed, place, request, *, required: bool) -> int:
    """The weights of wishes about company that don't come true there; 1 for each that must."""
    cost = 0
    for kind in ("near", "apart", "spread"):
        for wish in (among(kind, text) for text in getattr(request, kind)):
            if bool(wish.weight) is not required and not company(
                places, fixed, place, request, wish
            ):
                cost += wish.weight or 1
    return cost + (minded(places, place, request) if required else 0)


def count(places, request, wish, value) -> int:
    return sum(
        each.project == request.project and wish.match(each.labels)
        for place in places
        if place.value(wish.over) == value
        for each in place.everybody
    )


def company(places, fixed, place, request, wish):
    value, own = place.value(wish.over), wish.match(request.labels)
    if wish.kind == "apart":
        return value is None or count(places, request, wish, value) < wish.limit
    if value is None:
        return False
    there = count(places, request, wish, value)
    if wish.kind == "near":
        everywhere = {each.value(wish.over) for each in places}
        total = sum(count(places, request, wish, each) for each in everywhere)
        return there > 0 or (own and total == 0)
    values = {each.value(wish.over) for each in fixed} - {None}
    least = min((count(places, request, wish, each) for each in values), default=0)
    return there + own <= least + wish.limit


def minded(places, place, request) -> int:
    """VEs that wish to be apart from it, where it would be too many."""
    cost = 0
    for other in places:
        for tenant in other.everybody:
            for wish in (among("apart", text) for text in tenant.apart):
                value, own = place.value(wish.over), wish.match(tenant.labels)
                if (
                    not wish.weight
                    and tenant.project == request.project
                    and wish.match(request.labels)
                    and value is not None
                    and value == other.value(wish.over)
                    and count(places, request, wish, value) + 1 > wish.limit - (not own)
                ):
                    cost += 1
    return cost


def order(places, fixed, place, request) -> tuple:
    """The least is the best."""
    row = place.row
    wishes = fails(places, fixed, place, request, required=False)
    for wish in (preferred(text) for text in request.prefer):
        wishes += 0 if wish.match(row.labels) else wish.weight
    wishes += 50 if taints(row, request, preferred_ones=True) else 0
    able = [each for each in places if each.row.rack == row.rack and each.row.able]
    load = sum(each.placed for each in able) * PARTS // len(able)
    share = 0.0
    for name in FIELDS:
        whole = max(getattr(row.capacity, name), 1)
        free = getattr(row.capacity, name) - place.used(name)
        share = max(share, (whole - free + getattr(request.resources, name)) / whole * PARTS)
    fetch = 0 if not request.image or request.image in row.images else PARTS // 20
    if request.strategy is Strategy.PACK:
        return (wishes, PARTS - int(share) + fetch, place.placed, row.rack, row.name)
    return (wishes, load, int(share) + fetch, place.placed, row.rack, row.name)
