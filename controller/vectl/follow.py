"""Waiting until what was asked of VEs is done, by a watch; and showing what happens meanwhile.

`judge` decides from one look at a VE: pure. `follow` reads changes until every target is settled or time is up.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from veapi.errors import Conflict, NoHostFits, RemoteFailed, TimedOut, VerackError
from vectl.changes import Change, ChangeKind

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import VE

# Reasons of Pending that say: not decided yet.
_UNDECIDED = ("", "Scheduling")


class Goal(StrEnum):
    """What is waited for."""

    RUNNING = "running"
    STOPPED = "stopped"
    RESTARTED = "restarted"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Target:
    """A VE that shall reach a goal. `asked` is the answer to our request, `before` what it was until then (None: new)."""

    asked: "VE"
    goal: Goal
    before: "VE | None" = None

    @property
    def name(self) -> str:
        return self.asked.name

    @property
    def uid(self) -> str:
        return self.asked.uid


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: `error` is None when the goal was reached."""

    target: Target
    ve: "VE"
    error: VerackError | None = None


class Progress(Protocol):
    """Where it is shown what happens."""

    def show(self, ve: "VE", *, settled: int, total: int) -> None: ...

    def close(self) -> None: ...


def judge(target: Target, ve: "VE") -> VerackError | bool:
    """True: reached. False: not yet. An error: it will not come without somebody doing something."""
    status = ve.status
    if _reached(target, ve):
        return True
    if target.goal is Goal.GONE:
        return False
    if status.state == "Pending" and status.reason not in _UNDECIDED:
        if target.goal is Goal.STOPPED and target.before is not None:
            return True  # it runs nowhere
        return _refused(ve)
    if status.state == "Failed" and not _stale(target, ve):
        return _failed(ve)
    return False


def _reached(target: Target, ve: "VE") -> bool:
    status = ve.status
    carried_out = status.observed_generation >= target.asked.generation
    match target.goal:
        case Goal.RUNNING:
            return carried_out and status.state == "Running"
        case Goal.STOPPED:
            return carried_out and status.state == "Stopped"
        case Goal.RESTARTED:
            started_again = (
                target.before is None or status.started_at != target.before.status.started_at
            )
            return carried_out and status.state == "Running" and started_again
        case Goal.GONE:
            return False


def _stale(target: Target, ve: "VE") -> bool:
    """The failure is an old one, of before we asked."""
    return target.before is not None and target.before.status == ve.status


def _refused(ve: "VE") -> NoHostFits:
    said = ve.status.message or ve.status.reason
    return NoHostFits(
        f"{ve.name}: {said}",
        hint=f"it stays Pending and is placed as soon as a host fits: `vectl wait {ve.name} --for state=Running`;"
        f" `vectl delete {ve.name}` gives it up",
    )


def _failed(ve: "VE") -> RemoteFailed:
    words = ": ".join(part for part in (ve.status.reason, ve.status.message) if part)
    return RemoteFailed(
        f"{ve.name}: failed on {ve.status.host or 'its host'}: {words or 'no reason was given'}",
        hint=f"see `vectl show {ve.name}` and `vectl logs {ve.name}`",
    )


async def follow(
    changes: AsyncIterator[Change],
    targets: Sequence[Target],
    progress: Progress,
    *,
    timeout_s: float,
) -> list[Outcome]:
    """The outcome of each target, in their order. Late ones end as TimedOut; Unavailable passes."""
    waiting = _Waiting(targets, progress)
    try:
        async with asyncio.timeout(timeout_s):
            while not waiting.over:
                waiting.see(await anext(changes))
    except TimeoutError:
        waiting.give_up(timeout_s)
    finally:
        progress.close()
    return [waiting.settled[target.uid] for target in targets]


class _Waiting:
    """Which targets are settled, and what was last seen of the others."""

    def __init__(self, targets: Sequence[Target], progress: Progress) -> None:
        self.settled: dict[str, Outcome] = {}
        self._targets = {target.uid: target for target in targets}
        self._seen: dict[str, VE] = {}
        self._progress = progress
        for target in targets:
            self.see(Change(ChangeKind.CHANGED, target.asked))

    @property
    def over(self) -> bool:
        return len(self.settled) == len(self._targets)

    def see(self, change: Change) -> None:
        target = self._targets.get(change.ve.uid)
        if target is None or target.uid in self.settled:
            return
        self._seen[target.uid] = change.ve
        outcome = _settle(target, change)
        if outcome is not None:
            self.settled[target.uid] = outcome
        self._progress.show(change.ve, settled=len(self.settled), total=len(self._targets))

    def give_up(self, timeout_s: float) -> None:
        for uid, target in self._targets.items():
            if uid not in self.settled:
                ve = self._seen[uid]
                self.settled[uid] = Outcome(target, ve, _late(target, ve, timeout_s))


def _settle(target: Target, change: Change) -> Outcome | None:
    if change.kind is ChangeKind.DELETED:
        return Outcome(target, change.ve, _deleted(target))
    match judge(target, change.ve):
        case True:
            return Outcome(target, change.ve)
        case False:
            return None
        case VerackError() as error:
            return Outcome(target, change.ve, error)


def _deleted(target: Target) -> VerackError | None:
    if target.goal is Goal.GONE:
        return None
    return Conflict(
        f"{target.name}: was deleted meanwhile", hint="somebody else did; see `vectl list`"
    )


def _late(target: Target, ve: "VE", timeout_s: float) -> TimedOut:
    words = " ".join(part for part in (ve.status.reason, ve.status.message) if part)
    now = ve.status.state + (f" ({words})" if words else "")
    return TimedOut(
        f"{target.name}: not {target.goal} within {timeout_s:g} s: it is {now}",
        hint=f"the request stands; see `vectl show {target.name}`, or give a longer --timeout",
    )
