"""Asking for changes of VEs, waiting until they are done, and saying how each one ended."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from veapi.errors import VerackError
from vectl.follow import Goal, Outcome, Target, follow
from vectl.progress import describe, progress
from vectl.session import Ended, Session
from vectl.text import complain

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import VE
    from vectl.client import Client

AT_ONCE = 32
"""Requests under way, whatever a manifest holds."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: how it is sent, what is waited for, and the word for it when it is done."""

    name: str
    call: Callable[[], Awaitable["VE"]]
    goal: Goal
    done: str | Callable[[], str]

    def word(self) -> str:
        return self.done if isinstance(self.done, str) else self.done()


OUTCOMES = {1: "unchanged", 2: "created", 3: "changed"}
"""Of an apply: by ApplyVEResponse.Outcome."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How to wait. `fresh`: the VEs are new, so what was before needs no look."""

    timeout_s: float
    detach: bool
    fresh: bool = False
    all_projects: bool = False


async def carry_out(client: "Client", session: Session, asks: Sequence[Ask], how: Waiting) -> None:
    """Sends the requests together, waits for all. Prints each ending; Ended with the code of the first failure."""
    turn = asyncio.Semaphore(AT_ONCE)
    if how.detach:
        session.stands = _stands(asks)
        answers = await asyncio.gather(*(_send(ask, {}, turn) for ask in asks))
        _end([_detached(ask, answer) for ask, answer in zip(asks, answers, strict=True)])
        return
    async with client.watch(
        names=[ask.name for ask in asks], all_projects=how.all_projects
    ) as watch:
        before = {} if how.fresh else await watch.snapshot()
        session.stands = _stands(asks)
        requests = [_send(ask, before, turn) for ask in asks]
        outcomes = await follow(aiter(watch), requests, progress(), timeout_s=how.timeout_s)
    _end([_ending(ask, outcome) for ask, outcome in zip(asks, outcomes, strict=True)])


async def _send(
    ask: Ask, before: "Mapping[str, VE]", turn: asyncio.Semaphore
) -> Target | VerackError:
    async with turn:
        try:
            answer = await ask.call()
        except VerackError as error:
            return error
    return Target(answer, ask.goal, before.get(answer.uid))


def _detached(ask: Ask, answer: Target | VerackError) -> str | VerackError:
    if isinstance(answer, VerackError):
        return answer
    return f"ve/{answer.name} will be {ask.word()}"


def _ending(ask: Ask, outcome: Outcome | VerackError) -> str | VerackError:
    if isinstance(outcome, VerackError):
        return outcome
    if outcome.error is not None:
        return outcome.error
    if outcome.target.goal is Goal.GONE:
        return f"ve/{outcome.target.name} {ask.word()}"
    return f"ve/{outcome.target.name} {ask.word()}: {describe(outcome.ve)}"


def say(endings: Sequence[str | VerackError]) -> int:
    """How each ended; the exit code of the first failure, or 0. An error that several requests share is told once."""
    code, told = 0, list[VerackError]()
    for ending in endings:
        if isinstance(ending, str):
            click.echo(ending)
        elif not any(ending is each for each in told):
            told.append(ending)
            code = code or ending.exit_code
            complain(ending.message, ending.hint)
    return code


def _end(endings: Sequence[str | VerackError]) -> None:
    code = say(endings)
    if code:
        raise Ended(code)


def _stands(asks: Sequence[Ask]) -> str:
    first = asks[0].name if asks else ""
    more = f" and {len(asks) - 1} more" if len(asks) > 1 else ""
    return f"The request for {first}{more} stands: `vectl list` shows how it goes on."
