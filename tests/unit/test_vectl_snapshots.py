"""Waiting for snapshots: what a watch shows of before the request is no answer to it."""

from collections.abc import AsyncIterator

import pytest

from veapi.errors import Conflict, RemoteFailed, TimedOut
from veapi.v1 import types_pb2
from vectl.changes import Change, ChangeKind
from vectl.snapshots import until_gone, until_taken


def ve(revision: int, state: str = "", message: str = "") -> types_pb2.VE:
    made = types_pb2.VE(name="web", uid="u", resource_version=revision)
    if state:
        made.snapshots.add(tag="s", seq=3, state=state, message=message)
    return made


async def shown(*ves: types_pb2.VE, last: Change | None = None) -> AsyncIterator[Change]:
    yield Change(ChangeKind.SYNCED, types_pb2.VE())
    for one in ves:
        yield Change(ChangeKind.CHANGED, one)
    if last is not None:
        yield last


async def test_an_older_look_without_it_says_nothing() -> None:
    changes = shown(ve(1), ve(5, "Creating"), ve(5, "Ready"))
    found = await until_taken(changes, ve(5), 3, timeout_s=5)
    assert found.state == "Ready"


async def test_a_failure_ends_the_wait_with_its_reason() -> None:
    with pytest.raises(RemoteFailed, match="no room"):
        await until_taken(shown(ve(5, "Failed", "no room")), ve(5), 3, timeout_s=5)


async def test_one_that_somebody_deleted_ends_the_wait() -> None:
    with pytest.raises(Conflict, match="deleted meanwhile"):
        await until_taken(shown(ve(6)), ve(5), 3, timeout_s=5)
    with pytest.raises(Conflict, match="VE web was deleted"):
        await until_taken(shown(last=Change(ChangeKind.DELETED, ve(6))), ve(5), 3, timeout_s=5)


async def test_it_is_gone_when_a_later_look_has_it_not() -> None:
    await until_gone(shown(ve(4), ve(5, "Deleting"), ve(6)), ve(5), 3, timeout_s=5)
    with pytest.raises(RemoteFailed, match="busy"):
        await until_gone(shown(ve(5, "Deleting", "busy")), ve(5), 3, timeout_s=5)


async def test_one_that_could_not_be_taken_is_deleted_without_complaint() -> None:
    asked = ve(5, "Deleting", "no room")
    await until_gone(shown(asked, ve(6)), asked, 3, timeout_s=5)
    with pytest.raises(RemoteFailed, match="busy"):
        await until_gone(shown(asked, ve(6, "Deleting", "busy")), asked, 3, timeout_s=5)


async def test_a_wait_has_an_end() -> None:
    async def never() -> AsyncIterator[Change]:
        raise TimeoutError
        yield Change(ChangeKind.CHANGED, ve(5))

    with pytest.raises(TimedOut, match="not taken within"):
        await until_taken(never(), ve(5), 3, timeout_s=0.01)
