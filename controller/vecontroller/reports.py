"""Takes the reports of all hosts and writes what they change, in as few transactions as possible.

One loop serves all sessions: it takes what has come meanwhile as one, keeps of each VE the newest word of its host, and
writes until the view shows it. Only then are the reports acknowledged. A lost race means that the view is behind: the loop
looks again. When that does not help for long, the sessions end, and their agents report everything anew.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec
import structlog

from veapi.clock import Clock
from veapi.errors import InvalidInput, Unavailable, VerackError
from veapi.model import HostFacts, HostName, Uid, VEReport
from vecontroller.leader import NotLeader
from vecontroller.observed import (
    Change,
    kept_here,
    left_here,
    of_facts,
    of_report,
    packed,
    placed_here,
)
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
ORPHANS_PER_HOST = 2_000
"""Several times what a host can run."""


@dataclass(frozen=True, slots=True)
class Reported:
    """One report. `done` is called once all of it is in the store; `failed` when that can't be said."""

    host: HostName
    ves: tuple[VEReport, ...] = ()
    facts: HostFacts | None = None
    whole: bool = False
    done: Callable[[], None] = lambda: None
    failed: Callable[[VerackError], None] = lambda _: None


Subject = tuple[HostName, Uid | None]
"""What a host speaks of: one of its VEs, or itself."""
SPOILS_ONE = (VerackError, ValueError, OverflowError)
"""What is wrong with one report, and no reason to take no others."""


@dataclass(slots=True)
class _Newest:
    """The newest word of each host about itself and about each VE, and what stood in the way of it last.

    `purge_at`: when VEs that turn out to be deleted and kept are to be purged, in Unix seconds.
    """

    purge_at: float
    words: dict[Subject, HostFacts | VEReport] = field(default_factory=dict)
    spoiled: set[Subject] = field(default_factory=set)
    errors: dict[Subject, VerackError] = field(default_factory=dict)

    def pending(self, view: View) -> dict[Subject, Change]:
        """What of it the view does not show yet, but for what can't be written at all."""
        found = {}
        for subject in self.words:
            change = None if subject in self.spoiled else self._change(view, subject)
            if change is not None:
                found[subject] = change
        return found

    def _change(self, view: View, subject: Subject) -> Change | None:
        host, word = subject[0], self.words[subject]
        try:
            if isinstance(word, HostFacts):
                return of_facts(view, host, word)
            return of_report(view, host, word, purge_at=self.purge_at)
        except SPOILS_ONE as error:
            log.warning("report can't be written", host=host, uid=subject[1], why=str(error))
            self.spoiled.add(subject)
            self.errors[subject] = _as_ours(error)
            return None


class Reports:
    """Owner of ve/status and host/status, and of what removes a VE in the end."""

    def __init__(
        self, mirror: Mirrored, writer: Commits, clock: Clock, *, keep_deleted_s: float = 86_400.0
    ) -> None:
        self._keep_deleted_s = keep_deleted_s
        self._mirror = mirror
        self._writer = writer
        self._clock = clock
        self._waiting: asyncio.Queue[Reported] = asyncio.Queue(WAITING_LIMIT)
        self._orphans: dict[HostName, dict[Uid, VEReport]] = {}
        self._whole: set[HostName] = set()
        self.taken_total = 0
        self.written_total = 0

    async def submit(self, reported: Reported) -> None:
        """Waits while too many wait."""
        await self._waiting.put(reported)

    def orphans(self, host: HostName) -> tuple[VEReport, ...]:
        """What the host has and nobody's set names: kept there, and shown."""
        return tuple(self._orphans.get(host, {}).values())

    def has_reported(self, host: HostName) -> bool:
        """Whether it has said all that it has."""
        return host in self._whole

    async def run(self) -> None:
        """For ever; raises NotLeader when it is no longer ours to write."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < TAKEN_AT_ONCE and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            await self._take(batch)

    async def _take(self, batch: Sequence[Reported]) -> None:
        newest = _Newest(self._clock.wall() + self._keep_deleted_s)
        for reported in batch:
            self._note_orphans(reported)
            newest.words.update(_words(reported))
        unwritten = await self._write(newest)
        self.taken_total += len(batch)
        for reported in batch:
            errors = [unwritten[subject] for subject in _words(reported) if subject in unwritten]
            if errors:
                reported.failed(errors[0])
            else:
                if reported.whole:
                    self._whole.add(reported.host)
                reported.done()

    async def _write(self, newest: _Newest) -> Mapping[Subject, VerackError]:
        """Until the view shows all of it; else what it does not show, and the error that stood in the way."""
        for attempt in range(ATTEMPTS):
            pending = newest.pending(self._mirror.view)
            if not pending:
                break
            if attempt:
                await self._clock.sleep(PAUSE_S * attempt)
                pending = newest.pending(self._mirror.view)
            # After a failure one by one, so that a single bad one holds up nobody else.
            at_most = 1 if attempt > 1 else CHANGES_A_TRANSACTION
            subjects = iter(pending)
            for group in packed(pending.values(), at_most=at_most):
                about = tuple(islice(subjects, len(group)))
                error = await self._commit(group)
                if error is not None:
                    newest.errors.update(dict.fromkeys(about, error))
        return _unwritten(newest, self._mirror.view)

    async def _commit(self, group: Sequence[Change]) -> VerackError | None:
        """None when it is written; of all errors only NotLeader concerns more than this group."""
        guards = [guard for change in group for guard in change.guards]
        writes = [write for change in group for write in change.writes]
        try:
            await self._writer.commit(guards, writes, confirm=None)
        except NotLeader:
            raise
        except LostRace as lost:
            log.info("report lost a race", changes=len(group))
            return lost
        except SPOILS_ONE as error:
            log.warning("report not written", changes=len(group), why=str(error))
            return _as_ours(error)
        self.written_total += len(writes)
        return None

    def _note_orphans(self, reported: Reported) -> None:
        known = self._orphans.setdefault(reported.host, {})
        if reported.whole:
            known.clear()
        for report in reported.ves:
            known.pop(report.uid, None)
            view = self._mirror.view
            ours = placed_here(view, reported.host, report.uid)
            ours = ours or kept_here(view, reported.host, report.uid)
            ours = ours or left_here(view, reported.host, report.uid)
            if not report.gone and (report.orphan or not ours) and len(known) < ORPHANS_PER_HOST:
                known[report.uid] = _without_story(report)


def _without_story(report: VEReport) -> VEReport:
    """What is shown and adopted of an orphan; the rest would be most of it."""
    status = msgspec.structs.replace(report.status, events=(), snapshots=())
    return msgspec.structs.replace(report, status=status)


def _words(reported: Reported) -> dict[Subject, HostFacts | VEReport]:
    """What the report says, of what."""
    words: dict[Subject, HostFacts | VEReport] = {
        (reported.host, report.uid): report for report in reported.ves
    }
    if reported.facts is not None:
        words[reported.host, None] = reported.facts
    return words


def _unwritten(newest: _Newest, view: View) -> Mapping[Subject, VerackError]:
    subjects = {*newest.pending(view), *newest.spoiled}
    if subjects:
        log.error("reports not written", count=len(subjects))
    unknown = Unavailable("the report could not be written", hint="report again")
    return {subject: newest.errors.get(subject, unknown) for subject in subjects}


def _as_ours(error: Exception) -> VerackError:
    """What the host is told that its session ends with."""
    if isinstance(error, VerackError):
        return error
    return InvalidInput(
        f"the report can't be stored: {error}", hint="use a veagent of this version"
    )
