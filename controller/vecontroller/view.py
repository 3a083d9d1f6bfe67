"""The cluster as the mirror knows it: desired and observed state by key, with the revisions that guards need.

`View` is what every decision reads. It is changed only by the mirror, a whole revision at a time, between two awaits of
others; whoever holds it over an await must read it again.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from veapi.model import (
    VE,
    Cluster,
    Deleted,
    Digest,
    Group,
    GroupStatus,
    HostFacts,
    HostName,
    HostSpec,
    Image,
    Placement,
    Project,
    ProjectAmounts,
    Uid,
    VEStatus,
)
from vecontroller.store.values import Leader

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held(Generic[T]):
    """A value of the store with the revisions at which it was written and created."""

    value: T
    mod_revision: int
    create_revision: int


@dataclass(slots=True)
class View:
    """All of the cluster. `revision`: everything up to it is in here, nothing after it."""

    revision: int = 0
    cluster: Held[Cluster] | None = None
    leader: Held[Leader] | None = None
    """Who leads, as far as the store has said; its mod-revision is the epoch."""
    ves: dict[Uid, Held[VE]] = field(default_factory=dict)
    names: dict[tuple[str, str], Held[Uid]] = field(default_factory=dict)
    placements: dict[Uid, Held[Placement]] = field(default_factory=dict)
    statuses: dict[Uid, Held[VEStatus]] = field(default_factory=dict)
    deleted: dict[Uid, Held[Deleted]] = field(default_factory=dict)
    """Deleted VEs whose roots are kept."""
    left: dict[tuple[HostName, Uid], Held[Deleted]] = field(default_factory=dict)
    """Old roots of moved VEs, by the host that was lost."""
    left_on: dict[HostName, set[Uid]] = field(default_factory=lambda: defaultdict(set))
    """Index of `left` by host; kept by the mirror."""
    addresses: dict[tuple[str, str], Held[Uid]] = field(default_factory=dict)
    addresses_of: dict[Uid, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    """Index of addresses by who holds them; kept by the mirror. One that is to change holds several."""
    hosts: dict[HostName, Held[HostFacts]] = field(default_factory=dict)
    host_specs: dict[HostName, Held[HostSpec]] = field(default_factory=dict)
    """What operators said of hosts; also of some that never reported."""
    images: dict[Digest, Held[Image]] = field(default_factory=dict)
    tags: dict[str, Held[Digest]] = field(default_factory=dict)
    projects: dict[str, Held[Project]] = field(default_factory=dict)
    amounts: dict[str, ProjectAmounts] = field(default_factory=dict)
    """What the VEs and deleted roots of each project count for against its quota; kept by the mirror."""
    groups: dict[tuple[str, str], Held[Group]] = field(default_factory=dict)
    group_statuses: dict[tuple[str, str], Held[GroupStatus]] = field(default_factory=dict)
    members: dict[tuple[str, str], set[Uid]] = field(default_factory=lambda: defaultdict(set))
    """Index of VEs by project and group; kept by the mirror."""
    placed_on: dict[HostName, set[Uid]] = field(default_factory=lambda: defaultdict(set))
    """Index of placements by host; kept by the mirror."""
    deleted_on: dict[HostName, set[Uid]] = field(default_factory=lambda: defaultdict(set))
    """Index of the deleted by host; kept by the mirror."""
    touched: dict[HostName, int] = field(default_factory=dict, compare=False)
    """Hosts in the order in which something of their ledger changed last, numbered; kept by the mirror."""
    touches: int = field(default=0, compare=False)
    """The last of these numbers."""
    quarantined: dict[str, int] = field(default_factory=dict)
    """Keys whose values can't be read, with their mod-revisions; they are never rewritten."""

    def touch(self, hosts: Iterable[HostName]) -> None:
        """Something of what is placed, kept, labelled or said there has changed."""
        for host in hosts:
            self.touches += 1
            self.touched.pop(host, None)
            self.touched[host] = self.touches

    def touched_since(self, number: int) -> Iterator[HostName]:
        """Hosts that were touched after that number, the last first."""
        for host, at in reversed(self.touched.items()):
            if at <= number:
                return
            yield host


@dataclass(frozen=True, slots=True)
class Changed:
    """What a batch changed, for those who wake on it."""

    revision: int
    ves: frozenset[Uid] = frozenset()
    hosts: frozenset[HostName] = frozenset()
    placed: frozenset[HostName] = frozenset()
    """Hosts whose set may have changed: of VEs whose spec or placement changed, before and after."""
    images: bool = False
    projects: bool = False
    groups: frozenset[tuple[str, str]] = frozenset()
    """By project and name: of which the spec, the status or a VE changed."""
    relisted: bool = False
    """Everything may have changed."""
