"""What a worker remembers of its VE: the record, how it changes with each thing that happens, and the story for people."""

from collections.abc import Sequence

import msgspec

from veagent import ends, events, snapshots
from veagent.ground import Ground
from veagent.ports import Instance, RootImage
from veagent.reconcile import runs_on, stops
from veagent.record import (
    Starting,
    VERecord,
    amounts,
    begun,
    bounds,
    came_up,
    confirmed,
    first_record,
    kept,
    unsettled,
    with_card,
    with_disk,
    with_rates,
)
from veagent.snapshots import DeleteSnapshot, SnapshotStep
from veagent.status import Trouble
from veapi.model import Event, Limits, Resources, SetEntry, SnapshotStatus, Uid
from veapi.units import format_size


class Memory:
    """Every change goes to the ledger. `restart_for`: the end that the next start answers. `found`: its snapshots on disk."""

    def __init__(
        self,
        uid: Uid,
        ground: Ground,
        record: VERecord | None,
        *,
        found: Sequence[SnapshotStatus] | None = None,
    ) -> None:
        self.restart_for: ends.Verdict | None = None
        self._uid = uid
        self._ground = ground
        self._found = found
        self.record = record and self._with_found(record)

    def _with_found(self, record: VERecord) -> VERecord:
        return record if self._found is None else snapshots.with_found(record, self._found)

    def ensure(self, entry: SetEntry, instance: Instance | None) -> VERecord:
        """The record; a new one with an id range of its own (that which the kernel shows, when it runs already)."""
        if self.record is None:
            base = self._ground.id_base_of(instance) if instance is not None else None
            if base is None:
                base = self._ground.ids.allocate()
            self._ground.ids.take([base])
            record = self._with_found(first_record(entry, base))
            self.record = with_card(record, entry) if instance is not None else record
        return self.record

    def change(self, **fields: object) -> None:
        """Sets fields of the record. There must be one."""
        assert self.record is not None
        self._keep(msgspec.structs.replace(self.record, **fields))

    def found(self, entry: SetEntry | None, *, running: bool) -> None:
        """What an agent that has just begun sees of it. `entry`: of the durable set."""
        if self.record is None:
            return
        if entry is not None:
            self.record = unsettled(self.record, entry)
        if not running:
            self._found_away(entry)
        elif self.record.starting is not None:
            self.started()
        else:
            self.runs()

    def _found_away(self, entry: SetEntry | None) -> None:
        """It does not run; when it did as the record was written, how it ended decides what is next.

        What the set asks to end was ended by us, as far as anybody can tell. Of a start that was begun there is an end only if
        it came about.
        """
        record = self.record
        if record is None or not record.up:
            return
        same_boot = record.boot_id == self._ground.boot_id
        ended = self._ground.runtime.last_end(self._uid) if same_boot else None
        if record.starting is not None and same_boot:
            if ended is None:
                return
            self.started()
        if entry is not None and stops(entry, record) and not self._runs_on(entry, record):
            self.stop()
            return
        verdict = ends.lost(ended, same_boot=same_boot)
        if verdict.restart:
            self.restart_for = verdict
        else:
            self.end(verdict, None, None)

    def _runs_on(self, entry: SetEntry, record: VERecord) -> bool:
        return runs_on(entry, record, image_held=self._ground.images.holds(entry.image_digest))

    def confirm(self, entry: SetEntry, *, up: bool) -> None:
        """All that `entry` asks is so. One that is down as asked has no end to answer."""
        assert self.record is not None
        self.restart_for = self.restart_for if up else None
        record = snapshots.without_forgotten(confirmed(self.record, entry), entry)
        starting = record.starting if up else None
        self._keep(msgspec.structs.replace(record, up=up, starting=starting))

    def orphan(self, entry: SetEntry) -> None:
        """No set names it any more; `entry` was the last that did."""
        if self.record is not None and self.record.entry != entry:
            self.change(entry=entry)

    def will_start(self, entry: SetEntry, cpus: tuple[int, ...], **fields: object) -> None:
        """A start as `entry` asks is begun: what an agent must know that finds it running, or ended, without this one."""
        assert self.record is not None
        starting = self._why(entry, self.record)
        record = msgspec.structs.replace(self.record, **fields)
        self._keep(begun(record, entry, starting, boot_id=self._ground.boot_id, cpus=cpus))

    def _why(self, entry: SetEntry, record: VERecord) -> Starting:
        """Why it is started; it counts when it answers a crash or a reboot. A try that failed is no other start."""
        verdict = self.restart_for
        if entry.restart_seq > record.restart_seq:
            return Starting(event=self._normal("Restarted", "it was restarted as asked"))
        if verdict is not None:
            event = self._event(verdict, f"{verdict.sentence}; {verdict.answer}")
            return Starting(event=event, counted=verdict.counted)
        return record.starting or Starting(event=self._normal("Started", "it was started"))

    def hold(self, limits: Limits) -> None:
        """Of the limits that are begun with, only these are: the rest is refused once it runs, and then told."""
        assert self.record is not None
        held = msgspec.structs.replace(
            self.record.limits,
            io_weight=limits.io_weight,
            io_read_bps=limits.io_read_bps,
            io_write_bps=limits.io_write_bps,
        )
        if held != self.record.limits:
            self.change(limits=held)

    def started(self) -> None:
        """The start that was begun has come about."""
        assert self.record is not None
        starting = self.record.starting
        assert starting is not None
        self.restart_for = None
        event = msgspec.structs.replace(starting.event, at=self._ground.clock.wall())
        self._keep(came_up(self.record), event)

    def will_stop(self) -> None:
        if self.record is not None:
            self.change(up=False)

    def runs(self) -> None:
        """Whatever was written down: it was found running, or a stop was given up."""
        if self.record is not None and not self.record.up:
            self.change(up=True, boot_id=self._ground.boot_id)

    def stop(self) -> None:
        """It was stopped by us."""
        self.restart_for = None
        if self.record is not None:
            stopped = msgspec.structs.replace(self.record, up=False, starting=None)
            self._keep(stopped, self._normal("Stopped", "it was stopped"))

    def fenced(self) -> None:
        """It was killed, by us or by vefence, as the host's lease ran out. What starts it is a new lease."""
        self.restart_for = None
        if self.record is not None:
            down = msgspec.structs.replace(self.record, up=False, starting=None)
            why = "it was killed: this host lost its lease, and another may be told to run it"
            self._keep(down, self._warning("Fenced", why))

    def will_limit(self, asked: Limits, *, disk: bool, rest: bool) -> None:
        """Which limits are in force is not known, until what is done now is written down too.

        The next agent may miss this: it knows nothing of limits either whose generation was not confirmed.
        """
        assert self.record is not None
        before = self.record.limits
        limits = with_rates(Limits(), before) if rest else before
        may_be = bounds(self.record) | amounts(asked)
        unsure = msgspec.structs.replace(
            may_be if rest else self.record.unsure,
            disk_bytes=may_be.disk_bytes if disk else self.record.unsure.disk_bytes,
        )
        self.change(limits=with_disk(limits, 0 if disk else before.disk_bytes), unsure=unsure)

    def limit(self, limits: Limits) -> None:
        """All but disk and network are in force."""
        assert self.record is not None
        in_force, unsure = self.record.limits, self.record.unsure
        self.change(
            limits=with_rates(with_disk(limits, in_force.disk_bytes), in_force),
            unsure=Resources(disk_bytes=unsure.disk_bytes),
        )

    def limit_disk(self, disk_bytes: int) -> None:
        assert self.record is not None
        self.change(
            limits=with_disk(self.record.limits, disk_bytes),
            unsure=msgspec.structs.replace(self.record.unsure, disk_bytes=0),
        )

    def limit_rates(self, limits: Limits) -> None:
        """The network's are in force."""
        assert self.record is not None
        self.change(limits=with_rates(self.record.limits, limits))

    def freeze(self, *, frozen: bool) -> None:
        if frozen:
            self._tell("Frozen", "it was frozen")
        else:
            self._tell("Thawed", "it was thawed")

    def replace_root(self, entry: SetEntry) -> None:
        """The old root is gone; the new one is made of what `entry` says. It counts as its user's word to run."""
        assert self.record is not None
        limits, most = with_disk(self.record.limits, 0), bounds(self.record)
        unsure = msgspec.structs.replace(self.record.unsure, disk_bytes=most.disk_bytes)
        replaced = msgspec.structs.replace(
            self.record,
            root_seq=entry.root.seq,
            root_since=max(self.record.root_since, entry.root_since),
            made=False,
            off=False,
            limits=limits,
            unsure=unsure,
        )
        made_of = f"snapshot {entry.root.snapshot}" if entry.root.snapshot else "its image"
        self._keep(replaced, self._normal("RootReplaced", f"its disk is made anew of {made_of}"))

    def root_is_of(self, image: RootImage) -> None:
        """The root that is about to be made."""
        self.change(image_digest=image.digest, image_config=image.config)

    def snapshot_taken(self, taken: SnapshotStatus) -> None:
        assert self.record is not None
        event = self._normal("SnapshotTaken", f"snapshot {taken.tag} was taken")
        self._keep(snapshots.with_taken(self.record, taken), event, fold=True)

    def snapshot_deleted(self, step: DeleteSnapshot) -> None:
        assert self.record is not None
        event = self._normal("SnapshotDeleted", f"snapshot {step.tag} was deleted")
        self._keep(snapshots.with_deleted(self.record, step.seq), event, fold=True)

    @property
    def is_kept(self) -> bool:
        """It is deleted, and its disk is kept."""
        return self.record is not None and self.record.kept

    def snapshot_failed(self, step: SnapshotStep, error: str, *, given_up: bool) -> None:
        assert self.record is not None
        failed = snapshots.with_error(self.record, step, error, given_up=given_up)
        what = "deleted" if isinstance(step, DeleteSnapshot) else "taken"
        self._keep(
            failed, self._warning("SnapshotFailed", f"snapshot {step.tag} not {what}: {error}")
        )

    def oom(self, kills: int) -> None:
        """So many more of its processes were ended by the kernel. The newest event counts for all since the start."""
        record = self.record
        if record is None:
            return
        counted = msgspec.structs.replace(
            record, oom_kills=record.oom_kills + kills, oom_run=record.oom_run + kills
        )
        number, limit = counted.oom_run, record.limits.memory_bytes
        many = "1 process" if number == 1 else f"{number} processes"
        since = (
            f"{many} ended by the kernel since its start: out of its memory of {format_size(limit)}"
        )
        self._keep(counted, self._warning("OOMKilled", since), fold=True)

    def keep(self, entry: SetEntry, used_bytes: int) -> None:
        """It is deleted; who wants it back within the time finds root, snapshots and ids."""
        assert self.record is not None
        self.restart_for = None
        event = self._normal("Deleted", "it was deleted; its disk is kept for a while")
        self._keep(kept(self.record, entry, used_bytes), event)

    def end(self, verdict: ends.Verdict, wanted: SetEntry | None, trouble: Trouble | None) -> None:
        """It ended, and nobody had asked. A restart that comes at once is told when it has been done."""
        record = self.record
        if record is None:
            return
        if not verdict.restart:
            generation = wanted.generation if wanted else record.generation
            off = msgspec.structs.replace(record, up=False, off=True, off_generation=generation)
            self._keep(off, self._event(verdict, verdict.sentence))
            return
        self.restart_for = verdict
        if trouble is not None:
            self._keep(record, self._event(verdict, trouble.sentence()))
        elif wanted is None:
            self._keep(record, self._event(verdict, f"{verdict.sentence}; no set names it"))

    def warn(self, reason: str, message: str) -> None:
        """Something failed or was refused."""
        if self.record is not None:
            self._keep(self.record, self._warning(reason, message))

    async def erase(self) -> None:
        """Nothing of the VE is left; its ids are free once that is durable."""
        ground = self._ground
        ground.ledger.drop(self._uid)
        await ground.ledger.sync()
        if self.record is not None:
            ground.ids.release(self.record.id_base)
        self.record = None

    def _tell(self, reason: str, message: str) -> None:
        if self.record is not None:
            self._keep(self.record, self._normal(reason, message))

    def _keep(self, record: VERecord, event: Event | None = None, *, fold: bool = False) -> None:
        if event is not None:
            add = events.add_folded if fold else events.add
            record = msgspec.structs.replace(record, events=add(record.events, event))
        self.record = record
        self._ground.ledger.put(record)
        self._ground.changed(self._uid)

    def _normal(self, reason: str, message: str) -> Event:
        return events.normal(self._ground.clock.wall(), self._ground.host, reason, message)

    def _warning(self, reason: str, message: str) -> Event:
        return events.warning(self._ground.clock.wall(), self._ground.host, reason, message)

    def _event(self, verdict: ends.Verdict, message: str) -> Event:
        make = events.warning if verdict.warning else events.normal
        return make(self._ground.clock.wall(), self._ground.host, verdict.reason, message)
