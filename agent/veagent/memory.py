"""What a worker remembers of its VE: the record, how it changes with each thing that happens, and the story for people."""

import msgspec

from veagent import ends, events
from veagent.ground import Ground
from veagent.ports import Instance
from veagent.record import VERecord, confirmed, first_record, started, with_disk
from veagent.status import Trouble
from veapi.model import Event, Resources, SetEntry, Uid


class Memory:
    """Every change goes to the ledger. `restart_for`: the end that the next start answers."""

    def __init__(self, uid: Uid, ground: Ground, record: VERecord | None) -> None:
        self.record = record
        self.restart_for: ends.Verdict | None = None
        self._uid = uid
        self._ground = ground

    def ensure(self, entry: SetEntry, instance: Instance | None) -> VERecord:
        """The record; a new one with an id range of its own (that which the kernel shows, when it runs already)."""
        if self.record is None:
            base = self._ground.id_base_of(instance) if instance is not None else None
            if base is None:
                base = self._ground.ids.allocate()
            self._ground.ids.take([base])
            self.record = first_record(entry, base)
        return self.record

    def change(self, **fields: object) -> None:
        """Sets fields of the record. There must be one."""
        assert self.record is not None
        self._keep(msgspec.structs.replace(self.record, **fields))

    def found_away(self) -> None:
        """It does not run; when it did as the record was written, how it ended decides what is next."""
        if self.record is None or not self.record.up:
            return
        same_boot = self.record.boot_id == self._ground.boot_id
        ended = self._ground.runtime.last_end(self._uid) if same_boot else None
        verdict = ends.lost(ended, same_boot=same_boot)
        if verdict.restart:
            self.restart_for = verdict
        else:
            self.end(verdict, None, None)

    def confirm(self, entry: SetEntry, *, up: bool) -> None:
        """All that `entry` asks is so."""
        assert self.record is not None
        self._keep(msgspec.structs.replace(confirmed(self.record, entry), up=up))

    def start(self, entry: SetEntry) -> None:
        """It was started as `entry` asks; tells why, and counts it when it answers a crash or a reboot."""
        assert self.record is not None
        asked = entry.restart_seq > self.record.restart_seq
        verdict, self.restart_for = self.restart_for, None
        record = started(self.record, entry, boot_id=self._ground.boot_id)
        if asked:
            event = self._normal("Restarted", "it was restarted as asked")
        elif verdict is not None:
            event = self._event(verdict, f"{verdict.sentence}; {verdict.answer}")
        else:
            event = self._normal("Started", "it was started")
        counted = verdict is not None and verdict.counted and not asked
        restarts = record.restarts + (1 if counted else 0)
        self._keep(msgspec.structs.replace(record, restarts=restarts), event)

    def stop(self) -> None:
        """It was stopped by us."""
        self.restart_for = None
        if self.record is not None:
            stopped = msgspec.structs.replace(self.record, up=False)
            self._keep(stopped, self._normal("Stopped", "it was stopped"))

    def limit(self, limits: Resources) -> None:
        """cpu, memory and pids are in force."""
        assert self.record is not None
        self.change(limits=with_disk(limits, self.record.limits.disk_bytes))

    def limit_disk(self, disk_bytes: int) -> None:
        assert self.record is not None
        self.change(limits=with_disk(self.record.limits, disk_bytes))

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

    def fail(self, trouble: Trouble) -> None:
        """A step failed."""
        if self.record is not None:
            at = self._ground.clock.wall()
            event = events.warning(at, self._ground.host, trouble.reason, trouble.message)
            self._keep(self.record, event)

    async def erase(self) -> None:
        """Nothing of the VE is left; its ids are free once that is durable."""
        ground = self._ground
        ground.ledger.drop(self._uid)
        await ground.ledger.sync()
        if self.record is not None:
            ground.ids.release(self.record.id_base)
        self.record = None

    def _keep(self, record: VERecord, event: Event | None = None) -> None:
        if event is not None:
            record = msgspec.structs.replace(record, events=events.add(record.events, event))
        self.record = record
        self._ground.ledger.put(record)
        self._ground.changed(self._uid)

    def _normal(self, reason: str, message: str) -> Event:
        return events.normal(self._ground.clock.wall(), self._ground.host, reason, message)

    def _event(self, verdict: ends.Verdict, message: str) -> Event:
        make = events.warning if verdict.warning else events.normal
        return make(self._ground.clock.wall(), self._ground.host, verdict.reason, message)
