"""vectl wait."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput, NotFound, TimedOut
from vectl import options
from vectl.changes import Change, ChangeKind
from vectl.lazy import nearest
from vectl.progress import describe
from vectl.session import Ended, Session, pass_session

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import VE
    from vectl.client import Client

STATES = (
    "Pending",
    "Creating",
    "Running",
    "Frozen",
    "Stopped",
    "Deleting",
    "Failed",
    "Unknown",
    "Migrating",
)
# Of these states, one that the host has not brought up to date does not count.
_CARRIED_OUT = ("Running", "Frozen", "Stopped")
DELETE = "delete"


@options.command("wait")
@options.name_argument
@click.option(
    "--for", "condition", required=True, help="state=STATE, e.g. state=Running, or delete."
)
@options.timeout_option(30.0)
@pass_session
def wait(session: Session, name: str, *, condition: str, timeout_s: float) -> None:
    """Wait until a VE is in a state, or gone.

    With --timeout 0 it is only looked at: exit code 1 when the condition is false. When it is late, the code is 6.
    """
    wanted = parse_condition(condition)

    async def work(client: "Client") -> None:
        async with client.watch(names=[name]) as watch:
            await holds(aiter(watch), name, wanted, timeout_s=timeout_s)

    session.run(work)


def parse_condition(text: str) -> str:
    """The state that is waited for, or `delete`."""
    if text == DELETE:
        return DELETE
    key, _, state = text.partition("=")
    if key != "state" or not state:
        raise InvalidInput(
            f"for: {text[:80]!r} is not a condition", hint="write state=Running, or delete"
        )
    if state not in STATES:
        near = nearest(state.capitalize(), list(STATES))
        meant = f"did you mean {near}? " if near else ""
        raise InvalidInput(
            f"for: {state[:80]!r} is not a state", hint=f"{meant}States are {', '.join(STATES)}"
        )
    return state


async def holds(
    changes: AsyncIterator[Change], name: str, wanted: str, *, timeout_s: float
) -> None:
    """Returns once it is so. TimedOut; NotFound when it can't be any more; Ended(1) after one look of no length."""
    last: VE | None = None
    try:
        async with asyncio.timeout(timeout_s or None):
            async for change in changes:
                if change.kind is ChangeKind.SYNCED:
                    if last is None and _gone(name, wanted):
                        return
                    if not timeout_s:
                        break
                elif change.kind is ChangeKind.DELETED and _gone(name, wanted):
                    return
                else:
                    last = change.ve
                    if _is(last, wanted):
                        return
    except TimeoutError:
        raise TimedOut(
            f"{name}: {wanted} did not come within {timeout_s:g} s: {_now(last)}",
            hint=f"see `vectl show {name}`, or give a longer --timeout",
        ) from None
    click.echo(f"{name} is {_now(last)}", err=True)
    raise Ended(1)


def _gone(name: str, wanted: str) -> bool:
    if wanted == DELETE:
        return True
    raise NotFound(f"there is no VE {name}", hint="`vectl list` shows what there is")


def _is(ve: "VE", state: str) -> bool:
    current = ve.status.observed_generation >= ve.generation or state not in _CARRIED_OUT
    return ve.status.state == state and current


def _now(ve: "VE | None") -> str:
    return describe(ve) if ve is not None else "not known"
