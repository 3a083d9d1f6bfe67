"""Keeps groups as they are asked for: woken by any change of theirs, decides from the whole view, acts as users do.

What it must not forget (that a rollout was stopped, what was known to work) is in group/status; how far a rollout has come
and why a step failed is in memory only: the next leader finds out again, and gives the rollout its time anew.
"""

import asyncio
from collections.abc import Sequence

import msgspec
import structlog

from veapi.errors import Conflict, Unavailable, VerackError
from veapi.groups import TaskGroup
from veapi.model import EVENTS_KEPT, Event, EventType, Group, GroupStatus
from vecontroller.api.create import Creator
from vecontroller.api.inflight import InFlight
from vecontroller.api.ports import ApiDeps
from vecontroller.groups import progress
from vecontroller.groups.carryout import CarryOut
from vecontroller.groups.events import done_events
from vecontroller.groups.member import Key, Member
from vecontroller.groups.observed import Observer
from vecontroller.groups.state import Reason, Shown, shown, waiting_for
from vecontroller.groups.steps import Forget, Release, Step, next_steps
from vecontroller.incarnation import is_unconfirmed
from vecontroller.leader import NotLeader
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.topic import Subscription
from vecontroller.view import Changed, Held
from vecontroller.writer import LostRace

log = structlog.get_logger()
AT_ONCE = 16
"""Steps under way of one group."""
PAUSE_S = 0.05
"""After each look: what changes meanwhile is looked at as one."""
LOOK_S = 10.0
"""Between two looks at all groups, whatever happens."""
AGAIN_S = 1.0
"""After a step that failed: what was in its way may be no change that wakes us."""


class Keeper:
    """Beside the API the only one that makes, changes and deletes VEs; the only writer of group/status."""

    def __init__(self, deps: ApiDeps, in_flight: InFlight, creator: Creator) -> None:
        self._deps = deps
        self._carry_out = CarryOut(deps, in_flight, creator)
        self._observer = Observer(deps)
        self._blocked: dict[Key, Reason] = {}
        self._tracks: dict[Key, progress.Track] = {}
        self._told: dict[Key, object] = {}
        """What was last told of each group that the store does not show."""
        self._due: dict[Key, float] = {}
        """Boot times at which a group is to be looked at though nothing changes."""

    def shown(self, held: Held[Group]) -> Shown:
        """The group as it is now."""
        key = key_of(held.value)
        status, members = self.status(held.value), self.members(held.value)
        return shown(held.value, status, members, self._blocked.get(key))

    def all_shown(self) -> dict[Key, tuple[int, Shown]]:
        """Every group with the number of VEs that it shall have."""
        groups = self._deps.mirror.view.groups.items()
        return {key: (held.value.replicas, self.shown(held)) for key, held in groups}

    def members(self, group: Group) -> list[Member]:
        return self._observer.members(key_of(group), group)

    async def run(self) -> None:
        """For ever; raises NotLeader, by itself or in a group, when it is no longer ours to decide."""
        self._observer.begin()
        self._blocked, self._tracks, self._due, self._told = {}, {}, {}, {}
        with self._deps.topic.subscribe() as changes:
            changed, all_at = None, 0.0
            while True:
                now = self._deps.clock.boot()
                if changed is None or _all(changed) or now >= all_at:
                    concerned, all_at = self._keys(), now + LOOK_S
                    self._observer.forget_others()
                else:
                    late = {key for key, at in self._due.items() if at <= now}
                    concerned = self._keys() & (changed.groups | late)
                for key in sorted(concerned):
                    await self.look(key)
                changed = await self._rest(changes, all_at)

    def _keys(self) -> set[Key]:
        """Also of groups that are gone and have VEs still."""
        view = self._deps.mirror.view
        found = {*view.groups, *view.members}
        for table in (self._blocked, self._tracks, self._due, self._told):
            for key in table.keys() - found:
                del table[key]
        return found

    async def _rest(self, changes: Subscription, all_at: float) -> Changed:
        """Until something changed, or the next group is due."""
        await self._deps.clock.sleep(PAUSE_S)
        until = min([*self._due.values(), all_at])
        left_s = max(0.0, until - self._deps.clock.boot())
        changed = await changes.next_within(self._deps.clock, left_s)
        return changed or Changed(revision=self._deps.mirror.view.revision)

    async def look(self, key: Key) -> None:
        """One decision about a group, and its steps."""
        self._due.pop(key, None)
        if is_unconfirmed(self._deps.mirror.view):
            return
        held = self._deps.mirror.view.groups.get(key)
        if held is None:
            await self._let_go(key)
            return
        group, status = held.value, self.status(held.value)
        members = self.members(group)
        steps = next_steps(group, status, members)
        done, blocked = await self._do(key, steps)
        if steps != (Forget(),):
            news = self._news(group, done, blocked)
            self._tell(group, blocked, members)
            await self._note(held, status, members, news)

    async def _let_go(self, key: Key) -> None:
        """VEs that were brought back while their group went belong to nobody."""
        members = self._observer.members(key, None)
        steps = [Release(ordinal=each.ordinal, uid=each.uid) for each in members]
        await self._do(key, steps)

    async def _do(self, key: Key, steps: Sequence[Step]) -> tuple[list[Step], Reason | None]:
        """Those that could be done; why one could not, if so."""
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(step: Step) -> Reason | bool:
            async with turn:
                return await self._try(key, step)

        async with TaskGroup() as group:
            tasks = [group.create_task(one(step)) for step in steps]
        found = [task.result() for task in tasks]
        done = [step for step, how in zip(steps, found, strict=True) if how is True]
        return done, next((how for how in found if isinstance(how, Reason)), None)

    async def _try(self, key: Key, step: Step) -> Reason | bool:
        """True: done. False: somebody was faster."""
        try:
            await self._carry_out.do(key, step)
        except NotLeader:
            raise
        except LostRace as lost:
            log.info("step of group lost a race", group=key, step=step, error=lost.message)
            self._again(key)
            return False
        except VerackError as error:
            log.info("step of group not done", group=key, step=step, error=error.message)
            self._again(key)
            return _reason(error)
        log.info("step of group done", group=key, step=step)
        return True

    def _again(self, key: Key) -> None:
        self._soon(key, self._deps.clock.boot() + AGAIN_S)

    def _soon(self, key: Key, at: float | None) -> None:
        if at is not None:
            self._due[key] = min(at, self._due.get(key, at))

    def _news(self, group: Group, done: list[Step], blocked: Reason | None) -> list[Event]:
        """What steps came to; what is in their way, when that is new."""
        now = self._deps.clock.wall()
        found = done_events(group, done, now)
        if blocked is not None and blocked != self._blocked.get(key_of(group)):
            found.append(_event(now, blocked.reason, blocked.message, EventType.WARNING))
        return found

    def _tell(self, group: Group, blocked: Reason | None, members: list[Member]) -> None:
        """Wakes whoever follows the group, when there is something new that the store does not show."""
        key = key_of(group)
        self._soon(key, self._observer.ready_at(group, members))
        self._blocked.pop(key, None)
        if blocked is not None:
            self._blocked[key] = blocked
        now = (blocked, [(each.uid, each.available) for each in members])
        if self._told.get(key) != now:
            self._told[key] = now
            revision = self._deps.mirror.view.revision
            self._deps.topic.publish(Changed(revision=revision, groups=frozenset((key,))))

    async def _note(
        self, held: Held[Group], status: GroupStatus, members: list[Member], events: list[Event]
    ) -> None:
        """Writes down what is new about the group."""
        key, group, now = key_of(held.value), held.value, self._deps.clock
        track = progress.tracked(self._tracks.get(key), group, members, now.boot())
        self._tracks[key] = track
        after = status
        rolling = status.stable != group.current.number
        if rolling and progress.complete(group, members):
            after = msgspec.structs.replace(after, stable=group.current.number)
            said = f"all {group.replicas} VEs have revision {group.current.number}"
            events.append(_event(now.wall(), "RolloutComplete", said))
        else:
            ends = progress.deadline(group, status, track)
            if ends is not None and now.boot() >= ends:
                after, event = self._stopped(group, after, members)
                events.append(event)
            else:
                self._soon(key, ends)
        if events:
            kept = (*after.events, *events)[-EVENTS_KEPT:]
            await self._write(held, msgspec.structs.replace(after, events=kept))

    def _stopped(
        self, group: Group, status: GroupStatus, members: list[Member]
    ) -> tuple[GroupStatus, Event]:
        number, limit_s = group.current.number, group.progress_deadline_s
        lacks = self._blocked.get(key_of(group)) or waiting_for(group, members)
        why = f"no further VE became available with revision {number} for {limit_s:g} s: {lacks.message}"
        event = _event(self._deps.clock.wall(), "RolloutStopped", why, EventType.WARNING)
        after = msgspec.structs.replace(
            status, stopped_revision=number, stopped_try=group.tries, stopped_why=why
        )
        return after, event

    def status(self, group: Group) -> GroupStatus:
        """What is written down of it; an empty one when there is none, or one of an earlier group of that name."""
        held = self._deps.mirror.view.group_statuses.get(key_of(group))
        if held is None or held.value.uid != group.uid:
            return GroupStatus(uid=group.uid)
        return held.value

    async def _write(self, held: Held[Group], status: GroupStatus) -> None:
        key = key_of(held.value)
        before = self._deps.mirror.view.group_statuses.get(key)
        op_id = self._deps.ids.new()
        written = msgspec.structs.replace(status, op_id=op_id)
        status_key = keys.group_status(*key)
        guards = [
            Guard(key=keys.group(*key), mod_revision=held.mod_revision),
            Guard(key=status_key, mod_revision=before.mod_revision if before else 0),
        ]
        put = Put(key=status_key, value=values.encode_group_status(written))
        try:
            await self._deps.writer.commit(guards, [put], confirm=(status_key, op_id))
        except NotLeader:
            raise
        except (Conflict, Unavailable) as error:
            log.info("status of group not written yet", group=key, error=error.message)
            self._soon(key, self._deps.clock.boot() + AGAIN_S)


def key_of(group: Group) -> Key:
    return group.project, group.name


def _all(changed: Changed) -> bool:
    """Hosts and images may change what any group sees."""
    return changed.relisted or bool(changed.hosts) or changed.images


def _reason(error: VerackError) -> Reason:
    word = "".join(part.capitalize() for part in error.kind.split("_"))
    return Reason(reason=word, message=f"{error.message} ({error.hint})")


def _event(at: float, reason: str, message: str, kind: EventType = EventType.NORMAL) -> Event:
    return Event(at=at, type=kind, reason=reason, message=message)
