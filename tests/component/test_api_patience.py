"""A short loss of the store is sat out for users, and nothing of unknown outcome is sent twice."""

import asyncio

import pytest

from kit.manualclock import ManualClock
from veapi.errors import Unavailable, VerackError
from vecontroller.api.patience import ATTEMPTS, PatientCommits
from vecontroller.leader import NotLeader
from vecontroller.store.port import Ambiguous


class Writer:
    """Fails with each of these in turn, then commits."""

    def __init__(self, *failures: VerackError) -> None:
        self.failures = list(failures)
        self.calls = 0

    async def commit(self, guards, writes, *, confirm) -> int:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return 7


async def committed(writer: Writer) -> int:
    clock = ManualClock()
    task = asyncio.ensure_future(PatientCommits(writer, clock).commit([], [], confirm=None))
    await clock.advance(10)
    assert task.done()
    return await task


async def test_what_was_surely_not_written_is_sent_again() -> None:
    writer = Writer(Unavailable("away"), Unavailable("away"))
    assert await committed(writer) == 7
    assert writer.calls == 3


async def test_a_store_that_stays_away_is_told_after_a_limit() -> None:
    writer = Writer(*[Unavailable("away")] * 1000)
    with pytest.raises(Unavailable, match="away"):
        await committed(writer)
    assert writer.calls == ATTEMPTS


@pytest.mark.parametrize("failure", [Ambiguous("unknown"), NotLeader("not us")])
async def test_an_unknown_outcome_and_a_lost_lead_are_told_at_once(failure: VerackError) -> None:
    writer = Writer(failure)
    with pytest.raises(type(failure)):
        await committed(writer)
    assert writer.calls == 1
