"""Waiting until what was asked of VEs is done, by a watch; and showing what happens meanwhile.

`judge` decides from one look at a VE: pure. The board holds what is waited for and what was last seen: a change may come
before the answer to the request that caused it, so both may be told in any order. `follow` reads while requests are
sent, because a watch that is not read is ended by the controller.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from veapi.errors import Conflict, NoHostFits, RemoteFailed, TimedOut, VerackError
from vectl.changes import Change, ChangeKind

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import VE, VEStatus

# Reasons of a host that could not go along with what was asked.
_REFUSED = ("LimitsRefused", "RestartNeeded", "SourceMissing", "PoolFull")
# Reasons of Pending that say: not decided yet.
_UNDECIDED = ("", "Scheduling")


class Goal(StrEnum):
    """What is waited for."""

    RUNNING = "running"
    STOPPED = "stopped"
    FROZEN = "frozen"
    RESTARTED = "restarted"
    # Whatever was asked last, by its spec: also when it is down by itself or by its guest.
    SETTLED = "carried out"
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
    refused = _could_not(target, ve)
    if refused is not None:
        return refused
    if _reached(target, ve):
        return True
    if target.goal is Goal.GONE:
        return False
    if status.state == "Pending" and status.reason not in _UNDECIDED:
        return _judge_pending(target, ve)
    if status.state == "Failed" and not _stale(target, ve):
        return _failed(ve)
    return False


def _judge_pending(target: Target, ve: "VE") -> VerackError | bool:
    down = target.goal is Goal.STOPPED or (target.goal is Goal.SETTLED and ve.spec.run == "stopped")
    if down and target.before is not None:
        return True  # it runs nowhere
    if target.goal is Goal.SETTLED and _stale(target, ve):
        return False  # what was refused was what it asked for before
    return _refused(ve)


def _reached(target: Target, ve: "VE") -> bool:
    status = ve.status
    carried_out = status.observed_generation >= target.asked.generation
    match target.goal:
        case Goal.RUNNING:
            return carried_out and status.state == "Running"
        case Goal.STOPPED:
            return carried_out and status.state == "Stopped"
        case Goal.RESTARTED:
            return carried_out and status.state == "Running" and _started_again(target, ve)
        case Goal.FROZEN:
            return carried_out and status.state == "Frozen"
        case Goal.SETTLED:
            return carried_out and _as_wanted(ve)
        case Goal.GONE:
            return False


def _started_again(target: Target, ve: "VE") -> bool:
    before = target.before
    return before is None or ve.status.started_at != before.status.started_at


def _as_wanted(ve: "VE") -> bool:
    """What its guest switched off stays off until its user starts it, whatever else is changed."""
    status = ve.status
    if ve.spec.run == "stopped" or status.reason == "PoweredOff":
        return status.state == "Stopped"
    return status.state == ("Frozen" if ve.spec.run == "frozen" else "Running")


def _could_not(target: Target, ve: "VE") -> Conflict | None:
    """What the host says of the generation that we asked for, or of a later one."""
    status = ve.status
    if target.goal is Goal.GONE or status.reason not in _REFUSED:
        return None
    if status.observed_generation < target.asked.generation:
        return None
    if target.goal is Goal.RESTARTED and not _started_again(target, ve):
        return None  # said before the restart that may well put it right; a restart is no new generation
    hint = f"see `vectl show {ve.name}`"
    if status.reason == "RestartNeeded" or status.message.startswith("memory in use"):
        hint = (
            f"ask for something else, or restart it for that: `vectl set {ve.name} ... --restart`"
        )
    return Conflict(f"{ve.name}: {status.reason}: {status.message}", hint=hint)


def _stale(target: Target, ve: "VE") -> bool:
    """The failure is an old one, of before we asked."""
    return target.before is not None and _failure(target.before.status) == _failure(ve.status)


def _failure(status: "VEStatus") -> tuple[str, str, str, int, int]:
    """What tells two failures apart. Events don't: a watch leaves them out."""
    return (
        status.state,
        status.reason,
        status.message,
        status.restarts,
        status.observed_generation,
    )


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


class Board:
    """What is waited for, how each one ended, and what was last seen of the others."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.settled: dict[str, Outcome] = {}
        self.news = asyncio.Event()
        self._targets: dict[str, Target] = {}
        self._last: dict[str, Change] = {}
        self._progress = progress
        self._total = total

    @property
    def over(self) -> bool:
        """All that was added so far is settled."""
        return len(self.settled) == len(self._targets)

    def add(self, target: Target) -> None:
        self._targets[target.uid] = target
        self._look(self._last.get(target.uid) or Change(ChangeKind.CHANGED, target.asked))

    def see(self, change: Change) -> None:
        self._last[change.ve.uid] = change
        self._look(change)

    async def read(self, changes: AsyncIterator[Change]) -> None:
        async for change in changes:
            self.see(change)

    def give_up(self, timeout_s: float) -> None:
        """Whatever is left was too slow."""
        for uid, target in self._targets.items():
            if uid not in self.settled:
                ve = self._last[uid].ve if uid in self._last else target.asked
                self.settled[uid] = Outcome(target, ve, _late(target, ve, timeout_s))

    def _look(self, change: Change) -> None:
        target = self._targets.get(change.ve.uid)
        if target is None or target.uid in self.settled:
            return
        outcome = _settle(target, change)
        if outcome is not None:
            self.settled[target.uid] = outcome
            self.news.set()
        if change.kind is not ChangeKind.DELETED:  # what it was last is no news
            self._progress.show(change.ve, settled=len(self.settled), total=self._total)


async def follow(
    changes: AsyncIterator[Change],
    requests: Sequence[Awaitable[Target | VerackError]],
    progress: Progress,
    *,
    timeout_s: float,
) -> list[Outcome | VerackError]:
    """Sends the requests together, and gives the outcome of each, in their order. Late ones end as TimedOut."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    board = Board(progress, len(requests))
    reading = asyncio.ensure_future(board.read(changes))
    reading.add_done_callback(lambda _: board.news.set())
    try:
        answers = await asyncio.gather(*(_asked(board, request) for request in requests))
        async with asyncio.timeout_at(deadline):
            await _all_settled(board, reading)
    except TimeoutError:
        board.give_up(timeout_s)
    finally:
        progress.close()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return [
        answer if isinstance(answer, VerackError) else board.settled[answer.uid]
        for answer in answers
    ]


async def _asked(board: Board, request: Awaitable[Target | VerackError]) -> Target | VerackError:
    answer = await request
    if isinstance(answer, Target):
        board.add(answer)
    return answer


async def _all_settled(board: Board, reading: "asyncio.Future[None]") -> None:
    """Raises what the reading of the watch raised."""
    while not board.over:
        board.news.clear()
        if reading.done():
            reading.result()
        await board.news.wait()


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
