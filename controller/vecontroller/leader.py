"""Who leads: a key, not a lease, and a beat that proves it (DESIGN 6).

An etcd lease outlives its time by seconds when etcd's leader dies with its holder. So the leader rewrites `leader/beat`
every 0.5 s, guarded on the key `leader`; a standby whose reads work and who saw no beat for 3 s of its own clock takes
over, guarded on the beat that it saw last. The revision of that write is the epoch: every write of a leader compares it,
so a deposed one can write nothing. What it may not do either is to keep a host alive: `confirmed_after` returns only when
a beat that *began* after the given moment has succeeded.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import structlog

from veapi.clock import Clock
from veapi.errors import Conflict, Unavailable
from veapi.groups import TaskGroup
from veapi.model import Cluster
from vecontroller import timing
from vecontroller.store import values
from vecontroller.store.keys import BEAT, CLUSTER, FENCE, LEADER
from vecontroller.store.port import Ambiguous, Compacted, Delete, Guard, Put, Store, StoreItem
from vecontroller.store.values import Leader, Unreadable

log = structlog.get_logger()
BEAT_EVERY_S = 0.5
TAKEOVER_AFTER_S = 3.0
AFTER_OUTAGE_S = 2.0
"""What a leader has to beat again once the store answers us again: its try on a frozen member ends by then."""
_LEAST_PAUSE_S = 0.05
STALL_S = 1.0


class NotLeader(Unavailable):
    """This controller does not lead (any more); nothing was written."""


class Leadership:
    """One term. `stalls` counts the times that our loop stood still for over a second: M starts anew for every host.

    `fence`: mod-revision of the key that every write is guarded on as well, and that the writer moves on (see there).
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        record: Leader,
        epoch: int,
        incarnation: int,
        fence: int = 0,
    ) -> None:
        self.record = record
        self.epoch = epoch
        self.incarnation = incarnation
        self.fence = fence
        self.lost = asyncio.Event()
        self.successor = ""
        """host:port of who leads now, if it is known; of a deposed one."""
        self.stalls = 0
        self._attempts = 0
        self._revision = epoch
        self._store = store
        self._clock = clock
        self._confirmed = float("-inf")
        self._waiters: dict[asyncio.Future[None], float] = {}

    @property
    def guard(self) -> Guard:
        """Holds as long as nobody took over."""
        return Guard(key=LEADER, mod_revision=self.epoch)

    @property
    def deposed(self) -> bool:
        return self.lost.is_set()

    async def confirmed_after(self, boot_time: float) -> None:
        """Returns once a beat that began after `boot_time` (of our clock) has succeeded; NotLeader when we are deposed.

        Waits as long as the store gives no answer: who waits must have a limit of his own.
        """
        if self.deposed:
            raise _not_leader()
        if self._confirmed > boot_time:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[future] = boot_time
        try:
            await future
        finally:
            self._waiters.pop(future, None)

    def depose(self, leader: StoreItem | None = None) -> None:
        """Ends the term: another leads, as the store says; `leader` is the key as it is now, if it was seen."""
        if self.deposed:
            return
        if leader is not None:
            with suppress(Unreadable):
                self.successor = values.decode_leader(leader.value).address
        log.warning("leadership lost", epoch=self.epoch, name=self.record.name)
        self._end()

    def _end(self) -> None:
        self.lost.set()
        for future in self._waiters:
            if not future.done():
                future.set_exception(_not_leader())

    async def beat(self) -> None:
        """Writes one beat. What it says about the term is noted here; errors of the store are not raised."""
        began = self._clock.boot()
        # Never the same number twice: what is read back must be this beat, not an earlier one that came late.
        self._attempts += 1
        count = self._attempts
        try:
            done = await self._store.transact(
                [self.guard], [Put(key=BEAT, value=values.encode_beat(count))]
            )
        except Ambiguous:
            await self._read_back(began, count)
        except Unavailable as error:
            log.warning("beat not written", why=error.message)
        else:
            if done.succeeded and done.revision > self._revision:
                self._confirm(began, done.revision)
            else:
                self.depose(next((item for item in done.found if item.key == LEADER), None))

    async def _read_back(self, began: float, count: int) -> None:
        try:
            seen = await _look(self._store)
        except (Unavailable, Compacted) as error:
            log.warning("beat unknown", why=error.message)
            return
        if seen.leader_revision != self.epoch:
            self.depose()
        elif seen.beat_count == count:
            self._confirm(began, seen.beat_revision)

    def _confirm(self, began: float, revision: int) -> None:
        self._revision = revision
        self._confirmed = began
        for future, boot_time in self._waiters.items():
            if boot_time < began and not future.done():
                future.set_result(None)

    async def keep_beating(self) -> None:
        """A beat each 0.5 s, until deposed."""
        while not self.deposed:
            began = self._clock.boot()
            await self.beat()
            await self._clock.sleep(max(0.0, began + BEAT_EVERY_S - self._clock.boot()))

    async def watch_stalls(self) -> None:
        """Counts stalls of the loop, and of the whole process (SIGSTOP), until deposed."""
        while not self.deposed:
            before = self._clock.boot()
            await self._clock.sleep(BEAT_EVERY_S)
            late_s = self._clock.boot() - before - BEAT_EVERY_S
            if late_s > STALL_S:
                self.stalls += 1
                log.warning("controller stalled", seconds=round(late_s, 1))

    async def resign(self) -> None:
        """Frees the key, so that a successor need not wait. Best effort: without it one waits 3 s."""
        if self.deposed:
            return
        log.info("leadership given up", epoch=self.epoch, name=self.record.name)
        self._end()
        try:
            await self._store.transact([self.guard], [Delete(key=LEADER)])
        except Unavailable as error:
            log.info("leader key not freed", why=error.message)


@dataclass(frozen=True, slots=True)
class _Seen:
    """The leader's keys at one revision; a revision of 0: no such key. `run_id` is empty when it can't be read."""

    leader_revision: int = 0
    run_id: str = ""
    beat_revision: int = 0
    beat_count: int = -1


async def acquire(
    store: Store,
    *,
    name: str,
    address: str,
    run_id: str,
    clock: Clock,
    patience_s: float = TAKEOVER_AFTER_S,
) -> Leadership:
    """Waits, however long, until we lead. The store being away is waited out.

    `address` is host:port for agents and users. `patience_s`: how long a beat must not have moved; 0 is right only where
    no other controller can reach the store and the last one is surely dead.
    """
    record = Leader(name, address, run_id)
    silence = _Silence(clock, patience_s)
    while True:
        try:
            now = await silence.look(store)
            if now.leader_revision == 0 or silence.left_s <= 0:
                epoch = await _take(store, record, now)
                if epoch:
                    return await _begin(store, clock, record, epoch)
                silence = _Silence(clock, patience_s)
        except (Unavailable, Compacted) as error:
            log.info("leadership unknown", why=error.message)
            silence.store_away = True
        await clock.sleep(silence.pause_s)


class _Silence:
    """How long a standby has not seen the beat move."""

    def __init__(self, clock: Clock, patience_s: float) -> None:
        self.store_away = False
        self._clock = clock
        self._patience_s = patience_s
        self._seen = _Seen(leader_revision=-1)
        self._since = clock.boot()

    @property
    def left_s(self) -> float:
        """Until the leader counts as gone."""
        return self._since + self._patience_s - self._clock.boot()

    @property
    def pause_s(self) -> float:
        """Until it is worth looking again."""
        if self.store_away:
            return BEAT_EVERY_S
        return min(BEAT_EVERY_S, max(self.left_s, _LEAST_PAUSE_S))

    async def look(self, store: Store) -> _Seen:
        asked = self._clock.boot()
        now = await _look(store)
        answered = self._clock.boot()
        if _moved(self._seen, now):
            self._seen, self._since = now, answered
        elif self.store_away or answered - asked > BEAT_EVERY_S * 2:
            # While the store was away nobody could beat: the leader gets a little time to do it now.
            most_s = max(0.0, self._patience_s - AFTER_OUTAGE_S)
            self._since = max(self._since, answered - most_s)
        self.store_away = False
        return now


def _moved(before: _Seen, now: _Seen) -> bool:
    return (before.leader_revision, before.beat_revision) != (
        now.leader_revision,
        now.beat_revision,
    )


async def keep(leadership: Leadership) -> None:
    """Keeps the term up: returns when we are deposed."""
    async with TaskGroup() as group:
        group.create_task(leadership.keep_beating())
        group.create_task(leadership.watch_stalls())


async def init_cluster(store: Store, cluster: Cluster) -> Cluster:
    """Writes the cluster's record, once; gives the one that counts.

    InvalidInput for times that allow a VE to run twice; Conflict when the store is another cluster's.
    """
    timing.check(cluster.timing)
    try:
        await store.transact(
            [Guard(key=CLUSTER, mod_revision=0)],
            [Put(key=CLUSTER, value=values.encode_cluster(cluster))],
        )
    except Ambiguous:
        log.info("cluster record of unknown outcome")
    item = await store.get(CLUSTER)
    if item is None:
        raise Unavailable("the cluster's record was not written", hint="start the controller again")
    found = values.decode_cluster(item.value)
    if found.name != cluster.name:
        raise Conflict(
            f"this etcd holds the cluster {found.name!r}, not {cluster.name!r}",
            hint="correct `cluster` in controller.toml, or use another etcd",
        )
    return found


async def _take(store: Store, record: Leader, seen: _Seen) -> int:
    """The epoch when we lead now, else 0: somebody was faster, or the old leader beats again."""
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
        now = await _look(store)
        ours = now.run_id == record.run_id and now.leader_revision > seen.leader_revision
        return now.leader_revision if ours else 0
    return done.revision if done.succeeded else 0


async def _begin(store: Store, clock: Clock, record: Leader, epoch: int) -> Leadership:
    item = await store.get(CLUSTER)
    incarnation = values.decode_cluster(item.value).incarnation if item is not None else 1
    fence = await store.get(FENCE)  # nobody but us can move it now
    log.info("leadership taken", epoch=epoch, incarnation=incarnation, name=record.name)
    return Leadership(
        store,
        clock,
        record=record,
        epoch=epoch,
        incarnation=incarnation,
        fence=fence.mod_revision if fence is not None else 0,
    )


async def _look(store: Store) -> _Seen:
    """Both keys at one revision."""
    found = {item.key: item for item in (await store.list(LEADER)).items}
    leader, beat = found.get(LEADER), found.get(BEAT)
    return _Seen(
        leader_revision=leader.mod_revision if leader else 0,
        run_id=_run_id(leader) if leader else "",
        beat_revision=beat.mod_revision if beat else 0,
        beat_count=_count(beat) if beat else -1,
    )


def _run_id(item: StoreItem) -> str:
    try:
        return values.decode_leader(item.value).run_id
    except Unreadable:
        return ""


def _count(item: StoreItem) -> int:
    try:
        return values.decode_beat(item.value)
    except Unreadable:
        return -1


def _not_leader() -> NotLeader:
    return NotLeader(
        "this controller does not lead", hint="ask again: the client follows the leader by itself"
    )
