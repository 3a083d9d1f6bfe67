"""etcd in memory, exactly as `store.port.Store` promises it, and failing on command.

`ModelEtcd` is the cluster; each `ModelStore` is one client of it with switches of its own:

    store.fail_writes(Fail.APPLIED)       the next write happens, its answer is lost (Ambiguous)
    store.fail_writes(Fail.LOST)          the next write does not happen, its answer is lost (Ambiguous)
    store.fail_writes(Fail.REFUSED)       the next write surely does not happen (Unavailable)
    store.fail_writes(Fail.LATE)          its answer is lost; it happens at `store.land_late_writes()`
    store.away = True                     nothing is answered: reads and writes are Unavailable, watches stand still
    store.cut_watches() / heal_watches()  watches deliver nothing, then go on where they were
    store.etcd.compact(revision)          history before it is gone: watches that need it raise Compacted
    store.etcd.restore(snapshot)          the cluster goes back: watches raise Regressed
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from enum import Enum

from veapi.errors import Unavailable
from vecontroller.store import limits
from vecontroller.store.port import (
    Ambiguous,
    Batch,
    Compacted,
    Guard,
    Put,
    Regressed,
    Snapshot,
    StoreEvent,
    StoreItem,
    Transacted,
    Write,
)


class Fail(Enum):
    """How a write fails."""

    APPLIED = "applied"
    LOST = "lost"
    REFUSED = "refused"
    LATE = "late"


class ModelEtcd:
    """The keys, their history, and who watches. `generation` counts restores."""

    def __init__(self) -> None:
        self.revision = 1
        self.items: dict[str, StoreItem] = {}
        self.compacted = 0
        self.generation = 0
        self._history: list[StoreEvent] = []
        self._watchers: set[asyncio.Event] = set()

    def transact(self, guards: Sequence[Guard], writes: Sequence[Write]) -> Transacted:
        limits.check(guards, writes)
        if any(self._mod_revision(guard.key) != guard.mod_revision for guard in guards):
            found = tuple(self.items[guard.key] for guard in guards if guard.key in self.items)
            return Transacted(succeeded=False, revision=self.revision, found=found)
        events = [event for write in writes if (event := self._event(write)) is not None]
        for event in events:
            self._apply(event)
        self.revision += bool(events)
        self._history += events
        self.wake()
        return Transacted(succeeded=True, revision=self.revision)

    def snapshot(self, prefix: str = "") -> Snapshot:
        items = sorted(self.items.items())
        return Snapshot(
            revision=self.revision,
            items=tuple(item for key, item in items if key.startswith(prefix)),
        )

    def events_after(self, prefix: str, revision: int) -> list[StoreEvent]:
        """Raises Compacted when some of them are gone, or may be: deletes at the first revision that is left."""
        if revision < self.compacted:
            raise Compacted(f"revision {revision + 1} may be gone; the oldest is {self.compacted}")
        return [
            event
            for event in self._history
            if event.revision > revision and event.key.startswith(prefix)
        ]

    def compact(self, revision: int) -> None:
        assert self.compacted < revision <= self.revision
        self.compacted = revision
        self._history = [event for event in self._history if event.revision >= revision]
        self.wake()

    def restore(self, snapshot: Snapshot) -> None:
        """Goes back to a whole snapshot, as an etcd does that was restored from a backup."""
        self.generation += 1
        self.revision = snapshot.revision
        self.items = {item.key: item for item in snapshot.items}
        self.compacted = snapshot.revision
        self._history = []
        self.wake()

    def wake(self) -> None:
        for watcher in self._watchers:
            watcher.set()

    def subscribe(self) -> asyncio.Event:
        event = asyncio.Event()
        event.set()
        self._watchers.add(event)
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        self._watchers.discard(event)

    def _mod_revision(self, key: str) -> int:
        item = self.items.get(key)
        return item.mod_revision if item is not None else 0

    def _event(self, write: Write) -> StoreEvent | None:
        """What the write does at the next revision; None for the delete of a key that is not there."""
        revision, old = self.revision + 1, self.items.get(write.key)
        if isinstance(write, Put):
            item = StoreItem(
                key=write.key,
                value=write.value,
                mod_revision=revision,
                create_revision=old.create_revision if old is not None else revision,
            )
            return StoreEvent(key=write.key, revision=revision, item=item)
        return StoreEvent(key=write.key, revision=revision, item=None) if old is not None else None

    def _apply(self, event: StoreEvent) -> None:
        if event.item is None:
            del self.items[event.key]
        else:
            self.items[event.key] = event.item


class ModelStore:
    """One client. Every call gives way to others once, as a real one does."""

    def __init__(self, etcd: ModelEtcd | None = None) -> None:
        self.etcd = etcd if etcd is not None else ModelEtcd()
        self.writes = 0
        self.closed = False
        self._away = False
        self._cut = False
        self._failures: deque[Fail] = deque()
        self._late: list[tuple[tuple[Guard, ...], tuple[Write, ...]]] = []

    @property
    def away(self) -> bool:
        return self._away

    @away.setter
    def away(self, value: bool) -> None:
        self._away = value
        self.etcd.wake()

    def fail_writes(self, *how: Fail) -> None:
        """One failure for each of the next writes."""
        self._failures.extend(how)

    def land_late_writes(self) -> None:
        """What was LATE arrives, guards and all."""
        late, self._late = self._late, []
        for guards, writes in late:
            self.etcd.transact(guards, writes)

    def cut_watches(self) -> None:
        self._cut = True

    def heal_watches(self) -> None:
        self._cut = False
        self.etcd.wake()

    async def get(self, key: str) -> StoreItem | None:
        await self._reach()
        return self.etcd.items.get(key)

    async def list(self, prefix: str) -> Snapshot:
        await self._reach()
        return self.etcd.snapshot(prefix)

    async def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Batch]:
        generation = self.etcd.generation
        changed = self.etcd.subscribe()
        try:
            while True:
                await changed.wait()
                changed.clear()
                await asyncio.sleep(0)
                if self._cut or self._away:
                    continue
                if generation != self.etcd.generation or self.etcd.revision < after_revision:
                    raise Regressed(f"the store is at {self.etcd.revision} again")
                events = self.etcd.events_after(prefix, after_revision)
                if events:
                    after_revision = events[-1].revision
                    yield Batch(revision=after_revision, events=tuple(events))
        finally:
            self.etcd.unsubscribe(changed)

    async def transact(self, guards: Sequence[Guard], writes: Sequence[Write]) -> Transacted:
        limits.check(guards, writes)
        await self._reach()
        self.writes += 1
        match self._failures.popleft() if self._failures else None:
            case Fail.REFUSED:
                raise Unavailable("refused on command")
            case Fail.LOST:
                raise Ambiguous("lost on command")
            case Fail.LATE:
                self._late.append((tuple(guards), tuple(writes)))
                raise Ambiguous("late on command")
            case Fail.APPLIED:
                self.etcd.transact(guards, writes)
                raise Ambiguous("applied on command, and the answer lost")
            case None:
                return self.etcd.transact(guards, writes)

    async def aclose(self) -> None:
        self.closed = True

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        assert not self.closed, "used after aclose"
        if self._away:
            raise Unavailable("away on command")
