"""What is so, as etcd has it: decoded for the checks, with all that was ever asked of each VE."""

from collections import defaultdict
from dataclasses import dataclass, field

from veapi.model import (
    VE,
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
        match kind:
            case Kind.VE_SPEC:
                _set(self.specs, Uid(parts[0]), data and values.decode_ve(data))
            case Kind.VE_PLACEMENT:
                _set(self.placements, Uid(parts[0]), data and values.decode_placement(data))
            case Kind.VE_STATUS:
                _set(self.statuses, Uid(parts[0]), data and values.decode_status(data))
            case Kind.VE_DELETED:
                _set(self.deleted, Uid(parts[0]), data and values.decode_deleted(data))
            case Kind.VE_NAME:
                target = data and Uid(values.decode_ref(data).target)
                _set(self.names, (parts[0], parts[1]), target)
            case Kind.ADDRESS:
                _set(self.addresses, parts[1], data and Uid(values.decode_ref(data).target))
            case Kind.HOST_STATUS:
                _set(self.hosts, HostName(parts[0]), data and values.decode_host_status(data))
            case Kind.IMAGE:
                _set(self.images, Digest(parts[0]), data and values.decode_image(data))
            case Kind.IMAGE_TAG:
                _set(self.tags, parts[0], data and Digest(values.decode_ref(data).target))
            case Kind.LEADER:
                self.epoch = event.revision if data else 0
                if data:
                    self.epochs.append((now, event.revision))
            case _:
                pass
        return kind, parts

    def committed(self, host: HostName) -> Resources:
        """What is given away there: VEs, and the disks of those that are deleted and kept."""
        placed = (uid for uid, placement in self.placements.items() if placement.host == host)
        sums = [self.specs[uid].spec.request for uid in placed if uid in self.specs]
        kept = sum(k.disk_used_bytes for k in self.deleted.values() if k.placement.host == host)
        images = self.hosts[host].images if host in self.hosts else ()
        held = sum(image.size_bytes + image.blob_bytes for image in images)
        return sum(sums, Resources(disk_bytes=kept + held))


def _set(table: dict, key: object, value: object) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
