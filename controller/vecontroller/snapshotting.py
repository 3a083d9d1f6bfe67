"""Snapshots by schedule, and the end of those that are to go: woken by changes and by the clock, decides from the whole view.

What a schedule asks is a wish like a person's, marked with its rule. As in `purging`, time is the wall clock's: hours have
to outlive every process. A rule's first snapshot is due at once, each later one so long after the last. More of a rule
than it keeps, and its failed ones, are marked as leaving; those of a rule that is not in the schedule any more stay.
A wish that is leaving goes once the host's report does not show its snapshot.
"""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec
import structlog

from veapi import schedule
from veapi.clock import Clock
from veapi.errors import Conflict, InvalidInput, Unavailable
from veapi.model import VE, HostState, SnapshotStatus, SnapshotWish, VEState
from vecontroller.leader import NotLeader
from vecontroller.ports import Commits, Hosts, Mirrored
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.topic import Topic
from vecontroller.view import Held, View

log = structlog.get_logger()
SNAPSHOTS_LIMIT = 100
"""Wishes of one VE: they are part of its record, which is small."""
LOOK_S = 5.0
"""Between two looks while nothing changes. Rules count in minutes at least."""
PAUSE_S = 0.2
"""After a change: what comes meanwhile is looked at together."""
BATCH = 40
ROOTED = (VEState.RUNNING, VEState.STOPPED, VEState.FROZEN)


def taken(view: View, ve: VE) -> tuple[SnapshotStatus, ...]:
    """The snapshots that its host says it has, or why it has not; of its present placement."""
    status, placement = view.statuses.get(ve.uid), view.placements.get(ve.uid)
    if status is None or placement is None:
        return ()
    if status.value.placement_generation != placement.value.generation:
        return ()
    return status.value.snapshots


def with_wish(view: View, ve: VE, tag: str, now: float, *, rule: str = "") -> VE:
    """The VE with one snapshot more to take. A host's number counts too: a store may have been set back to an older one."""
    seq = 1 + max((ve.snapshot_seq, *(each.seq for each in taken(view, ve))))
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
    if ve.uid in view.placements and not _reported(view, ve):
        return ve
    kept = tuple(wish for wish in ve.snapshots if not wish.deleting or wish.seq in there)
    return ve if len(kept) == len(ve.snapshots) else msgspec.structs.replace(ve, snapshots=kept)


def scheduled(view: View, ve: VE, now: float) -> VE:
    """With what its schedule asks for now. An unreadable schedule asks for nothing."""
    try:
        rules = schedule.parse(ve.spec.snapshot_schedule)
    except InvalidInput:
        return ve
    for rule in rules:
        ve = _trimmed(view, _taken_on(view, ve, rule, now), rule)
    return ve


def next_ve(view: View, held: Held[VE], now: float, *, ready: bool) -> VE:
    """The VE as it shall be. `ready`: its host is there, so that a scheduled snapshot would be taken now, not much later."""
    ve = settled(view, held.value)
    if not ready or ve.delete_requested_at is not None or not _rooted(view, ve):
        return ve
    return scheduled(view, ve, now)


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
    status = view.statuses.get(ve.uid)
    return _reported(view, ve) and status is not None and status.value.state in ROOTED


def _reported(view: View, ve: VE) -> bool:
    status, placement = view.statuses.get(ve.uid), view.placements.get(ve.uid)
    if status is None or placement is None:
        return False
    return status.value.placement_generation == placement.value.generation


def _taken_on(view: View, ve: VE, rule: schedule.Rule, now: float) -> VE:
    """One at a time. A clock that was set back makes nothing due; one that was set forward makes one due."""
    own = [each for each in ve.snapshots if each.rule == rule.name and not each.deleting]
    last = max((each.created_at for each in own), default=None)
    due = last is None or now - last >= rule.every_s
    answered = {each.seq for each in taken(view, ve)}
    pending = any(each.seq not in answered for each in own)
    if not due or pending or len(ve.snapshots) >= SNAPSHOTS_LIMIT:
        return ve
    return with_wish(view, ve, free_tag(ve, tag_for(rule.name, now)), now, rule=rule.name)


def _trimmed(view: View, ve: VE, rule: schedule.Rule) -> VE:
    """The newest `keep` that are there stay, so a failure pushes none out. Failed ones go when there is a newer one."""
    own = {each.seq for each in ve.snapshots if each.rule == rule.name and not each.deleting}
    there = [each for each in taken(view, ve) if each.seq in own]
    good = sorted(each.seq for each in there if not each.error)
    failed = {each.seq for each in there if each.error}
    going = set(good[: -rule.keep]) | (failed - {max(own, default=0)})
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
    ) -> None:
        self._mirror = mirror
        self._writer = writer
        self._hosts = hosts
        self._topic = topic
        self._clock = clock
        self._new_op_id = new_op_id

    async def run(self) -> None:
        """For ever; raises NotLeader when it is no longer ours to decide."""
        with self._topic.subscribe() as changes:
            while True:
                await self.look_once()
                await self._rest(changes.next())

    async def _rest(self, changed: object) -> None:
        """Until something has changed, or for a while."""
        waits = [
            asyncio.ensure_future(changed),  # type: ignore[call-overload]
            asyncio.ensure_future(self._clock.sleep(LOOK_S)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        await self._clock.sleep(PAUSE_S)

    async def look_once(self) -> None:
        """Writes what is due. What could not be written is due again at the next look."""
        changed = list(self._due())
        for start in range(0, len(changed), BATCH):
            await self._write(changed[start : start + BATCH])

    def _due(self) -> Iterator[tuple[Held[VE], VE]]:
        view, now = self._mirror.view, self._clock.wall()
        for held in view.ves.values():
            ve = held.value
            if ve.snapshots or ve.spec.snapshot_schedule:
                wanted = next_ve(view, held, now, ready=self._ready(view, ve))
                if wanted != ve:
                    yield held, wanted

    def _ready(self, view: View, ve: VE) -> bool:
        placement = view.placements.get(ve.uid)
        return (
            placement is not None
            and self._hosts.host_state(placement.value.host) is HostState.READY
        )

    async def _write(self, batch: list[tuple[Held[VE], VE]]) -> None:
        op_id = self._new_op_id()
        guards, writes = [], []
        for held, wanted in batch:
            key = keys.ve_spec(wanted.uid)
            guards.append(Guard(key=key, mod_revision=held.mod_revision))
            value = values.encode_ve(msgspec.structs.replace(wanted, op_id=op_id))
            writes.append(Put(key=key, value=value))
        try:
            await self._writer.commit(guards, writes, confirm=(writes[0].key, op_id))
        except NotLeader:
            raise
        except (Conflict, Unavailable) as error:
            log.info("snapshots not asked for yet", ves=len(batch), error=error.message)
