"""Ends of deleted VEs: what is due, and who may stand in the way."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from kit.eventually import eventually
from kit.manualclock import ManualClock
from kit.world import held, make_deleted, make_view
from veapi.errors import Unavailable
from veapi.model import Cluster, Uid
from vecontroller import purging
from vecontroller.leader import NotLeader
from vecontroller.purging import Purging, due, next_look_s
from vecontroller.store import values
from vecontroller.writer import LostRace


class FakeMirror:
    def __init__(self, view) -> None:
        self.view = view

    async def reached(self, revision, *, timeout_s=5.0):
        return


class FakeWriter:
    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.guards: list[int] = []
        self.error: Exception | None = None

    async def commit(self, guards, writes, *, confirm):
        if self.error is not None:
            raise self.error
        assert confirm[0] == writes[0].key
        marks = [values.decode_deleted(write.value) for write in writes]
        assert all(mark.purging and mark.op_id == confirm[1] for mark in marks)
        self.batches.append([mark.ve.uid for mark in marks])
        self.guards += [guard.mod_revision for guard in guards]
        return 9


def view_of(**purge_at):
    return make_view(deleted=[make_deleted(uid, purge_at=at) for uid, at in purge_at.items()])


def purger(view, clock=None):
    writer = FakeWriter()
    made = Purging(FakeMirror(view), writer, clock or ManualClock(), new_op_id=lambda: "op")
    return made, writer


def test_what_is_due_comes_oldest_first_and_once():
    view = view_of(a=30.0, b=10.0, c=10.0, later=31.0)
    view.deleted[Uid("done")] = make_view(
        deleted=[make_deleted("done", purge_at=1.0, purging=True)]
    ).deleted[Uid("done")]
    assert [held.value.ve.uid for held in due(view, 30.0)] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("purge_at", "seconds"),
    [
        ({}, purging.LONGEST_S),
        ({"a": 105.0}, 5.0),
        ({"a": 105.0, "b": 103.0}, 3.0),
        ({"a": 1e9}, purging.LONGEST_S),
        ({"a": 100.0}, purging.SHORTEST_S),
        ({"a": -1e9}, purging.SHORTEST_S),
    ],
)
def test_the_next_look_is_when_one_is_due_within_limits(purge_at, seconds):
    assert next_look_s(view_of(**purge_at), 100.0) == seconds


async def test_what_is_due_is_marked_in_batches_guarded_by_its_revision():
    view = view_of(**{f"u{index:03}": 0.0 for index in range(purging.BATCH + 1)})
    made, writer = purger(view)
    await made.purge_once()
    assert [len(batch) for batch in writer.batches] == [purging.BATCH, 1]
    assert set(writer.guards) == {5}


@pytest.mark.parametrize("error", [LostRace([]), Unavailable("away")])
async def test_what_could_not_be_marked_is_due_again(error):
    made, writer = purger(view_of(a=0.0))
    writer.error = error
    await made.purge_once()
    writer.error = None
    await made.purge_once()
    assert writer.batches == [["a"]]


async def test_who_does_not_lead_purges_nothing():
    made, writer = purger(view_of(a=0.0))
    writer.error = NotLeader("not ours")
    with pytest.raises(NotLeader):
        await made.run()


@asynccontextmanager
async def running(made):
    task = asyncio.create_task(made.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_time_alone_makes_it_due():
    clock = ManualClock()
    made, writer = purger(view_of(a=clock.wall() + 25.0), clock)
    async with running(made):
        for _ in range(2):
            await clock.advance(10.0)
        assert writer.batches == []
        await clock.advance(10.0)
        await eventually(lambda: bool(writer.batches))


async def test_nothing_is_purged_of_a_restored_store_that_nobody_confirmed():
    view = view_of(u1=1.0)
    view.cluster = held(Cluster(name="rack", incarnation=2))
    marks, writer = purger(view)
    await marks.purge_once()
    assert writer.batches == []
    view.cluster = held(Cluster(name="rack", incarnation=2, confirmed_incarnation=2))
    await marks.purge_once()
    assert writer.batches == [["u1"]]
