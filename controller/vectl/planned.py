"""Applying a plan: one call for all of it, then waiting for each VE."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from veapi.errors import VerackError, by_kind
from vectl import messagefile
from vectl.follow import Goal
from vectl.mutate import Ask, Waiting, carry_out
from vectl.session import Session

if TYPE_CHECKING:
    from veapi.v1.plan_pb2 import ApplyPlanResponse, Plan
    from veapi.v1.types_pb2 import VE
    from vectl.client import Client

_DONE = {
    "create": "created",
    "change": "changed",
    "start": "started",
    "stop": "stopped",
    "freeze": "frozen",
}


def read(path: str) -> "Plan":
    """InvalidInput: it is none."""
    from veapi.v1.plan_pb2 import Plan  # noqa: PLC0415  # protobuf only when asked

    hint = "give a file that `vectl plan --out FILE` wrote"
    return messagefile.read(path, Plan(), what="plan", hint=hint)


def apply_planned(session: Session, path: str, *, timeout_s: float, detach: bool) -> None:
    """Prints how each VE ended; Ended with the code of the first failure."""
    plan = read(path)
    how = Waiting(timeout_s, detach, all_projects=True)

    async def work(client: "Client") -> None:
        applying = _Applying(client, plan)
        asks = [
            Ask(ve.name, _call(applying, index), Goal.SETTLED, _DONE.get(ve.action, ve.action))
            for index, ve in enumerate(plan.ves)
        ]
        await carry_out(client, session, asks, how)

    session.run(work)


def _call(applying: "_Applying", index: int) -> "Callable[[], Awaitable[VE]]":
    return lambda: applying.answer(index)


class _Applying:
    """The one call, made when the first VE asks; each gets its part of the answer, or the error of all."""

    def __init__(self, client: "Client", plan: "Plan") -> None:
        self._client = client
        self._plan = plan
        self._call: asyncio.Task[ApplyPlanResponse] | None = None
        self._failed: VerackError | None = None

    async def answer(self, index: int) -> "VE":
        if self._call is None:
            self._call = asyncio.create_task(self._client.apply_plan(self._plan))
        response = await self._call
        if index < len(response.done):
            return response.done[index].ve
        raise self._failure(response)

    def _failure(self, response: "ApplyPlanResponse") -> VerackError:
        if self._failed is None:
            left = len(self._plan.ves) - len(response.done)
            self._failed = by_kind(
                response.kind,
                f"{response.failed}; {left} VEs of the plan, from this one on, were left as they were",
                response.hint,
            )
        return self._failed
