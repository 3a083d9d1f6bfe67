"""Takes the reports of all hosts and writes what they change, in as few transactions as possible.

One loop serves all sessions: it takes what has come meanwhile as one, keeps of each VE the newest word of its host, and
writes until the view shows it. Only then are the reports acknowledged. A lost race means that the view is behind: the loop
looks again. When that does not help for long, the sessions end, and their agents report everything anew.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from veapi.clock import Clock
from veapi.errors import Conflict, Unavailable, VerackError
from veapi.model import HostFacts, HostName, Uid, VEReport
from vecontroller.leader import NotLeader
from vecontroller.observed import Change, of_facts, of_report, packed, placed_here
from vecontroller.ports import Commits, Mirrored
from vecontroller.view import View
from vecontroller.writer import LostRace

log = structlog.get_logger()
WAITING_LIMIT = 256
"""Reports that may wait; then sessions are read no further."""
TAKEN_AT_ONCE = 128
CHANGES_A_TRANSACTION = 40
ATTEMPTS = 8
PAUSE_S = 0.05
ORPHANS_PER_HOST = 10_000


@dataclass(frozen=True, slots=True)
class Reported:
    """One report. `done` is called once all of it is in the store; `failed` when that can't be said."""

    host: HostName
    ves: tuple[VEReport, ...] = ()
    facts: HostFacts | None = None
    whole: bool = False
    done: Callable[[], None] = lambda: None
    failed: Callable[[VerackError], None] = lambda _: None


@dataclass(slots=True)
class _Newest:
    """The newest word of each host about itself and about each VE."""

    facts: dict[HostName, HostFacts] = field(default_factory=dict)
    ves: dict[tuple[HostName, Uid], VEReport] = field(default_factory=dict)

    def changes(self, view: View) -> list[Change]:
        """What of it the view does not show yet."""
        found = [
            *(of_facts(view, host, facts) for host, facts in self.facts.items()),
            *(of_report(view, host, report) for (host, _), report in self.ves.items()),
        ]
        return [change for change in found if change is not None]


class Reports:
    """Owner of ve/status and host/status, and of what removes a VE in the end."""

    def __init__(self, mirror: Mirrored, writer: Commits, clock: Clock) -> None:
        self._mirror = mirror
        self._writer = writer
        self._clock = clock
        self._waiting: asyncio.Queue[Reported] = asyncio.Queue(WAITING_LIMIT)
        self._orphans: dict[HostName, dict[Uid, VEReport]] = {}
        self.taken_total = 0
        self.written_total = 0

    async def submit(self, reported: Reported) -> None:
        """Waits while too many wait."""
        await self._waiting.put(reported)

    def orphans(self, host: HostName) -> tuple[VEReport, ...]:
        """What the host has and nobody's set names: kept there, and shown."""
        return tuple(self._orphans.get(host, {}).values())

    async def run(self) -> None:
        """For ever; raises NotLeader when it is no longer ours to write."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < TAKEN_AT_ONCE and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            await self._take(batch)

    async def _take(self, batch: Sequence[Reported]) -> None:
        newest = _Newest()
        for reported in batch:
            self._note_orphans(reported)
            newest.ves.update({(reported.host, report.uid): report for report in reported.ves})
            if reported.facts is not None:
                newest.facts[reported.host] = reported.facts
        error = await self._write(newest)
        self.taken_total += len(batch)
        for reported in batch:
            if error is None:
                reported.done()
            else:
                reported.failed(error)

    async def _write(self, newest: _Newest) -> VerackError | None:
        """Until the view shows all of it; else the error that stood in the way."""
        error: VerackError | None = None
        for attempt in range(ATTEMPTS):
            changes = newest.changes(self._mirror.view)
            if not changes:
                return None
            if attempt:
                await self._clock.sleep(PAUSE_S * attempt)
                changes = newest.changes(self._mirror.view)
            # After a failure one by one, so that a single bad one holds up nobody else.
            at_most = 1 if attempt > 1 else CHANGES_A_TRANSACTION
            for group in packed(changes, at_most=at_most):
                error = await self._commit(group) or error
        if not newest.changes(self._mirror.view):
            return None
        log.error("reports not written", why=error.message if error else "")
        return error or Unavailable("the report could not be written", hint="report again")

    async def _commit(self, group: Sequence[Change]) -> VerackError | None:
        guards = [guard for change in group for guard in change.guards]
        writes = [write for change in group for write in change.writes]
        try:
            await self._writer.commit(guards, writes, confirm=None)
        except NotLeader:
            raise
        except LostRace as lost:
            log.info("report lost a race", changes=len(group))
            return lost
        except (Conflict, Unavailable) as error:
            log.warning("report not written", changes=len(group), why=error.message)
            return error
        self.written_total += len(writes)
        return None

    def _note_orphans(self, reported: Reported) -> None:
        known = self._orphans.setdefault(reported.host, {})
        if reported.whole:
            known.clear()
        for report in reported.ves:
            known.pop(report.uid, None)
            ours = placed_here(self._mirror.view, reported.host, report.uid)
            if not report.gone and (report.orphan or not ours) and len(known) < ORPHANS_PER_HOST:
                known[report.uid] = report
