"""Hosts as NumPy columns: what a placement looks at, and what it changes when it takes a host."""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from veapi.model import Resources
from veapi.selector import Terms
from veapi.wishes import HOST
from vecontroller.placement.crowd import Crowds
from vecontroller.placement.domain import Domain
from vecontroller.placement.model import HostRow, Request

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
RESOURCES = ("cpu", "memory", "disk", "pids")
PARTS = 1_000_000
"""Shares are whole parts per million: integers compare the same on every machine."""


def amounts(amount: Resources) -> tuple[int, int, int, int]:
    """In the order of RESOURCES: thousandths of a core, bytes, bytes, number."""
    return (amount.cpu_millis, amount.memory_bytes, amount.disk_bytes, amount.pids)


def _matrix(rows: Sequence[Resources]) -> Ints:
    if not rows:
        return np.zeros((len(RESOURCES), 0), dtype=np.int64)
    return np.ascontiguousarray(np.array([amounts(row) for row in rows], dtype=np.int64).T)


def _alike(was: HostRow, now: HostRow) -> bool:
    """Whether a board keeps its columns of labels, taints and images."""
    return (was.name, was.rack, was.labels, was.taints, was.images) == (
        now.name,
        now.rack,
        now.labels,
        now.taints,
        now.images,
    )


class Board:
    """Hosts in the order of rack and name, so that each rack is a slice and the first of equals the one with the lowest name.

    `capacity`, `free` and `whole` (the capacity to divide by, at least 1) are (4, hosts), in the order of RESOURCES; `free` may be negative where a host shrank; `rack` is each host's index into the rack columns, and
    `starts` and `ends` the slice of each rack. Racks count only hosts that are able to take VEs. `log`: hosts that were changed;
    `lost`: those that are imagined to be.
    """

    def __init__(self, hosts: Iterable[HostRow]) -> None:
        self.hosts = sorted(hosts, key=lambda row: (row.rack, row.name))
        self.index: dict[str, int] = {row.name: index for index, row in enumerate(self.hosts)}
        self.capacity = _matrix([row.capacity for row in self.hosts])
        free = self.capacity - _matrix([row.committed for row in self.hosts])
        placed = np.array([[row.placed for row in self.hosts]], dtype=np.int64)
        self._keep(np.concatenate((free, np.maximum(self.capacity, 1), placed)))
        self.able: Bools = np.array([row.able for row in self.hosts], dtype=np.bool_)
        self.unfenced: Bools = np.array([row.unfenced for row in self.hosts], dtype=np.bool_)
        self.racks = sorted({row.rack for row in self.hosts})
        places = {rack: index for index, rack in enumerate(self.racks)}
        self.rack = np.array([places[row.rack] for row in self.hosts], dtype=np.int64)
        self.starts = np.searchsorted(self.rack, np.arange(len(self.racks)))
        self.ends = np.append(self.starts[1:], len(self.hosts))[: len(self.racks)]
        self.count_racks()
        self.lost: frozenset[int] = frozenset()
        self.crowds = Crowds(self)
        self._domains: dict[str, Domain[str]] = {}
        self._matching: dict[Terms, Bools] = {}
        self._holding: dict[str, Bools] = {}
        self._taints: Domain[tuple[str, ...]] | None = None
        self.log: list[int] = []

    def _keep(self, columns: Ints) -> None:
        """What scores are made of, in one array: so that a few hosts are taken out of it at once."""
        self.columns = columns
        self.free, self.whole, self.placed = columns[:4], columns[4:8], columns[8]

    def without(self, hosts: Iterable[int]) -> Self:
        """Another board, as it would be if these hosts were lost."""
        other = copy(self)
        other.able = self.able.copy()
        other.lost = self.lost.union(hosts)
        other.able[list(other.lost)] = False
        other.log = []
        other._keep(self.columns.copy())  # noqa: SLF001 - of the same class
        other.crowds = Crowds(other, self.crowds)
        other.count_racks()
        return other

    def follow(self, before: Sequence[HostRow], rows: Sequence[HostRow]) -> bool:
        """Becomes the board of `rows`, where it was that of `before` (with nothing taken); False: it is to be made anew."""
        if len(before) != len(rows) or len(before) != len(self.hosts):
            return False
        changed = [(was, now) for was, now in zip(before, rows, strict=True) if was is not now]
        if not all(_alike(was, now) for was, now in changed):
            return False
        for was, now in changed:
            self._put(self.index[now.name], was, now)
        if changed:
            self.count_racks()
        return True

    def _put(self, host: int, was: HostRow, now: HostRow) -> None:
        self.hosts[host] = now
        self.capacity[:, host] = amounts(now.capacity)
        self.whole[:, host] = np.maximum(self.capacity[:, host], 1)
        self.free[:, host] = self.capacity[:, host] - np.array(amounts(now.committed))
        self.placed[host] = now.placed
        self.able[host] = now.able
        self.unfenced[host] = now.unfenced
        if was.tenants != now.tenants:
            self.crowds.moved(host, was.tenants, now.tenants)

    def settle(self) -> None:
        """What was taken so far is not given back by `rewind` any more."""
        self.crowds.settle()
        self.log.clear()

    def rewind(self) -> None:
        """Gives back all that was taken."""
        for host, request, sign in reversed(self.crowds.changes):
            self.free[:, host] += np.array(amounts(request.resources)) * sign
            self.placed[host] -= sign
            if self.able[host]:
                self.rack_placed[self.rack[host]] -= sign
        self.crowds.rewind()
        self.log.clear()

    @cached_property
    def told(self) -> list[str]:
        """Of each host, why it is chosen: words that don't change with what is placed."""
        return [
            f" rack {row.rack or '(none)'} has the fewest VEs per host, {row.name} is the least committed in it"
            for row in self.hosts
        ]

    def domain(self, key: str) -> Domain[str]:
        """Hosts by the value of a label, or by themselves (`host`)."""
        found = self._domains.get(key)
        if found is None:
            values = [row.name if key == HOST else row.labels.get(key) for row in self.hosts]
            found = self._domains[key] = Domain(values)
        return found

    def matching(self, terms: Terms) -> Bools:
        """Hosts whose labels are so."""
        found = self._matching.get(terms)
        if found is None:
            found = np.ones(len(self.hosts), dtype=np.bool_)
            for term in terms.terms:
                found &= self.domain(term.key).where(term.holds)
            self._matching[terms] = found
        return found

    def holding(self, image: str) -> Bools:
        """Hosts that have the image; all, where it is none."""
        found = self._holding.get(image)
        if found is None:
            has = [not image or image in row.images for row in self.hosts]
            found = self._holding[image] = np.array(has, dtype=np.bool_)
        return found

    def tainted(self, minded: Callable[[tuple[str, ...]], bool]) -> Bools:
        """Hosts whose taints are minded; each set of taints is asked about once."""
        if self._taints is None:
            self._taints = Domain([row.taints for row in self.hosts])
        return self._taints.where(lambda taints: taints is not None and minded(taints))

    def count_racks(self) -> None:
        """Anew, of the hosts that are able."""
        self.rack_placed = self._per_rack(self.placed)
        self.rack_hosts = np.maximum(self._per_rack(np.ones_like(self.placed)), 1)

    def _per_rack(self, column: Ints) -> Ints:
        sums = np.zeros(len(self.racks), dtype=np.int64)
        np.add.at(sums, self.rack[self.able], column[self.able])
        return sums

    def rack_load(self) -> Ints:
        """VEs per able host of each rack, in parts: the second VE never joins the first in its rack."""
        return self.rack_placed * PARTS // self.rack_hosts

    def take(self, host: int, request: Request) -> None:
        """Commits it to that host."""
        self._change(host, request, 1)

    def take_many(self, hosts: Ints, times: Ints, request: Request) -> None:
        """Commits as many as it to each of these able hosts, which are there once each."""
        self.free[:, hosts] -= np.array(amounts(request.resources))[:, np.newaxis] * times
        self.placed[hosts] += times
        np.add.at(self.rack_placed, self.rack[hosts], times)
        self.log += hosts.tolist()
        self.crowds.change_many(hosts, times, request)

    def give_back(self, host: int, request: Request) -> None:
        """The reverse of `take`."""
        self._change(host, request, -1)

    def _change(self, host: int, request: Request, sign: int) -> None:
        self.free[:, host] -= np.array(amounts(request.resources)) * sign
        self.placed[host] += sign
        if self.able[host]:
            self.rack_placed[self.rack[host]] += sign
        self.log.append(host)
        self.crowds.change(host, request, sign)
