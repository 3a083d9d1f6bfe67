"""How many VEs of some labels are in each rack (or whatever they are counted over), and where VEs live that mind company.

Counted once when somebody asks, then kept up with what is taken and given back.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from veapi.errors import InvalidInput
from veapi.selector import Terms
from veapi.wishes import Among, among
from vecontroller.placement.domain import Domain, Ints
from vecontroller.placement.model import Request

if TYPE_CHECKING:
    from vecontroller.placement.board import Board


@dataclass(frozen=True, slots=True)
class Crowd:
    """`counts` has one more place than the domain has names: for hosts without the label. `places`: each host's, as a list."""

    domain: Domain[str]
    counts: Ints
    places: list[int]

    @property
    def total(self) -> int:
        return int(self.counts.sum())


@dataclass(frozen=True, slots=True)
class _Members:
    """Whose VEs count: of the project, with these labels."""

    project: str
    match: Terms
    over: str

    def hold(self, request: Request) -> bool:
        return request.project == self.project and self.match(request.labels)


@dataclass(frozen=True, slots=True)
class Minding:
    """A wish of VEs of a project to be apart. `own`: they are themselves among those that it is about."""

    project: str
    wish: Among
    own: bool

    @property
    def most(self) -> int:
        """How many of those that it is about may be where such a VE is."""
        return self.wish.limit if self.own else self.wish.limit - 1

    @property
    def over(self) -> str:
        return self.wish.over

    def hold(self, request: Request) -> bool:
        return (
            request.project == self.project
            and self.wish in minding(request.apart)
            and self.wish.match(request.labels) is self.own
        )


@lru_cache(maxsize=4096)
def minding(texts: tuple[str, ...]) -> tuple[Among, ...]:
    """Wishes to be apart that must come true. What can't be read is nobody's wish here; it is refused where it is checked."""
    return tuple(_readable(texts))


def _readable(texts: tuple[str, ...]) -> Iterator[Among]:
    for text in texts:
        try:
            wish = among("apart", text)
        except InvalidInput:
            continue
        if not wish.weight:
            yield wish


@dataclass(slots=True)
class _Tally:
    """Of VEs that have a wish."""

    ves: int = 0


@dataclass(frozen=True, slots=True)
class _Alike:
    """VEs that count in the same as `one`: of each its host, and 1 or -1 (or as many) when it came or went."""

    one: Request
    hosts: Ints
    signs: Ints


@dataclass(frozen=True, slots=True)
class _Part:
    """What VEs with the same project, labels and wishes to be apart are counted in."""

    crowds: list[Crowd]
    minding: list[_Tally]


class Crowds:
    """Of one board."""

    def __init__(self, board: "Board", before: "Crowds | None" = None) -> None:
        """`before`: of the board that this one was made of."""
        self._board = board
        self._kept: dict[_Members | Minding, Crowd] = {}
        self._alike: list[_Alike] | None = None
        self._of: dict[tuple[object, ...], _Part] = {}
        self._minded: dict[Minding, _Tally] | None = None
        changes = before.changes if before is not None else []
        self.changes: list[tuple[int, Request, int]] = [
            change for change in changes if change[0] not in board.lost
        ]
        """What came and went since the board was made: host, VE, and 1 or -1."""
        self.minded_version = 0
        """Goes up when there is another wish to be apart, or one less."""

    def members(self, project: str, wish: Among) -> Crowd:
        """VEs that the wish is about."""
        return self._crowd(_Members(project, wish.match, wish.over))

    def holders(self, minding: Minding) -> Crowd:
        """VEs that have the wish."""
        return self._crowd(minding)

    def minded(self, request: Request) -> list[Minding]:
        """Wishes of VEs of the board that the request would break by its coming; but for those that it has itself."""
        if self._minded is None:
            self._minded = {}
            self._of.clear()
            for alike in self._all():
                self._mind(self._part(alike.one), int(alike.signs.sum()))
        own = minding(request.apart)
        found = [
            each
            for each, tally in self._minded.items()
            if tally.ves
            and each.project == request.project
            and each.wish.match(request.labels)
            and not (each.own and each.wish in own)
        ]
        return sorted(found, key=str)

    def change(self, host: int, request: Request, sign: int) -> None:
        """A VE comes (1) to the host, or goes (-1)."""
        self.changes.append((host, request, sign))
        self._count(host, request, sign)

    def change_many(self, hosts: Ints, times: Ints, request: Request) -> None:
        """So many like it come to each of the hosts."""
        many = zip(hosts.tolist(), times.tolist(), strict=True)
        self.changes += [(host, request, count) for host, count in many]
        part = self._part(request)
        for crowd in part.crowds:
            np.add.at(crowd.counts, crowd.domain.index[hosts], times)
        if len(hosts):
            self._mind(part, int(times.sum()))

    def _count(self, host: int, request: Request, sign: int) -> None:
        part = self._part(request)
        for crowd in part.crowds:
            crowd.counts[crowd.places[host]] += sign
        if part.minding:
            self._mind(part, sign)

    def moved(self, host: int, were: Sequence[Request], are: Sequence[Request]) -> None:
        """What the host began with is another one now."""
        before, after = {each.uid: each for each in were}, {each.uid: each for each in are}
        for uid in before.keys() | after.keys():
            was, now = before.get(uid), after.get(uid)
            if was != now:
                if was is not None:
                    self._count(host, was, -1)
                if now is not None:
                    self._count(host, now, 1)
        self._alike = None

    def settle(self) -> None:
        """What came and went so far is what the board began with."""
        self._alike = list(self._all())
        self.changes = []

    def rewind(self) -> None:
        """All that came and went since is taken back."""
        changes, self.changes = self.changes, []
        for host, request, sign in reversed(changes):
            self._count(host, request, -sign)

    def _part(self, request: Request) -> "_Part":
        """What such a VE counts in."""
        key = _who(request)
        found = self._of.get(key)
        if found is None:
            crowds = [crowd for who, crowd in self._kept.items() if who.hold(request)]
            found = self._of[key] = _Part(crowds, self._minding(request))
        return found

    def _minding(self, request: Request) -> "list[_Tally]":
        if self._minded is None:
            return []
        keys = (
            Minding(request.project, wish, wish.match(request.labels))
            for wish in minding(request.apart)
        )
        return [self._minded.setdefault(key, _Tally()) for key in keys]

    def _mind(self, part: "_Part", sign: int) -> None:
        for tally in part.minding:
            before, tally.ves = tally.ves, tally.ves + sign
            if not before or not tally.ves:
                self.minded_version += 1

    def _crowd(self, who: _Members | Minding) -> Crowd:
        found = self._kept.get(who)
        if found is None:
            self._of.clear()
            domain = self._board.domain(who.over)
            found = self._kept[who] = Crowd(domain, domain.zeros(), domain.places)
            for alike in self._all():
                if who.hold(alike.one):
                    np.add.at(found.counts, domain.index[alike.hosts], alike.signs)
        return found

    def _all(self) -> "Iterator[_Alike]":
        """What hosts began with, but for what is imagined to be lost; then all that changed."""
        if self._alike is None:
            self._alike = _grouped(self._tenants_at_first())
        yield from self._alike
        yield from _grouped(self.changes)

    def _tenants_at_first(self) -> Iterable[tuple[int, Request, int]]:
        for host, row in enumerate(self._board.hosts):
            if row.tenants and host not in self._board.lost:
                for tenant in row.tenants:
                    yield host, tenant, 1


def _who(request: Request) -> tuple[object, ...]:
    """Equal for VEs that count in the same."""
    labels = frozenset(request.labels.items()) if request.labels else None
    return (request.project, labels, request.apart)


def _grouped(tenants: Iterable[tuple[int, Request, int]]) -> "list[_Alike]":
    """There are many VEs and few kinds of them: what is asked is asked once of each kind."""
    found: dict[tuple[object, ...], tuple[Request, list[int], list[int]]] = {}
    for host, tenant, sign in tenants:
        key = _who(tenant)
        if key not in found:
            found[key] = (tenant, [], [])
        _, hosts, signs = found[key]
        hosts.append(host)
        signs.append(sign)
    return [_Alike(one, np.array(hosts), np.array(signs)) for one, hosts, signs in found.values()]
