"""Moves VEs away from hosts that are lost. Woken by any change and by time, it decides from the whole view, like every loop.

A host that comes back in the very moment in which it is given up must not start again what is being moved. So from the
decision on its heartbeats get no answer, until it has the set that says what it lost (`Liveness.hold`); and whether it is
still silent is asked once more right before the write, with no await between.
"""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

import msgspec
import structlog

from veapi.clock import Clock
from veapi.errors import Conflict, Unavailable
from veapi.model import HostName, HostState, Timing, Uid
from vecontroller.failover import moving
from vecontroller.failover.brakes import WITHIN_S, Starts, damped_s, flaps, storm
from vecontroller.failover.judge import Known, May, Waits, Why, judge, powered_off
from vecontroller.failover.moving import BATCH_VES, Move
from vecontroller.holding import Reserved
from vecontroller.leader import NotLeader
from vecontroller.placement import Board, HostRow, place
from vecontroller.placement.requests import tenant
from vecontroller.placement.rules import PLAIN, Rules
from vecontroller.ports import Commits, Mirrored
from vecontroller.store import keys, values
from vecontroller.store.port import Ambiguous, Guard, Put
from vecontroller.topic import Topic
from vecontroller.view import Changed, View

log = structlog.get_logger()
IDLE_S = 5.0
WAITING_S = 1.0
SOONEST_S = 0.05


class Silence(Protocol):
    """What liveness knows."""

    def host_state(self, host: HostName) -> HostState: ...

    def silent_for(self, host: HostName) -> float:
        """Seconds of silence that count."""
        ...

    def came_back(self, host: HostName) -> tuple[float, ...]:
        """Seconds since it was heard again, of each silence within the hour."""
        ...

    def hold(self, host: HostName) -> None:
        """Its heartbeats get no answer."""
        ...

    def release(self, host: HostName, *, revision: int) -> None:
        """They do once it has a set of that revision; 0: nothing was written."""
        ...


class Boards(Protocol):
    """The scheduler."""

    def board(self) -> Board:
        """The hosts with all that is on its way to them; the caller's own."""
        ...


class Counts(Protocol):
    """Metrics of moves."""

    def moved(self, seconds: float) -> None:
        """A VE was moved so long after its host was heard last."""
        ...


class Moves:
    """With the scheduler the owner of ve/placement, and of ve/left. `keep_deleted_s`: how long old roots are kept."""

    def __init__(  # noqa: PLR0913 - wired in one place
        self,
        mirror: Mirrored,
        writer: Commits,
        silence: Silence,
        scheduler: Boards,
        topic: Topic,
        clock: Clock,
        *,
        new_op_id: Callable[[], str],
        reserved: Reserved,
        keep_deleted_s: float,
        counts: Counts | None = None,
        rules: Rules = PLAIN,
    ) -> None:
        self._mirror = mirror
        self._writer = writer
        self._silence = silence
        self._scheduler = scheduler
        self._topic = topic
        self._clock = clock
        self._new_op_id = new_op_id
        self._reserved = reserved
        self._keep_deleted_s = keep_deleted_s
        self._counts = counts
        self._rules = rules
        self._starts = Starts()
        self._waits: dict[Uid, Waits] = {}
        self._unsure: dict[HostName, list[Move]] = {}

    @property
    def waits(self) -> Mapping[Uid, Waits]:
        """Why each VE on a host that does not answer is still there."""
        return self._waits

    async def run(self) -> None:
        """For ever; raises NotLeader when it is no longer ours to decide."""
        self._unsure.clear()  # of an earlier term: its writes can't come about any more
        with self._topic.subscribe() as changes:
            while True:
                pause_s = await self.move_once()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):  # wait_for may lose a cancellation
                        await changes.next()

    async def move_once(self) -> float:
        """One decision about everything, and its commits. Gives the seconds until the next one is worth it."""
        if not await self._settle():
            return WAITING_S
        view = self._mirror.view
        may, waits = self._judge(view)
        stop = self._storm(view) if may else ""
        if stop:
            await self._stop(view, stop)
            waits |= {uid: Waits(Why.MOVES_STOPPED, f"moves are stopped: {stop}") for uid in may}
        elif may:
            moves, refused = self._plan(may)
            waits |= refused | await self._commit_all(moves)
        self._tell(waits)
        return min(_pause_s(waits), self._soon_silent_s(view))

    # Who.

    def _silent(self, view: View) -> Iterator[HostName]:
        """Also those that have only lost their session: whoever looks is told how long their VEs stay yet."""
        limit_s = _timing(view).fence_after_s
        for host in view.hosts:
            if not self._live(host) or self._silence.silent_for(host) >= limit_s:
                yield host

    def _soon_silent_s(self, view: View) -> float:
        """Until the next host may be silent: nobody tells of that when its session was lost before."""
        limit_s = _timing(view).fence_after_s
        left = [limit_s - self._silence.silent_for(host) for host in view.hosts]
        return max(min((each for each in left if each > 0), default=IDLE_S), SOONEST_S)

    def _judge(self, view: View) -> tuple[dict[Uid, May], dict[Uid, Waits]]:
        known = Known(
            silent_s=self._silence.silent_for,
            live=self._live,
            wall=self._clock.wall(),
            damped_s=damped_s,
        )
        may: dict[Uid, May] = {}
        waits: dict[Uid, Waits] = {}
        for host in self._silent(view):
            for uid in view.placed_on.get(host, ()):
                if uid not in view.ves:
                    continue
                verdict = judge(view, uid, known)
                if isinstance(verdict, May):
                    may[uid] = verdict
                else:
                    waits[uid] = verdict
        return may, waits

    def _live(self, host: HostName) -> bool:
        return self._silence.host_state(host) is HostState.READY

    def _storm(self, view: View) -> str:
        """Hosts of which an operator vouches that they are off, or that he gave up, are no riddle."""
        told = view.cluster.value.moves_resumed if view.cluster is not None else ()
        hosts = [host for host in view.hosts if not powered_off(view, host) and host not in told]
        known = [host for host in hosts if self._silence.silent_for(host) < WITHIN_S]
        limit_s = _timing(view).fence_after_s
        return storm(known, [host for host in known if self._silence.silent_for(host) >= limit_s])

    async def _stop(self, view: View, why: str) -> None:
        """Until an operator says otherwise, whoever leads by then."""
        assert view.cluster is not None
        op_id = self._new_op_id()
        record = msgspec.structs.replace(view.cluster.value, moves_stopped=why, op_id=op_id)
        guard = Guard(key=keys.CLUSTER, mod_revision=view.cluster.mod_revision)
        put = Put(key=keys.CLUSTER, value=values.encode_cluster(record))
        try:
            await self._writer.commit([guard], [put], confirm=(keys.CLUSTER, op_id))
        except NotLeader:
            raise
        except (Conflict, Unavailable) as error:
            log.warning("moves not stopped yet", why=why, error=error.message)
            return
        log.error("moves stopped", why=why)

    # Where to.

    def _plan(self, may: Mapping[Uid, May]) -> tuple[list[Move], dict[Uid, Waits]]:
        rows = [self._row(row, may) for row in self._scheduler.board().hosts]
        wanting = [tenant(each.ve, self._rules) for each in may.values()]
        plan = place(Board(rows), wanting)
        moves = [
            self._move(may[each.uid], each.host, each.message)
            for each in plan.assignments
            if each.host != may[each.uid].placement.value.host
        ]
        return moves, {
            each.uid: Waits(Why.NO_ROOM, f"no other host takes it: {each.message}")
            for each in plan.refusals
        }

    def _row(self, row: HostRow, may: Mapping[Uid, May]) -> HostRow:
        """As hosts are for VEs that are moved: those that flap take none."""
        refuses = row.refuses or flaps(self._silence.came_back(row.name))
        stay = tuple(each for each in row.tenants if each.uid not in may)
        return msgspec.structs.replace(row, refuses=refuses, tenants=stay)

    def _move(self, may: May, host: HostName, message: str) -> Move:
        old = may.placement.value.host
        return Move(
            may=may,
            host=host,
            message=f"moved as host {old} was lost; {message}",
            left=f"host {old} was lost",
        )

    # Doing it.

    async def _commit_all(self, moves: Sequence[Move]) -> dict[Uid, Waits]:
        """What can't be done yet, and why. No host gets more starts than it may."""
        waits: dict[Uid, Waits] = {}
        room = {move.host: self._starts.room(move.host, self._clock.boot()) for move in moves}
        by_host: dict[HostName, list[Move]] = defaultdict(list)
        for move in moves:
            if room[move.host] <= 0:
                waits[move.ve.uid] = Waits(Why.RATE, "others are started first", seconds=0.25)
                continue
            room[move.host] -= 1
            by_host[move.old_host].append(move)
        # The view changes while a batch is written: the next one relies on what was judged, too.
        relied_on = {old: moving.of_all(self._mirror.view, old) for old in by_host}
        for old, group in by_host.items():
            for start in range(0, len(group), BATCH_VES):
                batch = group[start : start + BATCH_VES]
                if not await self._commit(old, batch, relied_on[old]):
                    waits |= {m.ve.uid: Waits(Why.STORE, "it is tried again") for m in batch}
        return waits

    async def _commit(
        self, old: HostName, batch: Sequence[Move], relied_on: Sequence[Guard]
    ) -> bool:
        """False: nothing was written, or nobody knows."""
        view, silent_s = self._mirror.view, self._silence.silent_for(old)
        off = powered_off(view, old) and not self._live(old)
        if silent_s < _timing(view).move_after_s and not off:
            return False
        op_id = self._new_op_id()
        changes = [
            moving.written(
                view, move, at=self._clock.wall(), keep_s=self._keep_deleted_s, op_id=op_id
            )
            for move in batch
        ]
        guards = [*relied_on, *(g for change in changes for g in change.guards)]
        writes = [write for change in changes for write in change.writes]
        self._silence.hold(old)
        try:
            with ExitStack() as stack:
                for move in batch:
                    stack.enter_context(self._reserved.holding(move.host, move.resources))
                revision = await self._writer.commit(guards, writes, confirm=(writes[0].key, op_id))
        except NotLeader:
            raise
        except Ambiguous as error:
            log.warning("moves not confirmed", host=old, ves=len(batch), error=error.message)
            self._unsure[old] = list(batch)
            return False
        except (Conflict, Unavailable) as error:
            log.info("moves not written", host=old, ves=len(batch), error=error.message)
            self._silence.release(old, revision=0)
            return False
        self._silence.release(old, revision=revision)
        self._done(batch, silent_s)
        return True

    def _done(self, batch: Sequence[Move], silent_s: float) -> None:
        self._starts.take(Counter(move.host for move in batch), self._clock.boot())
        for move in batch:
            log.info("moved", ve=move.ve.uid, host=move.host, old=move.old_host)
            if self._counts is not None:
                self._counts.moved(silent_s)

    async def _settle(self) -> bool:
        """Makes sure that what is not known to be written is so, or never will be; then its host may be answered again."""
        for host, moves in list(self._unsure.items()):
            op_id = self._new_op_id()
            change = moving.touched(self._mirror.view, moves, op_id)
            try:
                if change.writes:
                    await self._writer.commit(
                        change.guards, change.writes, confirm=(change.writes[0].key, op_id)
                    )
            except NotLeader:
                raise
            except (Conflict, Unavailable) as error:
                log.warning("moves not settled yet", host=host, error=error.message)
                return False
            del self._unsure[host]
            self._silence.release(host, revision=self._mirror.view.revision)
        return True

    # Telling.

    def _tell(self, waits: dict[Uid, Waits]) -> None:
        """Whoever follows these VEs hears when the reason changes; the seconds alone are no news."""
        before, now = self._waits, self._clock.wall()
        changed = set(before.keys() ^ waits.keys())
        for uid in waits.keys() & before.keys():
            if waits[uid].why is before[uid].why:
                waits[uid] = msgspec.structs.replace(waits[uid], at=before[uid].at)
            else:
                changed.add(uid)
        for uid in changed & waits.keys():
            waits[uid] = msgspec.structs.replace(waits[uid], at=now)
        self._waits = waits
        if changed:
            self._topic.publish(
                Changed(revision=self._mirror.view.revision, ves=frozenset(changed))
            )


def _timing(view: View) -> Timing:
    return view.cluster.value.timing if view.cluster is not None else Timing()


def _pause_s(waits: Mapping[Uid, Waits]) -> float:
    """Until the first of them may be moved; without any, until something changes."""
    if not waits:
        return IDLE_S
    soon = [each.seconds for each in waits.values() if each.seconds is not None]
    return min(max(min(soon, default=WAITING_S), SOONEST_S), WAITING_S)
