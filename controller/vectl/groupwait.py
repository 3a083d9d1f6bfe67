"""Waiting until a group is as it was asked for. `judge` decides from one look at it: pure."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from veapi.errors import Conflict, NoHostFits, NotFound, RemoteFailed, TimedOut, VerackError
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.group_pb2 import Group, GroupChange


def describe(group: "Group") -> str:
    """`Progressing: 2 of 3 available, 1 of revision 4: web-2: Creating`."""
    status, wanted = group.status, group.spec.replicas
    counts = (
        f"{status.available} of {wanted} available, {status.updated} of revision {status.revision}"
    )
    why = f": {status.message}" if status.message else ""
    return one_line(f"{status.state}: {counts}{why}")


def judge(group: "Group") -> VerackError | bool:
    """True: as asked, or paused. False: not yet. An error: not without somebody doing something."""
    status = group.status
    hint = f"see `vectl group show {group.name}`"
    match status.state:
        case "Ready" | "Paused":
            return True
        case "Stopped":
            undo = f"`vectl group rollout undo {group.name}` goes back, `... resume` tries again"
            return RemoteFailed(f"{group.name}: {status.message}", hint=f"{undo}; {hint}")
        case _ if status.reason == "NoHostFits":
            return NoHostFits(
                f"{group.name}: {status.message}",
                hint=f"it goes on as soon as there is room; {hint}",
            )
        case _:
            return False


async def follow(changes: "AsyncIterator[GroupChange]", name: str, *, timeout_s: float) -> "Group":
    """The group once it is as asked. Raises what `judge` finds, TimedOut, or Conflict when it goes away."""
    last = ""
    try:
        async with asyncio.timeout(timeout_s):
            async for change in changes:
                if change.gone:
                    break
                last = _tell(change.group, last)
                found = judge(change.group)
                if isinstance(found, VerackError):
                    raise found
                if found:
                    return change.group
    except TimeoutError:
        raise _late(name, last, timeout_s) from None
    raise Conflict(f"group {name} was deleted meanwhile", hint="see `vectl group list`")


async def follow_end(changes: "AsyncIterator[GroupChange]", name: str, *, timeout_s: float) -> None:
    """Returns when it is gone."""
    last = ""
    try:
        async with asyncio.timeout(timeout_s):
            async for change in changes:
                if change.gone:
                    return
                last = _tell(change.group, last)
    except NotFound:
        return
    except TimeoutError:
        raise _late(name, last, timeout_s) from None


def _tell(group: "Group", last: str) -> str:
    text = f"{group.name}: {describe(group)}"
    if text != last:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    return text


def _late(name: str, last: str, timeout_s: float) -> TimedOut:
    return TimedOut(
        f"{name}: not done within {timeout_s:g} s: {last.removeprefix(name + ': ')}",
        hint=f"the request stands; see `vectl group show {name}`, or give a longer --timeout",
    )
