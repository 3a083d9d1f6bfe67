"""What an agent remembers of one VE across its own death and its host's."""

from collections.abc import Mapping

import msgspec

from veapi.model import (
    Action,
    Digest,
    Event,
    ImageConfig,
    Limits,
    Resources,
    SetEntry,
    SnapshotStatus,
    Uid,
    Value,
)


class Starting(Value, frozen=True, kw_only=True):
    """A start that was begun: what is told once it is known to have come about, and whether it counts as a restart."""

    event: Event
    counted: bool = False


class VERecord(Value, frozen=True, kw_only=True):
    """One VE of this host, as it is kept in the ledger.

    `id_base` is the first of its own 65,536 host ids. `image_digest` and `image_config`: of the image that its root is
    of. `limits` are those in force (disk: of root and snapshots; network: of the card that it has). `restart_seq`, `generation` and `root_seq` are the last ones carried out. `snapshot_seq`: the
    last snapshot that was taken, or given up. `unsure`: the most that may be in force of what is 0 in `limits`, as nobody
    knows yet what came of a change. `up`: it ran when this was written, in the boot `boot_id`, with `ip`, `mac`,
    `env`, `command` and the processors `cpus`. `off`: its guest switched it off while the spec's generation was
    `off_generation`. `oom_run`: those of `oom_kills` since its last start. `kept`: it is deleted, `kept_bytes` of disk
    are held for who wants it back. `made`: its root was made whole. `root_since`: the placement generation since which the root counts that is here, or is being made. `starting`: it is `up` if the start came about, which is not known yet. `entry`: the last that was asked of it.
    """

    uid: Uid
    name: str
    project: str
    id_base: int
    image_digest: Digest = Digest("")
    image_config: ImageConfig = ImageConfig()
    ip: str = ""
    mac: str = ""
    env: Mapping[str, str] = {}
    command: tuple[str, ...] = ()
    cpus: tuple[int, ...] = ()
    limits: Limits = Limits()
    unsure: Resources = Resources()
    restarts: int = 0
    restart_seq: int = 0
    generation: int = 0
    placement_generation: int = 0
    root_seq: int = 0
    root_since: int = 0
    made: bool = False
    snapshot_seq: int = 0
    snapshots: tuple[SnapshotStatus, ...] = ()
    up: bool = False
    starting: Starting | None = None
    boot_id: str = ""
    off: bool = False
    off_generation: int = 0
    oom_kills: int = 0
    oom_run: int = 0
    kept: bool = False
    kept_bytes: int = 0
    entry: SetEntry | None = None
    events: tuple[Event, ...] = ()


def first_record(entry: SetEntry, id_base: int) -> VERecord:
    """Of a VE that this host knew nothing of: a restart that was asked before has nothing to restart, and a root that is
    there is the one that was asked for.

    No limits: whatever is there already gets them set.
    """
    return VERecord(
        uid=entry.uid,
        name=entry.name,
        project=entry.project,
        id_base=id_base,
        image_digest=entry.image_digest,
        restart_seq=entry.restart_seq,
        root_seq=entry.root.seq,
        root_since=entry.root_since,
        entry=entry,
    )


def with_card(record: VERecord, entry: SetEntry) -> VERecord:
    """What a VE is taken to run with of which nobody remembers how it was started."""
    return msgspec.structs.replace(
        record, ip=entry.ip, mac=entry.mac, env=entry.spec.env, command=entry.spec.command
    )


def started(
    record: VERecord, entry: SetEntry, *, boot_id: str, cpus: tuple[int, ...] = ()
) -> VERecord:
    """After a start as `entry` asks. Its new card has no rates yet.

    The generation is only carried out when nothing is left to do: what is left may be refused.
    """
    limits = msgspec.structs.replace(
        entry.spec.limits, disk_bytes=record.limits.disk_bytes, net_in_bps=0, net_out_bps=0
    )
    return msgspec.structs.replace(
        with_card(confirmed(record, entry), entry),
        generation=entry.generation if _is_all(entry, record, limits) else record.generation,
        cpus=cpus,
        limits=limits,
        unsure=Resources(disk_bytes=record.unsure.disk_bytes),
        oom_run=0,
        off=False,
        up=True,
        boot_id=boot_id,
    )


def is_root_stale(entry: SetEntry, record: VERecord) -> bool:
    """The VE lived elsewhere since: this host was lost with the root that is here, and the VE began anew."""
    return entry.root_since > max(record.placement_generation, record.root_since)


def wants_root(entry: SetEntry, record: VERecord) -> bool:
    """It is to have another root than the one that is here."""
    return entry.root.seq > record.root_seq or is_root_stale(entry, record)


def _is_all(entry: SetEntry, record: VERecord, limits: Limits) -> bool:
    """A VE that was started with these limits is as it shall be, unless it is to have another root yet."""
    newest_root = not wants_root(entry, record)
    return newest_root and entry.action is Action.RUN and limits == entry.spec.limits


def begun(
    record: VERecord,
    entry: SetEntry,
    starting: Starting,
    *,
    boot_id: str,
    cpus: tuple[int, ...] = (),
) -> VERecord:
    """Before a start as `entry` asks: nothing of it is confirmed."""
    return msgspec.structs.replace(
        started(record, entry, boot_id=boot_id, cpus=cpus),
        starting=starting,
        generation=record.generation,
        placement_generation=record.placement_generation,
    )


def came_up(record: VERecord) -> VERecord:
    """The start that was begun has come about. Its event is for the caller to add."""
    starting, entry = record.starting, record.entry
    assert starting is not None
    assert entry is not None
    return msgspec.structs.replace(
        record,
        starting=None,
        generation=entry.generation if _is_all(entry, record, record.limits) else record.generation,
        placement_generation=entry.placement_generation,
        restarts=record.restarts + (1 if starting.counted else 0),
    )


def unsettled(record: VERecord, entry: SetEntry) -> VERecord:
    """As an agent finds it that has just begun: what was not confirmed may have been set, and not written down.

    So limits are set anew. Nobody waits for the disk before a limit changes, as long as this looks.
    """
    if entry.generation == record.generation:
        return record
    return msgspec.structs.replace(
        record,
        limits=with_rates(Limits(), record.limits),
        unsure=bounds(record) | amounts(entry.spec.limits),
    )


def confirmed(record: VERecord, entry: SetEntry) -> VERecord:
    """All that `entry` asks is carried out. What its guest switched off is off until its user says something."""
    off = is_off(entry, record)
    return msgspec.structs.replace(
        record,
        name=entry.name,
        project=entry.project,
        restart_seq=max(record.restart_seq, entry.restart_seq),
        generation=entry.generation,
        placement_generation=entry.placement_generation,
        off=off,
        # One that is asked of an earlier generation than it was off in is asked by a store that was set back: there its
        # user's next word has a number that was there before.
        off_generation=min(record.off_generation, entry.generation) if off else 0,
        kept=False,
        kept_bytes=0,
        entry=entry,
    )


def is_off(entry: SetEntry, record: VERecord) -> bool:
    """It shall run, but its guest switched it off, and its user has not said since that it shall run."""
    newer = (
        entry.run_generation > record.off_generation
        or entry.restart_seq > record.restart_seq
        or entry.placement_generation > record.placement_generation
    )
    shall_run = entry.action in (Action.RUN, Action.FREEZE)
    return record.off and shall_run and not newer


def kept(record: VERecord, entry: SetEntry, used_bytes: int) -> VERecord:
    """It is down and deleted, its address given up."""
    down = confirmed(record, entry)
    return msgspec.structs.replace(
        down, up=False, starting=None, ip="", mac="", cpus=(), kept=True, kept_bytes=used_bytes
    )


def bounds(record: VERecord) -> Resources:
    """The most that the kernel may hold a running VE to."""
    return amounts(record.limits) | record.unsure


def amounts(limits: Limits) -> Resources:
    """The part of them that is placed by."""
    return Resources(
        cpu_millis=limits.cpu_millis,
        memory_bytes=limits.memory_bytes,
        disk_bytes=limits.disk_bytes,
        pids=limits.pids,
    )


def with_disk(limits: Limits, disk_bytes: int) -> Limits:
    return msgspec.structs.replace(limits, disk_bytes=disk_bytes)


def with_rates(limits: Limits, rates: Limits) -> Limits:
    """With the network's part of `rates`."""
    return msgspec.structs.replace(
        limits, net_in_bps=rates.net_in_bps, net_out_bps=rates.net_out_bps
    )


def beside_disk_and_rates(limits: Limits) -> Limits:
    """What the runtime holds a VE to."""
    return msgspec.structs.replace(limits, disk_bytes=0, net_in_bps=0, net_out_bps=0)
