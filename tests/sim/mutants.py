"""Seeded bugs: what simulation must find. Each replaces one small part of the product by a version with a mistake in it.

They are mistakes that were made in systems of this kind, or that somebody could make here tomorrow.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from veagent import (
    imagesweep,
    ledger,
    manager,
    memory,
    reconcile,
    session,
    steps,
)
from veagent.ids import IdRanges
from veapi.errors import Unavailable
from veapi.model import Order, WantedImage
from veapi.v1 import session_pb2
from vecontroller import decisions, hostset, leader, observed, purging, reports, scheduler, writer
from vecontroller.api import addresses, commits, deletion
from vecontroller.api.lookup import find_ve
from vecontroller.copies import Copies
from vecontroller.holding import Holding
from vecontroller.hostsession import HostSession
from vecontroller.leader import Leadership, NotLeader
from vecontroller.mirror import Mirror
from vecontroller.removal import keeping, removal
from vecontroller.store import keys, values
from vecontroller.store.keys import BEAT, LEADER
from vecontroller.store.port import Ambiguous, Guard, Put, Transacted
from vecontroller.view import Held
from vecontroller.writer import LostRace, Writer

Swap = tuple[Any, str, Any]
MUTANTS: dict[str, Callable[[], list[Swap]]] = {}


def mutant(make: Callable[[], list[Swap]]) -> Callable[[], list[Swap]]:
    """Named by its function."""
    MUTANTS[make.__name__.replace("_", "-")] = make
    return make


@contextmanager
def applied(name: str) -> Iterator[None]:
    """The product with this bug; with none when the name is empty."""
    with ExitStack() as stack:
        for owner, attribute, wrong in MUTANTS[name]() if name else []:
            stack.enter_context(patch.object(owner, attribute, wrong))
        yield


# Leadership.


@mutant
def writes_are_not_guarded_on_the_leader() -> list[Swap]:
    def all_guards(self: Any) -> tuple[Guard, ...]:
        return tuple(self.guards)

    return [(writer._Attempt, "all_guards", property(all_guards))]


@mutant
def a_heartbeat_is_answered_without_a_beat() -> list[Swap]:
    async def confirmed_after(self: Leadership, boot_time: float) -> None:
        if self.deposed:
            raise NotLeader("deposed")

    return [(Leadership, "confirmed_after", confirmed_after)]


@mutant
def a_beat_that_began_earlier_confirms() -> list[Swap]:
    real = Leadership._confirm

    def confirm(self: Leadership, began: float, revision: int) -> None:
        real(self, self._clock.boot() + 1e9, revision)

    return [(Leadership, "_confirm", confirm)]


@mutant
def a_standby_does_not_wait() -> list[Swap]:
    real = leader.acquire

    async def acquire(*args: Any, **options: Any) -> Leadership:
        return await real(*args, **{**options, "patience_s": 0.0})

    from vecontroller import core  # noqa: PLC0415

    return [(core, "acquire", acquire)]


@mutant
def a_takeover_of_unknown_outcome_counts_as_won() -> list[Swap]:
    async def take(store: Any, record: Any, seen: Any) -> int:
        guards = [
            Guard(key=LEADER, mod_revision=seen.leader_revision),
            Guard(key=BEAT, mod_revision=seen.beat_revision),
        ]
        writes = [
            Put(key=LEADER, value=values.encode_leader(record)),
            Put(key=BEAT, value=values.encode_beat(0)),
        ]
        try:
            done = await store.transact(guards, writes)
        except Ambiguous:
            return (await leader._look(store)).leader_revision
        return done.revision if done.succeeded else (await leader._look(store)).leader_revision

    return [(leader, "_take", take)]


# The writer.


@mutant
def an_unknown_write_is_sent_again_without_its_operation_id() -> list[Swap]:
    async def settle(self: Writer, attempt: Any, _trace: Any, _unknown: Ambiguous) -> Transacted:
        for _ in range(5):
            try:
                return await self._store.transact(attempt.all_guards, attempt.writes)
            except Ambiguous:
                continue
        raise Unavailable("not written")

    return [(Writer, "_settle", settle)]


@mutant
def an_unknown_write_counts_as_not_written() -> list[Swap]:
    async def settle(_self: Writer, _attempt: Any, _trace: Any, _unknown: Ambiguous) -> Transacted:
        raise Unavailable("not written")

    return [(Writer, "_settle", settle)]


@mutant
def an_unknown_write_counts_as_written() -> list[Swap]:
    async def settle(self: Writer, _attempt: Any, _trace: Any, _unknown: Ambiguous) -> Transacted:
        return Transacted(succeeded=True, revision=self._mirror.view.revision)

    return [(Writer, "_settle", settle)]


@mutant
def the_fence_is_never_moved() -> list[Swap]:
    """A late write can come about after what it made was deleted again."""

    async def move(_self: Writer, _attempt: Any) -> None:
        return

    return [(Writer, "_move_fence", move)]


@mutant
def what_somebody_changed_counts_as_never_written() -> list[Swap]:
    async def settle(
        self: Writer, attempt: Any, _trace: Any, unknown: Ambiguous
    ) -> Transacted | None:
        if attempt.confirm is None:
            raise unknown
        await self._move_fence(attempt)
        revision, item = await self._read_back(attempt.confirm[0])
        if writer._is_ours(item, attempt.confirm[1]):
            seen = item.mod_revision if item is not None else revision
            return Transacted(succeeded=True, revision=seen)
        if attempt.guarded_at(attempt.confirm[0]) != (item.mod_revision if item else 0):
            raise LostRace(())
        return None

    return [(Writer, "_settle", settle)]


@mutant
def a_ve_that_grows_while_it_is_placed_is_not_looked_at() -> list[Swap]:
    from vecontroller.api import setspec  # noqa: PLC0415

    real = setspec._with_room

    def with_room(deps: Any, made: Any, placement: Any, more: Any) -> Any:
        return made if placement is None else real(deps, made, placement, more)

    return [(setspec, "_with_room", with_room)]


@mutant
def an_edit_is_not_guarded_on_what_was_read() -> list[Swap]:
    async def write(deps: Any, held: Any, made: Any) -> Any:
        wanted = msgspec.structs.replace(made.ve, op_id=deps.ids.new())
        key = keys.ve_spec(wanted.uid)
        revision = await deps.writer.commit(
            [*made.guards],
            [Put(key=key, value=commits.encoded(wanted)), *made.writes],
            confirm=None,
        )
        return Held(value=wanted, mod_revision=revision, create_revision=held.create_revision)

    return [(commits, "write", write), (deletion, "write", write)]


# The mirror.


@mutant
def a_gap_is_skipped_and_the_watch_goes_on() -> list[Swap]:
    async def relist(self: Mirror, *, trust_revisions: bool) -> None:
        self.view.revision = (await self._store.list(keys.ROOT)).revision

    return [(Mirror, "_relist", relist)]


@mutant
def a_new_list_deletes_nothing() -> list[Swap]:
    def fold_snapshot(self: Mirror, snapshot: Any, *, trust_revisions: bool) -> None:
        self._fold([(item.key, item) for item in snapshot.items], snapshot.revision, relisted=True)

    return [(Mirror, "_fold_snapshot", fold_snapshot)]


# Placement.


@mutant
def a_placement_is_not_guarded_on_there_being_none() -> list[Swap]:
    def guards(decided: Any) -> tuple[Guard, ...]:
        uid = decided.assignment.uid
        return (Guard(key=keys.ve_spec(uid), mod_revision=decided.spec_revision),)

    def settle(self: Any, _wanting: Any) -> None:
        self._undecided.clear()

    return [(decisions, "guards", guards), (scheduler.Scheduler, "_settle", settle)]


@mutant
def a_placement_of_unknown_outcome_takes_no_room() -> list[Swap]:
    def settle(self: Any, _wanting: Any) -> None:
        self._undecided.clear()

    return [(scheduler.Scheduler, "_settle", settle)]


@mutant
def a_host_that_is_silent_gets_ves_twice() -> list[Swap]:
    """The VE of a silent host is placed anew without anybody knowing that it is down."""
    real = decisions.wanting

    def wanting(view: Any) -> Any:
        found = dict(real(view))
        found.update({uid: held for uid, held in view.ves.items() if uid not in view.statuses})
        return found

    def guards(decided: Any) -> tuple[Guard, ...]:
        return (
            Guard(key=keys.ve_spec(decided.assignment.uid), mod_revision=decided.spec_revision),
        )

    return [(decisions, "wanting", wanting), (decisions, "guards", guards)]


@mutant
def the_disk_of_the_deleted_is_not_counted() -> list[Swap]:
    from vecontroller.placement import ledger as room_ledger  # noqa: PLC0415

    return [(room_ledger, "_kept_bytes", lambda _view, _host: 0)]


@mutant
def a_ve_that_grows_is_not_asked_for_room() -> list[Swap]:
    from contextlib import nullcontext  # noqa: PLC0415

    from vecontroller.api import setspec  # noqa: PLC0415

    return [(setspec, "room_for", lambda *_args, **_options: nullcontext())]


@mutant
def room_is_given_back_though_nobody_knows_the_outcome() -> list[Swap]:
    @contextmanager
    def holding(self: Holding[Any], what: Any) -> Iterator[None]:
        from vecontroller.holding import _Taken  # noqa: PLC0415

        taken = _Taken(what)
        self._taken.append(taken)
        try:
            yield
        finally:
            if taken in self._taken:
                self._taken.remove(taken)

    def settle(self: Any, _wanting: Any) -> None:
        self._undecided.clear()

    return [(Holding, "holding", holding), (scheduler.Scheduler, "_settle", settle)]


@mutant
def memory_is_not_counted() -> list[Swap]:
    from vecontroller.placement import ledger as room_ledger  # noqa: PLC0415

    real = room_ledger.committed

    def committed(view: Any, host: Any) -> Any:
        return msgspec.structs.replace(
            real(view, host), memory_bytes=0, cpu_millis=0, pids=0, disk_bytes=0
        )

    return [(room_ledger, "committed", committed)]


# Names, addresses, deletion.


@mutant
def an_address_is_not_guarded() -> list[Swap]:
    return [
        (addresses, "choose", lambda *_: "10.66.0.9"),
        (Writer, "commit", _commit_without("addr/")),
    ]


def _commit_without(part: str) -> Any:
    real = Writer.commit

    async def commit(self: Writer, guards: Any, writes: Any, **options: Any) -> int:
        return await real(self, [g for g in guards if part not in g.key], writes, **options)

    return commit


@mutant
def names_are_only_looked_up() -> list[Swap]:
    return [(Writer, "commit", _commit_without("ve/name/"))]


@mutant
def a_delete_frees_all_at_once() -> list[Swap]:
    async def delete(deps: Any, *rest: Any) -> Any:
        return await deletion._remove(deps, find_ve(deps.mirror.view, rest[-1].ve), [])

    return [(deletion, "delete", delete)]


@mutant
def what_is_kept_is_purged_at_once() -> list[Swap]:
    def due(view: Any, now: float) -> Any:
        return [held for held in view.deleted.values() if not held.value.purging]

    return [(purging, "due", due)]


@mutant
def keep_is_taken_for_purge() -> list[Swap]:
    def keep(wanted: Any, observed_: Any) -> Any:
        return reconcile._remove(observed_, timeout_s=wanted.stop_timeout_s, root=True)

    return [(reconcile, "_keep", keep)]


@mutant
def what_is_kept_need_not_be_down() -> list[Swap]:
    def of_kept(view: Any, report: Any, purge_at: float) -> Any:
        guards, writes = keeping(
            view, report.uid, purge_at=purge_at, disk_used_bytes=1, snapshots=()
        )
        return observed.Change(tuple(guards), tuple(writes))

    real = observed.of_report

    def of_report(view: Any, host: Any, report: Any, *, purge_at: float) -> Any:
        ve = view.ves.get(report.uid)
        leaving = ve is not None and ve.value.delete_requested_at is not None and not ve.value.purge
        if leaving and observed.placed_here(view, host, report.uid):
            return of_kept(view, report, purge_at)
        return real(view, host, report, purge_at=purge_at)

    return [(reports, "of_report", of_report)]


@mutant
def an_undeleted_ve_keeps_its_placement_number() -> list[Swap]:
    real = values.encode_placement

    def encode(placement: Any) -> bytes:
        number = max(1, placement.generation - 1)
        lower: bytes = real(msgspec.structs.replace(placement, generation=number))
        return lower

    return [(values, "encode_placement", encode)]


@mutant
def a_removal_does_not_look_at_the_placement() -> list[Swap]:
    def without(view: Any, uid: Any) -> Any:
        guards, writes = removal(view, uid)
        return guards[:1], [w for w in writes if w.key != keys.ve_placement(uid)]

    return [(deletion, "removal", without), (scheduler, "removal", without)]


# Reports and sessions.


@mutant
def reports_are_acknowledged_before_they_are_written() -> list[Swap]:
    async def take(self: Any, batch: Any) -> None:
        for reported in batch:
            reported.done()
        newest = reports._Newest(self._clock.wall() + self._keep_deleted_s)
        for reported in batch:
            self._note_orphans(reported)
            newest.words.update(reports._words(reported))
        pending = newest.pending(self._mirror.view)
        for group in observed.packed(pending.values(), at_most=40):
            await self._commit(group)

    return [(reports.Reports, "_take", take)]


@mutant
def a_status_of_an_earlier_placement_counts() -> list[Swap]:
    def of_status(view: Any, host: Any, report: Any) -> Any:
        held, key = view.statuses.get(report.uid), keys.ve_status(report.uid)
        status = observed._bounded(report.status, host)
        if held is not None and held.value == status:
            return None
        guard = Guard(key=key, mod_revision=held.mod_revision if held is not None else 0)
        return observed.Change((guard,), (Put(key=key, value=values.encode_status(status)),))

    return [(observed, "_of_status", of_status)]


@mutant
def a_new_session_reports_only_what_changed() -> list[Swap]:
    def whole(self: Any) -> Any:
        return self._numbered(session_pb2.Report())

    return [(session._Reports, "whole", whole)]


@mutant
def a_change_while_a_set_is_under_way_is_forgotten() -> list[Swap]:
    real = HostSession._next_set

    def next_set(self: HostSession) -> Any:
        found = real(self)
        self._set_due = False
        return found

    return [(HostSession, "_next_set", next_set)]


# Agents.


@mutant
def a_host_takes_any_set() -> list[Swap]:
    """It compares neither epoch nor revision."""

    async def apply(self: Any, host_set: Any) -> Any:
        async with self._applying:
            await self._ground.ledger.save_set(host_set)
            self._set = host_set
            await manager.Manager._put_in_force(self, host_set)
            self._confirmed = self._set
            return self.held

    real_build = hostset.build

    def build(view: Any, host: Any, *, order: Order, images: Any = ()) -> Any:
        return real_build(view, host, order=order, images=images)

    return [(manager.Manager, "apply", apply), (hostset, "build", build)]


@mutant
def a_set_is_acknowledged_before_it_is_durable() -> list[Swap]:
    real = ledger.Ledger.save_set

    async def save_set(self: Any, host_set: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(1.5)
            await real(self, host_set)

        self.background = asyncio.create_task(later())

    return [(ledger.Ledger, "save_set", save_set)]


@mutant
def a_set_is_written_and_not_synced() -> list[Swap]:
    def replace_file(path: Any, content: bytes) -> None:
        beside = path.with_name(path.name + ".tmp")
        beside.write_bytes(content)
        beside.rename(path)

    return [(ledger, "replace_file", replace_file)]


@mutant
def restart_seq_is_not_persisted() -> list[Swap]:
    real = ledger.Ledger.put

    def put(self: Any, what: Any) -> None:
        real(self, msgspec.structs.replace(what, restart_seq=0))

    return [(ledger.Ledger, "put", put)]


@mutant
def root_seq_is_not_persisted() -> list[Swap]:
    real = ledger.Ledger.put

    def put(self: Any, what: Any) -> None:
        real(self, msgspec.structs.replace(what, root_seq=0))

    return [(ledger.Ledger, "put", put)]


@mutant
def ids_are_released_when_a_ve_is_kept() -> list[Swap]:
    real = memory.Memory.keep

    def keep(self: Any, entry: Any, used_bytes: int) -> None:
        real(self, entry, used_bytes)
        self._ground.ids.release(self.record.id_base)

    return [(memory.Memory, "keep", keep), *_lowest_ids_first()]


@mutant
def ids_are_released_before_the_root_is_gone() -> list[Swap]:
    real = steps.Steps._remove

    async def remove(self: Any, *, root: bool) -> None:
        if self._memory.record is not None:
            self._ground.ids.release(self._memory.record.id_base)
        await real(self, root=root)

    return [(steps.Steps, "_remove", remove), *_lowest_ids_first()]


@mutant
def ids_of_records_are_forgotten_at_a_restart() -> list[Swap]:
    real = IdRanges.take

    def take(self: IdRanges, bases: Any) -> None:
        found = list(bases)
        if len(found) == 1 or not found:
            real(self, found)

    return [(IdRanges, "take", take)]


def _lowest_ids_first() -> list[Swap]:
    """So that a released range is given again at once: else many must be given before a mistake shows."""

    def candidate(self: IdRanges) -> int:
        import heapq  # noqa: PLC0415

        if self._free:
            return self._base + heapq.heappop(self._free) * 65_536
        self._next += 1
        return self._base + (self._next - 1) * 65_536

    return [(IdRanges, "_candidate", candidate)]


@mutant
def absence_destroys() -> list[Swap]:
    real = reconcile.next_action

    def next_action(wanted: Any, seen: Any) -> Any:
        if wanted is None:
            return reconcile._remove(seen, timeout_s=0, root=True)
        return real(wanted, seen)

    from veagent import worker  # noqa: PLC0415

    return [(worker, "next_action", next_action)]


@mutant
def a_newer_root_is_made_again_and_again() -> list[Swap]:
    def replace(wanted: Any, seen: Any, known: Any) -> Any:
        if (
            wanted.root.seq < known.root_seq
            or not wanted.root.seq
            or wanted.root.seq == seen.root_refused
        ):
            return None
        return reconcile.ReplaceRoot(wanted.stop_timeout_s) if seen.root else None

    return [(reconcile, "_replace", replace)]


@mutant
def a_ve_is_stopped_when_its_record_is_confirmed_late() -> list[Swap]:
    """Every newer generation restarts it."""
    real = reconcile._settle

    def settle(wanted: Any, seen: Any) -> Any:
        if seen.record is not None and wanted.generation > seen.record.generation:
            return reconcile.Stop(wanted.stop_timeout_s)
        return real(wanted, seen)

    return [(reconcile, "_settle", settle)]


@mutant
def the_ledgers_set_counts_before_a_controller_spoke() -> list[Swap]:
    """And so does what it says of images: the last copy of one may go."""

    def spare_images(self: Any) -> Any:
        return frozenset(image.digest for image in (self._set.images if self._set else ()))

    return [(manager.Manager, "spare_images", spare_images)]


@mutant
def every_copy_of_an_image_is_spare() -> list[Swap]:
    def spare(self: Any) -> Any:
        return frozenset(image.digest for image in self._images.held())

    def idle(self: imagesweep.ImageSweeper) -> Any:
        may_go = spare(self)
        found = [(self._images.idle_s(digest), digest) for digest in may_go]
        return sorted(((s, digest) for s, digest in found if s is not None), reverse=True)

    async def remove(self: imagesweep.ImageSweeper, digest: Any) -> None:
        await self._images.delete(digest)
        self._needs.gone()

    return [(imagesweep.ImageSweeper, "_idle", idle), (imagesweep.ImageSweeper, "_remove", remove)]


@mutant
def enough_hosts_always_hold_an_image() -> list[Swap]:
    def of_host(self: Copies, host: Any) -> Any:
        view = self._view()
        images = view.hosts[host].value.images if host in view.hosts else ()
        return tuple(
            WantedImage(digest=image.digest, blob_digest=image.blob_digest, spare=True)
            for image in images
        )

    return [(Copies, "of_host", of_host)]


@mutant
def a_crashed_ve_stays_down() -> list[Swap]:
    real = memory.Memory.end

    def end(self: Any, verdict: Any, wanted: Any, trouble: Any) -> None:
        from dataclasses import replace  # noqa: PLC0415

        real(self, replace(verdict, restart=False), wanted, trouble)

    return [(memory.Memory, "end", end)]


@mutant
def a_rebooted_host_leaves_its_ves_down() -> list[Swap]:
    from dataclasses import replace  # noqa: PLC0415

    from veagent import ends  # noqa: PLC0415

    real = ends.lost

    def lost(ended: Any, *, same_boot: bool) -> Any:
        return replace(real(ended, same_boot=same_boot), restart=same_boot)

    return [(ends, "lost", lost)]


@mutant
def a_torn_record_is_taken_for_whole() -> list[Swap]:
    def append(path: Any, content: bytes) -> None:
        path.write_bytes(path.read_bytes() + content)

    from veagent import recordfile  # noqa: PLC0415

    return [(recordfile, "append", append)]


import sim.mutants_fencing  # noqa: E402, F401 - they join these

__all__ = ["MUTANTS", "applied"]
