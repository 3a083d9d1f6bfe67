"""The cluster in memory: a list, then exactly the later events, folded a whole batch at a time.

When events are gone (compaction), or too many, or the store went back (a restore), the mirror lists again and applies the
difference; keys that vanished are deleted as if an event had said so. Old etcds lose events of a watch now and then, so a
list is compared with the view once a minute as well: a difference is an alarm, and is repaired.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import structlog

from veapi.clock import Clock
from veapi.errors import TimedOut, Unavailable
from veapi.groups import TaskGroup
from vecontroller import fold
from vecontroller.store.keys import ROOT
from vecontroller.store.port import (
    Batch,
    Compacted,
    Regressed,
    Snapshot,
    Store,
    StoreEvent,
    StoreItem,
)
from vecontroller.topic import Topic
from vecontroller.view import Changed, View

log = structlog.get_logger()
AUDIT_EVERY_S = 60.0
RETRY_AFTER_S = 0.5


@dataclass(slots=True)
class Trace:
    """All that happened to one key since it was asked for; unless there is a `gap`: then something may be missing."""

    events: list[StoreEvent] = field(default_factory=list)
    gap: bool = False


class Mirror:
    """Owns the `View`. `relists` and `audit_differences` count what should be rare and never."""

    def __init__(
        self, store: Store, topic: Topic, clock: Clock, *, audit_every_s: float = AUDIT_EVERY_S
    ) -> None:
        self.view = View()
        self.relists = 0
        self.audit_differences = 0
        self._store = store
        self._topic = topic
        self._clock = clock
        self._audit_every_s = audit_every_s
        self._known: dict[str, int] = {}
        """Every key that was seen, with its mod-revision."""
        self._touched: set[str] | None = None
        """Keys that changed since the running audit began."""
        self._waiters: dict[asyncio.Future[None], int] = {}
        self._traces: list[tuple[str, Trace]] = []

    @contextmanager
    def tracing(self, key: str) -> Iterator[Trace]:
        """What happens to the key meanwhile: also what is overwritten before anybody could read it."""
        entry = key, Trace()
        self._traces.append(entry)
        try:
            yield entry[1]
        finally:
            self._traces = [each for each in self._traces if each is not entry]

    async def start(self) -> None:
        """Lists everything once. Unavailable when the store can't be reached."""
        self._fold_snapshot(await self._store.list(ROOT), trust_revisions=True)

    async def run(self) -> None:
        """Follows the store for ever, after `start`. Raises WrongCluster."""
        async with TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._audit())

    async def reached(self, revision: int, *, timeout_s: float = 5.0) -> None:
        """Waits until everything up to `revision` is in the view; TimedOut else."""
        if self.view.revision >= revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[future] = revision
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            raise TimedOut(
                f"the view of the store is at revision {self.view.revision}; "
                f"{revision} did not come within {timeout_s:g} s",
                hint="etcd is slow or the controller overloaded; look again in a moment",
            ) from None
        finally:
            self._waiters.pop(future, None)

    async def _follow(self) -> NoReturn:
        while True:
            try:
                async for batch in self._store.watch(ROOT, self.view.revision):
                    self._fold_batch(batch)
            except Compacted as gap:
                log.warning("mirror lists again", why=gap.message, revision=self.view.revision)
                await self._relist(trust_revisions=not isinstance(gap, Regressed))
            except Unavailable as error:
                log.warning("watch failed", why=error.message)
                await self._clock.sleep(RETRY_AFTER_S)

    async def _relist(self, *, trust_revisions: bool) -> None:
        while True:
            try:
                snapshot = await self._store.list(ROOT)
            except (Compacted, Unavailable) as error:
                log.warning("list failed", why=error.message)
                await self._clock.sleep(RETRY_AFTER_S)
            else:
                self.relists += 1
                self._fold_snapshot(snapshot, trust_revisions=trust_revisions)
                return

    async def _audit(self) -> NoReturn:
        while True:
            await self._clock.sleep(self._audit_every_s)
            self._touched = set()
            try:
                snapshot = await self._store.list(ROOT)
                await self.reached(snapshot.revision)
                self._compare(snapshot, self._touched)
            except (Compacted, Unavailable, TimedOut) as error:
                log.info("audit skipped", why=error.message)
            finally:
                self._touched = None

    def _compare(self, snapshot: Snapshot, touched: set[str]) -> None:
        """The list must agree with what was folded, but for keys that changed meanwhile."""
        stored = {item.key: item for item in snapshot.items}
        wrong = [
            key
            for key in stored.keys() | self._known.keys()
            if key not in touched
            and self._known.get(key) != (stored[key].mod_revision if key in stored else None)
        ]
        if wrong:
            self.audit_differences += len(wrong)
            log.error("mirror differed from the store", keys=sorted(wrong)[:10], count=len(wrong))
            self._fold([(key, stored.get(key)) for key in wrong], self.view.revision, relisted=True)

    def _fold_batch(self, batch: Batch) -> None:
        for key, trace in self._traces:
            trace.events.extend(event for event in batch.events if event.key == key)
        self._fold(((event.key, event.item) for event in batch.events), batch.revision)

    def _fold_snapshot(self, snapshot: Snapshot, *, trust_revisions: bool) -> None:
        """Applies what differs. After a restore an equal mod-revision proves nothing, so all is applied."""
        present = {item.key for item in snapshot.items}
        gone = [(key, None) for key in self._known.keys() - present]
        fresh = [
            (item.key, item)
            for item in snapshot.items
            if not trust_revisions or self._known.get(item.key) != item.mod_revision
        ]
        self._fold([*gone, *fresh], snapshot.revision, relisted=True)

    def _fold(
        self,
        pairs: Iterable[tuple[str, StoreItem | None]],
        revision: int,
        *,
        relisted: bool = False,
    ) -> None:
        changes = fold.Changes(all=relisted)
        for _, trace in self._traces:
            trace.gap |= relisted
        for key, item in pairs:
            self._note(key, item)
            fold.apply(self.view, key, item, changes)
        self.view.revision = revision
        changed = changes.done(revision)
        if changed is not None:
            self._publish(changed)
        self._wake()

    def _note(self, key: str, item: StoreItem | None) -> None:
        if item is None:
            self._known.pop(key, None)
        else:
            self._known[key] = item.mod_revision
        if self._touched is not None:
            self._touched.add(key)

    def _publish(self, changed: Changed) -> None:
        if self.view.quarantined:
            log.debug("values are quarantined", count=len(self.view.quarantined))
        self._topic.publish(changed)

    def _wake(self) -> None:
        for future, revision in self._waiters.items():
            if revision <= self.view.revision and not future.done():
                future.set_result(None)
