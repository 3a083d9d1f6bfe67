"""The one way to write: every transaction is guarded on the leader key, and its outcome is always found out.

A write whose answer was lost may have been applied, or may yet be, seconds later. Sending it again blindly turns its own
success into "refused"; calling it failed lets it appear later, and then even after what it made was deleted again, as "there
is no such key" holds once more. So every write is guarded on the *fence* too, a key that the leader moves on in this case:
what was sent before can't be applied any more. Then the mirror has seen our `op_id` at the key to `confirm`, whoever has
changed that since, or the write was not applied and is sent once more. When the mirror can't tell, as its watch has a gap or
lags, the key is read back too; what somebody else has changed by then stays unknown. A key that is not there was never written,
if the mirror has no gap: nobody but us deletes, and only what the mirror showed.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from veapi.errors import Conflict, TimedOut, Unavailable
from vecontroller.leader import Leadership, NotLeader
from vecontroller.mirror import Mirror, Trace
from vecontroller.store import values
from vecontroller.store.keys import FENCE, LEADER
from vecontroller.store.port import (
    MAX_TRANSACTION_OPS,
    Ambiguous,
    Compacted,
    Guard,
    Put,
    Store,
    StoreItem,
    Transacted,
    Write,
)
from vecontroller.store.values import Unreadable

log = structlog.get_logger()
CATCH_UP_S = 1.0
ATTEMPTS = 8
"""Of a write that was surely not applied, as the fence was moved on meanwhile."""
FENCE_ATTEMPTS = 3
FENCE_PAUSE_S = 0.2
FENCE_WAITS = 15
"""Three seconds in all, for a new leader of etcd; users wait for ten."""


class LostRace(Conflict):
    """A guarded key was changed by somebody else; nothing was written. `found`: the guarded keys as they are now."""

    def __init__(self, found: Sequence[StoreItem]) -> None:
        super().__init__(
            "the object was changed at the same time by somebody else",
            hint="read it again and repeat what you wanted, if it still holds",
        )
        self.found = tuple(found)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """`guards`: those of the caller. `fence`: as it was when this was sent."""

    term: Leadership
    guards: tuple[Guard, ...]
    writes: tuple[Write, ...]
    confirm: tuple[str, str] | None
    fence: int

    @property
    def all_guards(self) -> tuple[Guard, ...]:
        return (*self.guards, self.term.guard, Guard(key=FENCE, mod_revision=self.fence))

    def guarded_at(self, key: str) -> int | None:
        """The mod-revision that the key must have; None: any."""
        return next((g.mod_revision for g in self.guards if g.key == key), None)


class Writer:
    """`leading` gives the current term, or None. `ambiguous` counts writes whose answer was lost."""

    def __init__(
        self, store: Store, mirror: Mirror, leading: Callable[[], Leadership | None]
    ) -> None:
        self.ambiguous = 0
        self._store = store
        self._mirror = mirror
        self._leading = leading
        self._unseen = 0
        """A revision of ours that the mirror did not show in time: until then nobody may decide."""

    async def commit(
        self,
        guards: Sequence[Guard],
        writes: Sequence[Write],
        *,
        confirm: tuple[str, str] | None = None,
        wait: bool = True,
    ) -> int:
        """Writes all or nothing, and gives the revision, once the mirror shows it (unless not `wait`).

        `confirm` is a written key and the op_id in its new value, "" for a key that is deleted; it should be guarded too.
        LostRace: read again. NotLeader, Unavailable: surely not written. Ambiguous: not known; only when `confirm` is None
        or not guarded, or the store stays away.
        """
        assert len(guards) <= MAX_TRANSACTION_OPS, f"{len(guards)} guards"
        assert 0 < len(writes) <= MAX_TRANSACTION_OPS, f"{len(writes)} writes"
        leadership = self._leadership()
        self._refuse_stale()
        self._refuse_unreadable(writes)
        done = await self._send(leadership, tuple(guards), tuple(writes), confirm)
        if not done.succeeded:
            await self._catch_up(done.revision)
            raise self._refusal(leadership, done.found)
        if wait:
            await self._show(done.revision)
        return done.revision

    def _leadership(self) -> Leadership:
        leadership = self._leading()
        if leadership is None or leadership.deposed:
            raise NotLeader(
                "this controller does not lead",
                hint="ask again: the client follows the leader by itself",
            )
        return leadership

    def _refuse_stale(self) -> None:
        if self._mirror.view.revision < self._unseen:
            raise Unavailable(
                "the controller does not see its own last writes yet", hint="try again in a moment"
            )

    def _refuse_unreadable(self, writes: Sequence[Write]) -> None:
        for write in writes:
            if write.key in self._mirror.view.quarantined:
                raise Conflict(
                    f"{write.key} holds a value that this version can't read; it is left alone",
                    hint="update the controller, or repair the value in etcd",
                )

    async def _send(
        self,
        term: Leadership,
        guards: tuple[Guard, ...],
        writes: tuple[Write, ...],
        confirm: tuple[str, str] | None,
    ) -> Transacted:
        """Again while the fence was moved on meanwhile."""
        for _ in range(ATTEMPTS):
            done = await self._transact(_Attempt(term, guards, writes, confirm, term.fence))
            if done is not None:
                return done
        raise Unavailable(
            "etcd loses answers all the time; nothing was written", hint="look at etcd's log"
        )

    async def _transact(self, attempt: _Attempt) -> Transacted | None:
        """None: it was surely not applied, and may be sent again."""
        with self._mirror.tracing(attempt.confirm[0] if attempt.confirm else "") as trace:
            try:
                done = await self._store.transact(attempt.all_guards, attempt.writes)
            except Ambiguous as unknown:
                self.ambiguous += 1
                log.warning("write of unknown outcome", why=unknown.message)
                return await self._settle(attempt, trace, unknown)
        return None if self._was_fenced_off(attempt, done) else done

    def _was_fenced_off(self, attempt: _Attempt, done: Transacted) -> bool:
        if done.succeeded:
            return False
        revisions = {item.key: item.mod_revision for item in done.found}
        if revisions.get(LEADER) != attempt.term.epoch:
            return False
        attempt.term.fence = max(attempt.term.fence, revisions.get(FENCE, 0))
        return attempt.term.fence != attempt.fence

    async def _settle(
        self, attempt: _Attempt, trace: Trace, unknown: Ambiguous
    ) -> Transacted | None:
        """Finds out what became of the write; raises `unknown` when that can't be. None: as of `_transact`."""
        if attempt.confirm is None:
            raise unknown
        key, op_id = attempt.confirm
        try:
            if attempt.guarded_at(key) is not None:
                await self._move_fence(attempt)
                if await self._shows_all(attempt, trace):
                    return _traced(trace, op_id)
            revision, item = await self._read_back(key)
        except (Compacted, Unavailable):
            raise unknown from None
        seen = _traced(trace, op_id)
        if seen is not None:  # then deleted again, perhaps: the key alone does not tell
            return seen
        if _is_ours(item, op_id):
            return Transacted(succeeded=True, revision=item.mod_revision if item else revision)
        if attempt.guarded_at(key) != (item.mod_revision if item else 0):
            raise unknown
        if item is None and trace.gap:
            raise unknown
        return None

    async def _shows_all(self, attempt: _Attempt, trace: Trace) -> bool:
        """Whether the mirror has seen all that happened up to the fence. No: another leads, and nothing was moved."""
        fence = attempt.term.fence
        await self._catch_up(fence)
        seen = self._mirror.view.revision >= fence and not trace.gap
        return seen and fence != attempt.fence

    async def _move_fence(self, attempt: _Attempt) -> None:
        """Afterwards the attempt can't be applied any more, if it was not. Raises Unavailable."""
        term = attempt.term
        guards = (term.guard, Guard(key=FENCE, mod_revision=attempt.fence))
        unknown, away = FENCE_ATTEMPTS, FENCE_WAITS
        while unknown and away and term.fence == attempt.fence:
            try:
                done = await self._store.transact(
                    guards, [Put(key=FENCE, value=values.encode_beat(0))]
                )
            except Ambiguous:
                unknown -= 1  # whether it was, the next one finds
                await asyncio.sleep(FENCE_PAUSE_S)  # what lost this one may be closing still
                continue
            except Unavailable:  # most of what loses answers is an election of etcd's
                away -= 1
                await asyncio.sleep(FENCE_PAUSE_S)
                continue
            if done.succeeded:
                term.fence = done.revision
            elif not self._was_fenced_off(attempt, done):
                return  # another leads: that is as good a fence
        if term.fence == attempt.fence:
            raise Unavailable("the fence was not moved")

    async def _read_back(self, key: str) -> tuple[int, StoreItem | None]:
        """The store's revision, and the key at it."""
        snapshot = await self._store.list(key)
        return snapshot.revision, next((item for item in snapshot.items if item.key == key), None)

    def _refusal(self, leadership: Leadership, found: Sequence[StoreItem]) -> NotLeader | LostRace:
        leader = next((item for item in found if item.key == LEADER), None)
        if leader is None or leader.mod_revision != leadership.epoch:
            leadership.depose(leader)
            return NotLeader(
                "another controller leads now; nothing was written",
                hint="ask again: the client follows the leader by itself",
            )
        return LostRace([item for item in found if item.key not in (LEADER, FENCE)])

    async def _catch_up(self, revision: int) -> None:
        """Lets the mirror see what won, so that whoever plans again does not lose again. Best effort."""
        with suppress(TimedOut):
            await self._mirror.reached(revision, timeout_s=CATCH_UP_S)

    async def _show(self, revision: int) -> None:
        """Waits for the mirror. The write is done, so being late is no error here; the next write will be refused."""
        try:
            await self._mirror.reached(revision)
        except TimedOut as late:
            self._unseen = max(self._unseen, revision)
            log.warning("own write not seen", why=late.message, revision=revision)


def _traced(trace: Trace, op_id: str) -> Transacted | None:
    """Our write as it was seen; None: it was not, and won't be."""
    ours = next((event for event in trace.events if _is_ours(event.item, op_id)), None)
    return Transacted(succeeded=True, revision=ours.revision) if ours is not None else None


def _is_ours(item: StoreItem | None, op_id: str) -> bool:
    """Whether the key is as our write leaves it: gone, or with our op_id."""
    if item is None:
        return not op_id
    try:
        return bool(op_id) and values.op_id(item.key, item.value) == op_id
    except Unreadable:
        return False
