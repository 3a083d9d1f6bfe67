"""Hosts as NumPy columns: what a placement looks at, and what it changes when it takes a host."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from veapi.model import Resources
from vecontroller.placement.model import HostRow

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
RESOURCES = ("cpu", "memory", "disk", "pids")
PARTS = 1_000_000
"""Shares are whole parts per million: integers compare the same on every machine."""


def vector(amount: Resources) -> Ints:
    """Shape (4,), in the order of RESOURCES."""
    return np.array(
        (amount.cpu_millis, amount.memory_bytes, amount.disk_bytes, amount.pids), dtype=np.int64
    )


def _matrix(amounts: Sequence[Resources]) -> Ints:
    if not amounts:
        return np.zeros((0, len(RESOURCES)), dtype=np.int64)
    return np.stack([vector(amount) for amount in amounts])


class Columns:
    """Hosts in the order of their names, so that the first of equals is the one with the lowest name.

    `free` is (hosts, 4) and may be negative where a host shrank; `rack` is each host's index into the rack columns.
    Racks count only hosts that are able to take VEs.
    """

    def __init__(self, hosts: Sequence[HostRow]) -> None:
        self.hosts = sorted(hosts, key=lambda row: row.name)
        self.capacity = _matrix([row.capacity for row in self.hosts])
        self.free = self.capacity - _matrix([row.committed for row in self.hosts])
        self.placed = np.array([row.placed for row in self.hosts], dtype=np.int64)
        self.able: Bools = np.array([row.able for row in self.hosts], dtype=np.bool_)
        racks = {rack: index for index, rack in enumerate(sorted({r.rack for r in self.hosts}))}
        self.rack = np.array([racks[row.rack] for row in self.hosts], dtype=np.int64)
        self.rack_placed = self._per_rack(self.placed, len(racks))
        self.rack_hosts = np.maximum(self._per_rack(np.ones_like(self.placed), len(racks)), 1)

    def _per_rack(self, column: Ints, racks: int) -> Ints:
        sums = np.zeros(racks, dtype=np.int64)
        np.add.at(sums, self.rack[self.able], column[self.able])
        return sums

    def fits(self, wanted: Ints) -> Bools:
        """Which hosts have room for it, able or not."""
        return np.asarray((self.free >= wanted).all(axis=1), dtype=np.bool_)

    def rack_load(self, candidates: Ints) -> Ints:
        """VEs per able host of each candidate's rack, in parts: the second VE never joins the first in its rack."""
        racks = self.rack[candidates]
        return self.rack_placed[racks] * PARTS // self.rack_hosts[racks]

    def share(self, candidates: Ints, wanted: Ints) -> Ints:
        """The largest share of any resource that would be committed on each candidate, in parts."""
        capacity = np.maximum(self.capacity[candidates], 1)
        used = capacity - self.free[candidates] + wanted
        # Divided first: bytes times a million overflow 64 bits at 9 TB.
        shares = used / capacity * PARTS
        return np.asarray(shares.max(axis=1), dtype=np.int64)

    def take(self, host: int, wanted: Ints) -> None:
        """Commits it to that host."""
        self.free[host] -= wanted
        self.placed[host] += 1
        self.rack_placed[self.rack[host]] += 1
