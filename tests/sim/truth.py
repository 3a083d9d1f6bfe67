"""What is so, as etcd has it: decoded for the checks, with all that was ever asked of each VE."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from veapi.model import (
    VE,
    Cluster,
    Deleted,
    Digest,
    HostFacts,
    HostName,
    Image,
    Placement,
    Resources,
    Uid,
    VEStatus,
)
from vecontroller.store import keys, values
from vecontroller.store.keys import Kind
from vecontroller.store.port import StoreEvent


@dataclass(slots=True)
class Life:
    """All that was ever asked of a VE. Nothing here is ever taken back."""

    names: set[str] = field(default_factory=set)
    hosts: set[HostName] = field(default_factory=set)
    """On which it was placed, ever."""
    purge: bool = False
    delete: bool = False
    generation: int = 0
    restart_seq: int = 0
    root_seq: int = 0
    snapshot_seq: int = 0
    placement_generation: int = 0
    placement: Placement | None = None
    snapshots_leaving: set[int] = field(default_factory=set)
    snapshots: set[str] = field(default_factory=set)
    """Tags that were ever wished."""
    unplaced: bool = False
    vanished: bool = False
    """No trace of it is left in the store."""


@dataclass(slots=True)
class Truth:
    """The store at its newest revision."""

    specs: dict[Uid, VE] = field(default_factory=dict)
    placements: dict[Uid, Placement] = field(default_factory=dict)
    statuses: dict[Uid, VEStatus] = field(default_factory=dict)
    left: dict[tuple[HostName, Uid], Deleted] = field(default_factory=dict)
    """What moved VEs left on their old hosts."""
    cluster: Cluster | None = None
    deleted: dict[Uid, Deleted] = field(default_factory=dict)
    names: dict[tuple[str, str], Uid] = field(default_factory=dict)
    addresses: dict[str, Uid] = field(default_factory=dict)
    hosts: dict[HostName, HostFacts] = field(default_factory=dict)
    images: dict[Digest, Image] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)
    lives: defaultdict[Uid, Life] = field(default_factory=lambda: defaultdict(Life))
    written: set[tuple[str, int]] = field(default_factory=set)
    epoch: int = 0
    epochs: list[tuple[float, int]] = field(default_factory=list)
    """When each leader took over, in true seconds."""

    def fold(self, event: StoreEvent, now: float) -> tuple[Kind, tuple[str, ...]] | None:
        """Takes one event; says what it was of."""
        found = keys.parse(event.key)
        if found is None:
            return None
        kind, parts = found
        self.written.add((event.key, event.revision))
        data = event.item.value if event.item is not None else None
        table = self._table(kind, parts)
        if table is not None:
            values_of, key, decode = table
            _set(values_of, key, data and decode(data))
        if kind is Kind.CLUSTER:
            self.cluster = values.decode_cluster(data) if data else None
        if kind is Kind.LEADER:
            self.epoch = event.revision if data else 0
            if data:
                self.epochs.append((now, event.revision))
        return kind, parts

    def _table(self, kind: Kind, parts: tuple[str, ...]) -> tuple[dict, object, Any] | None:
        """Where a value of that kind goes, under which key, and how it is read."""
        found: dict[Kind, tuple[dict, object, Any]] = {
            Kind.VE_SPEC: (self.specs, parts and parts[0], values.decode_ve),
            Kind.VE_PLACEMENT: (self.placements, parts and parts[0], values.decode_placement),
            Kind.VE_STATUS: (self.statuses, parts and parts[0], values.decode_status),
            Kind.VE_DELETED: (self.deleted, parts and parts[0], values.decode_deleted),
            Kind.VE_LEFT: (self.left, parts, values.decode_deleted),
            Kind.VE_NAME: (self.names, parts, _target),
            Kind.ADDRESS: (self.addresses, parts and parts[-1], _target),
            Kind.HOST_STATUS: (self.hosts, parts and parts[0], values.decode_host_status),
            Kind.IMAGE: (self.images, parts and parts[0], values.decode_image),
            Kind.IMAGE_TAG: (self.tags, parts and parts[0], _target),
        }
        return found.get(kind)

    def committed(self, host: HostName) -> Resources:
        """What is given away there: VEs, and the disks of those that are deleted and kept."""
        placed = (uid for uid, placement in self.placements.items() if placement.host == host)
        sums = [self.specs[uid].spec.request for uid in placed if uid in self.specs]
        gone = (*self.deleted.values(), *self.left.values())
        kept = sum(k.disk_used_bytes for k in gone if k.placement.host == host)
        images = self.hosts[host].images if host in self.hosts else ()
        held = sum(image.size_bytes + image.blob_bytes for image in images)
        return sum(sums, Resources(disk_bytes=kept + held))


def _target(data: bytes) -> str:
    return values.decode_ref(data).target


def _set(table: dict, key: object, value: object) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
