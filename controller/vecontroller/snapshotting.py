"""Snapshots by schedule, and the end of those that are to go: woken by changes and by the clock, decides from the whole view.

What a schedule asks is a wish like a person's, marked with its rule. As in `purging`, time is the wall clock's: hours have
to outlive every process. A rule's first snapshot is due at once, each later one so long after the last. More of a rule
than it keeps, and its failed ones, are marked as leaving; those of a rule that is not in the schedule any more stay.
A wish that is leaving goes once its host has answered it and its report does not show the snapshot: before that the host
may be taking it. A snapshot that a clone is still to be made of stays.

Rules count in minutes at least, so all VEs are looked at a few times a minute, some at a time; those that changed at once.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
import structlog

from veapi import schedule
from veapi.clock import Clock
from veapi.errors import Conflict, InvalidInput, Unavailable
from veapi.model import VE, Digest, HostState, SnapshotStatus, SnapshotWish, Uid, VEState, VEStatus
from veapi.validate import SPEC_LIMIT_BYTES
from vecontroller import allowance, quota
from vecontroller.holding import Reserved
from vecontroller.incarnation import is_unconfirmed
from vecontroller.leader import NotLeader
from vecontroller.ports import Commits, Hosts, Mirrored
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.topic import Subscription, Topic
from vecontroller.view import Changed, Held, View

log = structlog.get_logger()
SNAPSHOTS_LIMIT = 100
"""Wishes of one VE: they are part of its record, which is small."""
LOOK_S = 10.0
"""Between two looks at all of them."""
PAUSE_S = 0.2
"""After a change: what comes meanwhile is looked at together."""
BATCH = 40
SLICE = 100
"""Looked at without giving way to others: some milliseconds."""
ROOTED = (VEState.RUNNING, VEState.STOPPED, VEState.FROZEN)
_ROOTLESS_REASONS = ("RootFailed", "PoolFull")
"""Why a host says that a VE has failed whose root it could not make."""


def taken(view: View, ve: VE) -> tuple[SnapshotStatus, ...]:
    """The snapshots that its host says it has, or why it has not; of its present placement."""
    status = _reported(view, ve)
    return status.snapshots if status is not None else ()


def image_of(there: SnapshotStatus, ve: VE) -> Digest:
    """The image of the snapshot's root; the VE's when its host did not note it, as it was before."""
    return there.image_digest or ve.image_digest


def image_ref(view: View, ref: str, digest: Digest) -> str:
    """What the image is called: as until now while that means it, else by one of its tags; as until now without any."""
    tags = sorted(tag for tag, held in view.tags.items() if held.value == digest)
    return ref if ref in (*tags, digest) or not tags else tags[0]


def answered(view: View, ve: VE) -> int:
    """Up to which number its host has answered every wish: what is not among `taken` then is not there."""
    status = _reported(view, ve)
    return status.observed_snapshot_seq if status is not None else 0


def needed(view: View) -> frozenset[tuple[Uid, str]]:
    """Snapshots by VE and tag that clones are still to be made of."""
    return frozenset(
        (held.value.root.from_uid, held.value.root.snapshot)
        for held in unmade_clones(view)
        if held.value.root.snapshot
    )


def unmade_clones(view: View) -> Iterator[Held[VE]]:
    """Those whose root their host has not made yet, as far as it has said: of a snapshot, or of a live root."""
    for held in view.ves.values():
        if held.value.root.from_uid and not _has_root(view, held.value):
            yield held


def _has_root(view: View, ve: VE) -> bool:
    status = _reported(view, ve)
    if status is None:
        return False
    if status.state is VEState.FAILED:
        return status.reason not in _ROOTLESS_REASONS
    return status.state in ROOTED


def with_wish(view: View, ve: VE, tag: str, now: float, *, rule: str = "") -> VE:
    """The VE with one snapshot more to take. A host's number counts too: a store may have been set back to an older one."""
    seq = 1 + max((ve.snapshot_seq, answered(view, ve), *(each.seq for each in taken(view, ve))))
    wish = SnapshotWish(tag=tag, seq=seq, created_at=now, rule=rule)
    return msgspec.structs.replace(ve, snapshots=(*ve.snapshots, wish), snapshot_seq=seq)


def leaving(ve: VE, seqs: set[int]) -> VE:
    """The VE with those snapshots marked as leaving."""
    return msgspec.structs.replace(
        ve,
        snapshots=tuple(
            msgspec.structs.replace(wish, deleting=True) if wish.seq in seqs else wish
            for wish in ve.snapshots
        ),
    )


def settled(view: View, ve: VE) -> VE:
    """Without the leaving ones that its host has not (any more); without any that leave when it has no host."""
    there = {each.seq for each in taken(view, ve)}
    upto = answered(view, ve) if ve.uid in view.placements else ve.snapshot_seq
    kept = tuple(
        wish for wish in ve.snapshots if not wish.deleting or wish.seq in there or wish.seq > upto
    )
    return ve if len(kept) == len(ve.snapshots) else msgspec.structs.replace(ve, snapshots=kept)


@lru_cache(maxsize=1024)
def _rules(text: str) -> tuple[schedule.Rule, ...]:
    """An unreadable schedule asks for nothing."""
    try:
        return schedule.parse(text)
    except InvalidInput:
        return ()


def scheduled(
    view: View,
    ve: VE,
    now: float,
    *,
    spared: Collection[tuple[Uid, str]] = frozenset(),
    more: bool = True,
) -> VE:
    """With what its schedule asks for now. `spared`: snapshots that must not go yet. `more`: whether any may come."""
    for rule in _rules(ve.spec.snapshot_schedule):
        ve = _trimmed(view, _taken_on(view, ve, rule, now) if more else ve, rule, spared)
    return ve


def next_ve(
    view: View,
    held: Held[VE],
    now: float,
    *,
    ready: bool,
    spared: Collection[tuple[Uid, str]] = frozenset(),
    more: bool = True,
) -> VE:
    """The VE as it shall be. `ready`: its host is there, so that a scheduled snapshot would be taken now, not much later."""
    ve = settled(view, held.value)
    if not ready or ve.delete_requested_at is not None or not _rooted(view, ve):
        return ve
    return scheduled(view, ve, now, spared=spared, more=more)


def tag_for(name: str, now: float) -> str:
    """E.g. `daily-20261124-0300`."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M")
    return f"{name.replace(' ', '-')}-{stamp}"


def free_tag(ve: VE, tag: str) -> str:
    """The tag, with a number behind it when there is one of that name."""
    tags = {wish.tag for wish in ve.snapshots}
    return next(each for each in _numbered(tag) if each not in tags)


def _numbered(tag: str) -> Iterator[str]:
    yield tag
    for number in range(2, SNAPSHOTS_LIMIT + 3):
        yield f"{tag}-{number}"


def _rooted(view: View, ve: VE) -> bool:
    status = _reported(view, ve)
    return status is not None and status.state in ROOTED


def _reported(view: View, ve: VE) -> VEStatus | None:
    """What its host has said of its present placement."""
    status, placement = view.statuses.get(ve.uid), view.placements.get(ve.uid)
    if status is None or placement is None:
        return None
    same = status.value.placement_generation == placement.value.generation
    return status.value if same else None


def _taken_on(view: View, ve: VE, rule: schedule.Rule, now: float) -> VE:
    """One at a time. A clock that was set far back or forward makes one due, and counts from there."""
    own = [each for each in ve.snapshots if each.rule == rule.name and not each.deleting]
    last = max(own, key=lambda wish: wish.seq, default=None)
    due = last is None or abs(now - last.created_at) >= rule.every_s
    if not due or len(ve.snapshots) >= SNAPSHOTS_LIMIT:
        return ve
    there, upto = {each.seq for each in taken(view, ve)}, answered(view, ve)
    if any(each.seq not in there and each.seq > upto for each in own):
        return ve
    more = with_wish(view, ve, free_tag(ve, tag_for(rule.name, now)), now, rule=rule.name)
    return more if len(values.encode_ve(more)) <= SPEC_LIMIT_BYTES else ve


def _trimmed(view: View, ve: VE, rule: schedule.Rule, spared: Collection[tuple[Uid, str]]) -> VE:
    """The newest `keep` that are there stay, so a failure pushes none out. Failed ones go when there is a newer one."""
    own = {each.seq: each for each in ve.snapshots if each.rule == rule.name and not each.deleting}
    there = {each.seq: each for each in taken(view, ve) if each.seq in own}
    good = sorted(seq for seq, each in there.items() if not each.error)
    upto = answered(view, ve)
    failed = {seq for seq in own if (there[seq].error if seq in there else seq <= upto)}
    going = set(good[: -rule.keep]) | (failed - {max(own, default=0)})
    going = {seq for seq in going if (ve.uid, own[seq].tag) not in spared}
    return leaving(ve, going) if going else ve


class Snapshotting:
    """Beside the API the only one that writes a VE's wishes for snapshots."""

    def __init__(
        self,
        mirror: Mirrored,
        writer: Commits,
        hosts: Hosts,
        topic: Topic,
        clock: Clock,
        *,
        new_op_id: Callable[[], str],
        reserved: Reserved,
    ) -> None:
        self._reserved = reserved
        self._mirror = mirror
        self._writer = writer
        self._hosts = hosts
        self._topic = topic
        self._clock = clock
        self._new_op_id = new_op_id

    async def run(self) -> None:
        """For ever; raises NotLeader when it is no longer ours to decide."""
        with self._topic.subscribe() as changes:
            next_whole = 0.0
            changed = None
            while True:
                whole = changed is None or changed.relisted or self._clock.boot() >= next_whole
                if whole:
                    next_whole = self._clock.boot() + LOOK_S
                await self.look_once(None if whole or changed is None else changed.ves)
                changed = await self._rest(changes, max(0.0, next_whole - self._clock.boot()))

    async def _rest(self, changes: Subscription, seconds: float) -> Changed | None:
        """Until something has changed, or for so long."""
        changed = await changes.next_within(self._clock, seconds)
        await self._clock.sleep(PAUSE_S)
        return changed

    async def look_once(self, uids: Collection[Uid] | None = None) -> None:
        """Writes what is due, of these VEs or of all. What could not be written is due again at the next whole look."""
        if is_unconfirmed(self._mirror.view):
            return
        asked = list(self._mirror.view.ves if uids is None else uids)
        clones = needed(self._mirror.view)
        for start in range(0, len(asked), SLICE):
            due = list(self._due(asked[start : start + SLICE], clones))
            for first in range(0, len(due), BATCH):
                await self._write(due[first : first + BATCH])
            await asyncio.sleep(0)

    def _due(
        self, uids: Collection[Uid], clones: Collection[tuple[Uid, str]]
    ) -> Iterator[tuple[Held[VE], VE]]:
        view, now = self._mirror.view, self._clock.wall()
        for held in (view.ves[uid] for uid in uids if uid in view.ves):
            ve = held.value
            if ve.snapshots or ve.spec.snapshot_schedule:
                ready = self._ready(view, ve)
                wanted = next_ve(view, held, now, ready=ready, spared=clones)
                if wanted != ve:
                    yield held, wanted

    def _ready(self, view: View, ve: VE) -> bool:
        placement = view.placements.get(ve.uid)
        return (
            placement is not None
            and self._hosts.host_state(placement.value.host) is HostState.READY
        )

    def _within(self, held: Held[VE], wanted: VE, stack: ExitStack) -> tuple[VE, tuple[Guard, ...]]:
        """As much of it as its project's quota allows, which is held by `stack`: else no new snapshot, only what goes."""
        view, ve = self._mirror.view, held.value
        more = quota.growth(quota.of_ve(ve), quota.of_ve(wanted))
        try:
            stack.enter_context(allowance.allowed(view, self._reserved, ve.project, more))
        except Conflict:
            ready = self._ready(view, ve)
            spared, now = needed(view), self._clock.wall()
            return next_ve(view, held, now, ready=ready, spared=spared, more=False), ()
        return wanted, allowance.guards(view, ve.project, more)

    async def _write(self, batch: list[tuple[Held[VE], VE]]) -> None:
        try:
            with ExitStack() as stack:
                await self._commit(batch, stack)
        except NotLeader:
            raise
        except (Conflict, Unavailable) as error:
            log.info("snapshots not asked for yet", ves=len(batch), error=error.message)

    async def _commit(self, batch: list[tuple[Held[VE], VE]], stack: ExitStack) -> None:
        op_id = self._new_op_id()
        guards: dict[str, Guard] = {}
        writes: list[Put] = []
        for held, asked in batch:
            wanted, quotas = self._within(held, asked, stack)
            if wanted == held.value:
                continue
            key = keys.ve_spec(wanted.uid)
            own = Guard(key=key, mod_revision=held.mod_revision)
            guards.update({guard.key: guard for guard in (own, *quotas)})
            value = values.encode_ve(msgspec.structs.replace(wanted, op_id=op_id))
            writes.append(Put(key=key, value=value))
        if writes:
            confirm = (writes[0].key, op_id)
            await self._writer.commit(list(guards.values()), writes, confirm=confirm)
