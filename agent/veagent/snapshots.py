"""Which snapshot of a VE is to be taken or removed next: pure.

Wishes are numbered. Each is taken once, in the order of the numbers: the record holds the last number that was taken or
given up. So neither a repeated set nor a death in between takes one twice, and one that was removed by hand stays away.
Only what is marked as deleting is ever removed. A wish that fails is tried again a few times and then given up with its
error told; it never keeps the VE from anything else.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec

from veagent.ends import backoff_s
from veagent.record import VERecord
from veapi.errors import Conflict, InvalidInput, NotFound, VerackError
from veapi.model import SetEntry, SnapshotStatus, SnapshotWish

TRIES = 5


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    tag: str
    seq: int


@dataclass(frozen=True, slots=True)
class DeleteSnapshot:
    tag: str
    seq: int


SnapshotStep = TakeSnapshot | DeleteSnapshot


def next_snapshot(
    wanted: SetEntry, record: VERecord, *, waiting: Collection[int], takes: bool
) -> SnapshotStep | None:
    """Removals come first: they make room. `waiting`: numbers that failed and may not be tried yet."""
    present = {snapshot.seq for snapshot in record.snapshots}
    for wish in wanted.snapshots:
        removable = wish.deleting and wish.seq in present and wish.seq not in waiting
        if removable and not _needed(wanted, record, wish):
            return DeleteSnapshot(wish.tag, wish.seq)
    untaken = [each for each in wanted.snapshots if is_untaken(each, record)]
    first = min(untaken, key=lambda wish: wish.seq, default=None)
    if first is None or first.seq in waiting or not takes:
        return None
    return TakeSnapshot(first.tag, first.seq)


def is_untaken(wish: SnapshotWish, record: VERecord) -> bool:
    return wish.seq > record.snapshot_seq and not wish.deleting


def answered_seq(record: VERecord, wanted: SetEntry | None, doing: object) -> int:
    """Up to which number every wish is answered: taken, given up, or taken back before anything was done about it.

    `doing`: the step that is being carried out; one that takes a snapshot has not answered that wish yet.
    """
    wishes = wanted.snapshots if wanted is not None else ()
    waiting = [wish.seq for wish in wishes if is_untaken(wish, record)]
    if isinstance(doing, TakeSnapshot) and doing.seq > record.snapshot_seq:
        waiting.append(doing.seq)
    first = min(waiting, default=None)
    taken_back = (wish.seq for wish in wishes if first is None or wish.seq < first)
    return max((record.snapshot_seq, *taken_back))


def _needed(wanted: SetEntry, record: VERecord, wish: SnapshotWish) -> bool:
    """The root is still to be made of it."""
    root = wanted.root
    return root.seq > record.root_seq and not root.from_uid and root.snapshot == wish.tag


def with_found(record: VERecord, found: Iterable[SnapshotStatus]) -> VERecord:
    """Corrected by what is on the disk: what is not there any more, and what a lost record did not know."""
    there = tuple(sorted(found, key=lambda snapshot: snapshot.seq))
    failed = tuple(each for each in record.snapshots if not each.taken_at)
    highest = max((snapshot.seq for snapshot in there), default=0)
    return msgspec.structs.replace(
        record,
        snapshots=_in_order((*there, *failed)),
        snapshot_seq=max(record.snapshot_seq, highest),
    )


def with_taken(record: VERecord, taken: SnapshotStatus) -> VERecord:
    return msgspec.structs.replace(
        record,
        snapshots=_in_order((*_without(record, taken.seq), taken)),
        snapshot_seq=max(record.snapshot_seq, taken.seq),
    )


def with_deleted(record: VERecord, seq: int) -> VERecord:
    return msgspec.structs.replace(record, snapshots=_without(record, seq))


def with_error(record: VERecord, step: SnapshotStep, error: str, *, given_up: bool) -> VERecord:
    """What is there stays told as there, with the error beside it."""
    known = next((each for each in record.snapshots if each.seq == step.seq), None)
    failed = (
        msgspec.structs.replace(known, error=error)
        if known is not None
        else SnapshotStatus(tag=step.tag, seq=step.seq, taken_at=0.0, error=error)
    )
    if isinstance(step, DeleteSnapshot) or not given_up:
        seq = record.snapshot_seq
    else:
        seq = max(record.snapshot_seq, step.seq)
    return msgspec.structs.replace(
        record, snapshots=_in_order((*_without(record, step.seq), failed)), snapshot_seq=seq
    )


def without_forgotten(record: VERecord, entry: SetEntry) -> VERecord:
    """Errors of wishes that nobody has any more are not told for ever."""
    wished = {wish.seq for wish in entry.snapshots}
    told = tuple(each for each in record.snapshots if each.taken_at or each.seq in wished)
    return record if told == record.snapshots else msgspec.structs.replace(record, snapshots=told)


def _without(record: VERecord, seq: int) -> tuple[SnapshotStatus, ...]:
    return tuple(each for each in record.snapshots if each.seq != seq)


def _in_order(snapshots: Iterable[SnapshotStatus]) -> tuple[SnapshotStatus, ...]:
    return tuple(sorted(snapshots, key=lambda snapshot: snapshot.seq))


@dataclass(frozen=True, slots=True)
class _Try:
    failures: int
    until: float


class SnapshotTries:
    """How often each number failed, and until when (boot time) it waits."""

    def __init__(self) -> None:
        self._tries: dict[int, _Try] = {}

    def waiting(self, now: float) -> frozenset[int]:
        return frozenset(seq for seq, each in self._tries.items() if each.until > now)

    def next_in_s(self, now: float) -> float | None:
        """Seconds until one may be tried again; None: none waits."""
        waits = [each.until - now for each in self._tries.values() if each.until > now]
        return min(waits, default=None)

    def failed(self, step: SnapshotStep, error: VerackError, now: float) -> bool:
        """True: it is given up. A removal never is."""
        before = self._tries.get(step.seq)
        failures = before.failures + 1 if before else 1
        hopeless = isinstance(error, InvalidInput | NotFound | Conflict) or failures >= TRIES
        if isinstance(step, TakeSnapshot) and hopeless:
            self.forget(step.seq)
            return True
        self._tries[step.seq] = _Try(failures, now + backoff_s(failures))
        return False

    def forget(self, seq: int) -> None:
        self._tries.pop(seq, None)

    def again(self) -> None:
        """Something changed: none waits any more."""
        self._tries = {seq: _Try(each.failures, 0.0) for seq, each in self._tries.items()}
