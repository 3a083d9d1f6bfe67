"""What an agent remembers of one VE across its own death and its host's."""

import msgspec

from veapi.model import Digest, Event, Resources, SetEntry, Uid, Value


class VERecord(Value, frozen=True, kw_only=True):
    """One VE of this host, as it is kept in the ledger.

    `id_base` is the first of its own 65,536 host ids. `limits` are those in force (disk: of the root). `restart_seq`
    and `generation` are the last ones carried out. `up`: it ran when this was written, in the boot `boot_id`.
    `off`: its guest switched it off while the spec's generation was `off_generation`.
    """

    uid: Uid
    name: str
    project: str
    id_base: int
    image_digest: Digest = Digest("")
    ip: str = ""
    mac: str = ""
    limits: Resources = Resources()
    restarts: int = 0
    restart_seq: int = 0
    generation: int = 0
    placement_generation: int = 0
    up: bool = False
    boot_id: str = ""
    off: bool = False
    off_generation: int = 0
    events: tuple[Event, ...] = ()


def first_record(entry: SetEntry, id_base: int) -> VERecord:
    """Of a VE that this host knew nothing of: a restart that was asked before has nothing to restart.

    No limits: whatever is there already gets them set.
    """
    return VERecord(
        uid=entry.uid,
        name=entry.name,
        project=entry.project,
        id_base=id_base,
        image_digest=entry.image_digest,
        restart_seq=entry.restart_seq,
    )


def started(record: VERecord, entry: SetEntry, *, boot_id: str) -> VERecord:
    """After a start as `entry` asks."""
    return msgspec.structs.replace(
        confirmed(record, entry),
        ip=entry.ip,
        mac=entry.mac,
        limits=with_disk(entry.spec.request, record.limits.disk_bytes),
        up=True,
        boot_id=boot_id,
    )


def confirmed(record: VERecord, entry: SetEntry) -> VERecord:
    """All that `entry` asks is carried out."""
    return msgspec.structs.replace(
        record,
        name=entry.name,
        project=entry.project,
        restart_seq=max(record.restart_seq, entry.restart_seq),
        generation=entry.generation,
        placement_generation=entry.placement_generation,
        off=False,
        off_generation=0,
    )


def with_disk(limits: Resources, disk_bytes: int) -> Resources:
    return msgspec.structs.replace(limits, disk_bytes=disk_bytes)
