"""Gives every VE a host: woken by any change, decides from the whole view, commits in guarded batches.

A change only wakes it; what it does is decided from the view alone, so that it is right from its first pass and after
any crash. What it has planned but not yet seen in the view stays reserved: a commit of unknown outcome is repeated with
the same host until the view shows the placement, or the VE's spec has changed (then the old commit can't succeed any
more). So two creates never overfill a host, whatever is lost on the way.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

import structlog

from veapi.clock import Clock
from veapi.errors import Conflict, Unavailable
from veapi.model import VE, HostName, HostState, Resources, Uid
from vecontroller import decisions
from vecontroller.decisions import Decided
from vecontroller.holding import Reserved
from vecontroller.incarnation import HINT, REASON, RESTORED, is_unconfirmed
from vecontroller.leader import NotLeader
from vecontroller.placement import (
    Board,
    HostRow,
    Plan,
    Refusal,
    Request,
    change,
    place,
    request,
)
from vecontroller.placement.rules import PLAIN, Rules
from vecontroller.placement.standing import StandingBoard
from vecontroller.ports import Commits, Hosts, Mirrored, Passes
from vecontroller.removal import removal
from vecontroller.store.port import Ambiguous
from vecontroller.topic import Subscription, Topic
from vecontroller.view import Changed, Held, View

log = structlog.get_logger()
BATCH_VES = 45
"""Two guards each, below the limit of a transaction."""
SAFETY_PASS_S = 10.0
RETRY_S = 0.5
HOSTS_WITHIN_S = 3.0
"""Longer than an agent's pause between two tries."""


class _Outcome(Enum):
    """Of one transaction. LOST: surely not written, others may be; FAILED: the store is in trouble."""

    DONE = "done"
    LOST = "lost"
    FAILED = "failed"


class Scheduler:
    """Owner of ve/placement. Refusals are in memory only: the next leader finds them again."""

    def __init__(  # noqa: PLR0913 - wired in one place
        self,
        mirror: Mirrored,
        writer: Commits,
        hosts: Hosts,
        topic: Topic,
        clock: Clock,
        *,
        new_op_id: Callable[[], str],
        passes: Passes | None = None,
        reserved: Reserved | None = None,
        rules: Rules = PLAIN,
    ) -> None:
        self._rules = rules
        self._standing = StandingBoard(rules)
        self._reserved = reserved or Reserved(clock)
        self._passes = passes
        self._mirror = mirror
        self._writer = writer
        self._hosts = hosts
        self._topic = topic
        self._clock = clock
        self._new_op_id = new_op_id
        self._refusals: dict[Uid, Refusal] = {}
        self._refused_at_spec: dict[Uid, int] = {}
        self._refused_as: dict[Uid, Request] = {}
        self._refused_with: list[HostRow] = []
        self._undecided: dict[Uid, Decided] = {}
        self._deciding: Sequence[Decided] = ()
        self._batch = BATCH_VES
        self._placed_total = 0

    @property
    def refusals(self) -> Mapping[Uid, Refusal]:
        """Why each VE that has no host has none."""
        return self._refusals

    def coming(self, host: HostName) -> list[Resources]:
        """What the VEs take that were given to the host and that the view does not show there yet."""
        placements = self._mirror.view.placements
        on_their_way = {each.assignment.uid: each for each in self._deciding} | self._undecided
        return [
            each.resources
            for uid, each in on_their_way.items()
            if each.assignment.host == host and uid not in placements
        ]

    def board(self) -> Board:
        """The hosts with all that is on its way to them, as the next decision would see them."""
        view = self._mirror.view
        coming = {host: [*self.coming(host), *self._reserved.on(host)] for host in view.hosts}
        return Board(
            self._standing.rows_of(
                view,
                state=self._hosts.host_state,
                connected=self._hosts.connected,
                in_flight=coming,
            )
        )

    async def run(self) -> None:
        """For ever; raises NotLeader when it is no longer ours to decide."""
        with self._topic.subscribe() as changes:
            await self._until_heard_of(changes)
            while True:
                done = await self.decide_once()
                await _woken(changes, SAFETY_PASS_S if done else RETRY_S)

    async def _until_heard_of(self, changes: Subscription) -> None:
        """Gives the hosts, which dial a new leader one after the other, a moment.

        Else what is asked now would be refused for want of hosts, or all go to the one that was the fastest.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HOSTS_WITHIN_S):
                while any(
                    self._hosts.host_state(host) is HostState.UNKNOWN
                    for host in self._mirror.view.hosts
                ):
                    await changes.next()

    async def decide_once(self) -> bool:
        """One decision about everything, and its commits. False: something is to be tried again soon."""
        began, placed_before = self._clock.boot(), self._placed_total
        view = self._mirror.view
        wanting = decisions.wanting(view)
        self._settle(wanting)
        if is_unconfirmed(view):
            self._stand_still(wanting)
            return True
        decided, refused = self._decide(view, wanting)
        self._deciding = decided
        try:
            committed = await self._commit_all(decided)
        finally:
            self._deciding = ()
        if not committed:
            # Who was refused for the room of others that are not placed after all is looked at again.
            self._refused_at_spec = {}
        placed = self._placed_total - placed_before
        if self._passes is not None and (decided or refused):
            self._passes.passed(
                self._clock.boot() - began,
                placed=placed,
                refused=refused,
                lost=len(decided) - placed,
            )
        return await self._sweep() and committed

    def _stand_still(self, wanting: Mapping[Uid, Held[VE]]) -> None:
        """Whoever has no host gets none before the restored store is confirmed, and is looked at anew then."""
        self._refused_at_spec = {}
        self._refuse(
            [Refusal(uid=uid, reason=REASON, message=RESTORED, hint=HINT) for uid in wanting]
        )

    def _settle(self, wanting: Mapping[Uid, Held[VE]]) -> None:
        """Forgets what the view shows by now, and what can't come about any more because the spec changed."""
        for uid, decided in list(self._undecided.items()):
            held = wanting.get(uid)
            if held is None or held.mod_revision != decided.spec_revision:
                del self._undecided[uid]

    def _decide(self, view: View, wanting: Mapping[Uid, Held[VE]]) -> tuple[list[Decided], int]:
        """Hosts for those who want one: first again what is undecided, then what is new or may fit by now.

        The number is of those that were looked at and refused.
        """
        again = list(self._undecided.values())
        fresh = {uid: held for uid, held in wanting.items() if uid not in self._undecided}
        refused, fresh = decisions.without_unreadable(view, fresh)
        board = self._look(view) if fresh else None
        rows = self._standing.rows
        asked = {uid: request(view, held, self._rules) for uid, held in fresh.items()}
        due = self._due(fresh, asked, rows)
        made = _planned(board, [asked[uid] for uid in due])
        kept = [self._refusals[uid] for uid in fresh if uid not in due]
        waited = {each.uid: self._refusals.get(each.uid) for each in made.assignments}
        self._refuse([*refused, *made.refusals, *kept])
        self._refused_with = rows
        self._refused_at_spec = {
            uid: fresh[uid].mod_revision for uid in self._refusals if uid in fresh
        }
        self._refused_as = {uid: asked[uid] for uid in self._refused_at_spec}
        chosen = [
            decisions.decided(each, fresh[each.uid], waited[each.uid]) for each in made.assignments
        ]
        return again + chosen, len(made.refusals)

    def _look(self, view: View) -> Board:
        """With what is undecided and reserved."""
        coming: dict[HostName, list[Resources]] = defaultdict(list)
        for decided in self._undecided.values():
            coming[decided.assignment.host].append(decided.resources)
        for host, amount in self._reserved.all():
            coming[host].append(amount)
        return self._standing.look(
            view,
            state=self._hosts.host_state,
            connected=self._hosts.connected,
            in_flight=coming,
        )

    def _due(
        self, fresh: Mapping[Uid, Held[VE]], asked: Mapping[Uid, Request], rows: list[HostRow]
    ) -> list[Uid]:
        """Without those that were refused as they are, and whom nothing can have helped that changed of hosts."""
        changed = change(self._refused_with, rows)
        return [
            uid
            for uid, held in fresh.items()
            if self._refused_at_spec.get(uid) != held.mod_revision
            or changed.may_help(asked[uid])
            or asked[uid] != self._refused_as.get(uid)
        ]

    def _refuse(self, refusals: Sequence[Refusal]) -> None:
        """Makes these the refusals, and tells whoever follows those VEs what changed."""
        before, now = self._refusals, self._clock.wall()
        after = {each.uid: decisions.dated(each, before.get(each.uid), now) for each in refusals}
        changed = {uid for uid in before.keys() | after.keys() if before.get(uid) != after.get(uid)}
        self._refusals = after
        for uid in changed & after.keys():
            log.info("no host fits", ve=uid, why=after[uid].message)
        if changed:
            self._topic.publish(
                Changed(revision=self._mirror.view.revision, ves=frozenset(changed))
            )

    async def _commit_all(self, decided: Sequence[Decided]) -> bool:
        """In batches, oldest first. A lost race costs only its batch; a store that does not answer ends the pass."""
        start, outcomes = 0, set()
        while start < len(decided) and _Outcome.FAILED not in outcomes:
            batch = decided[start : start + self._batch]
            start += len(batch)
            outcomes.add(await self._commit(batch))
            if _Outcome.LOST in outcomes:
                # Somebody was faster with one of them; smaller batches find out with which.
                self._batch = max(1, self._batch // 2)
        if outcomes <= {_Outcome.DONE}:
            self._batch = BATCH_VES
            return True
        return False

    async def _commit(self, batch: Sequence[Decided]) -> _Outcome:
        """What is not known to be done or not stays reserved."""
        op_id = self._new_op_id()
        guards = [guard for each in batch for guard in decisions.guards(each)]
        writes = [decisions.placement(each, self._clock.wall(), op_id) for each in batch]
        try:
            await self._writer.commit(guards, writes, confirm=(writes[0].key, op_id))
        except NotLeader:
            raise
        except Conflict:
            log.info("placement lost a race", ves=len(batch))
            return _Outcome.LOST
        except Ambiguous as error:
            log.warning("placement not confirmed", ves=len(batch), error=error.message)
            self._undecided.update({each.assignment.uid: each for each in batch})
            return _Outcome.FAILED
        except Unavailable as error:
            log.warning("placement not written", ves=len(batch), error=error.message)
            return _Outcome.FAILED
        self._placed(batch)
        return _Outcome.DONE

    def _placed(self, batch: Sequence[Decided]) -> None:
        self._placed_total += len(batch)
        for each in batch:
            self._undecided.pop(each.assignment.uid, None)
            log.info("placed", ve=each.assignment.uid, host=each.assignment.host)

    async def _sweep(self) -> bool:
        """Removes VEs that are to be deleted and never had a host. The API does so itself; this is for the races."""
        view = self._mirror.view
        swept = True
        for uid in view.ves.keys() - view.placements.keys():
            held = view.ves.get(uid)
            if held is None or held.value.delete_requested_at is None:
                continue
            if (
                uid in view.placements
            ):  # placed since the loop began: its host confirms the end first
                continue
            try:
                await self._writer.commit(*removal(view, uid), confirm=None)
            except NotLeader:
                raise
            except (Conflict, Unavailable) as error:
                log.info("deleted ve not removed yet", ve=uid, error=error.message)
                swept = False
        return swept


async def _woken(changes: Subscription, at_most_s: float) -> None:
    """Not by `wait_for`: Python 3.11's loses a cancellation that comes together with a change."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await changes.next()


def _planned(board: Board | None, requests: Sequence[Request]) -> Plan:
    """The board is left as it is: what comes of the plan the view will show."""
    if board is None or not requests:
        return Plan()
    try:
        return place(board, requests)
    finally:
        board.rewind()
