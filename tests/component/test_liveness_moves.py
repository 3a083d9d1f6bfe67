"""What moving VEs away needs of liveness: silence that counts, and heartbeats that wait for a set."""

import asyncio

import pytest

from kit.manualclock import ManualClock
from veapi.model import HostName, Order, Timing
from vecontroller.liveness import STALL_S, TICK_S, Liveness
from vecontroller.topic import Topic

H1 = HostName("h1")
M = Timing().move_after_s


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def liveness(clock):
    liveness = Liveness(Topic(), clock, timing=Timing, revision=lambda: 7)
    running = asyncio.create_task(liveness.run())
    await clock.settle()
    yield liveness
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_silence_counts_from_the_last_heartbeat(liveness, clock):
    liveness.heard(H1)
    await clock.advance(3.0)
    liveness.heard(H1)
    await clock.advance(M)
    assert liveness.silent_for(H1) == M


async def test_a_new_leader_counts_from_when_it_began_to_lead(clock):
    liveness = Liveness(Topic(), clock, timing=Timing, revision=lambda: 7)
    liveness.heard(H1)
    clock.jump(100.0)
    assert liveness.silent_for(H1) == 0.0
    running = asyncio.create_task(liveness.run())
    await clock.settle()
    await clock.advance(2.0)
    assert liveness.silent_for(H1) == liveness.silent_for(HostName("never heard")) == 2.0
    running.cancel()


async def test_a_leader_that_stood_still_counts_anew_for_every_host(liveness, clock):
    liveness.heard(H1)
    await clock.advance(M - 1)
    clock.jump(TICK_S + STALL_S + 0.1)
    assert liveness.silent_for(H1) == 0.0
    await clock.advance(TICK_S)
    assert liveness.silent_for(H1) < 1.0
    await clock.advance(M)
    assert liveness.silent_for(H1) >= M


async def test_each_return_of_a_host_is_remembered(liveness, clock):
    liveness.heard(H1)
    await clock.advance(9.0)
    liveness.heard(H1)
    await clock.advance(2.0)
    liveness.heard(H1)
    assert liveness.came_back(H1) == (2.0,)
    await clock.advance(3600.0)
    assert liveness.came_back(H1) == ()


async def answered(liveness):
    waiting = asyncio.create_task(liveness.answerable(H1))
    await ManualClock.settle()
    done = waiting.done()
    waiting.cancel()
    return done


async def test_no_heartbeat_is_answered_until_the_host_has_the_set_of_the_move(liveness):
    assert await answered(liveness)
    liveness.hold(H1)
    assert not await answered(liveness)
    liveness.release(H1, revision=20)
    assert not await answered(liveness)
    liveness.set_acked(H1, Order(revision=19))
    assert not await answered(liveness)
    liveness.set_acked(H1, Order(revision=20))
    assert await answered(liveness)


async def test_a_set_that_was_acknowledged_before_the_write_was_known_counts(liveness):
    liveness.hold(H1)
    liveness.set_acked(H1, Order(revision=20))
    liveness.release(H1, revision=20)
    assert await answered(liveness)


async def test_what_was_not_written_after_all_does_not_undo_what_was(liveness):
    liveness.hold(H1)
    liveness.release(H1, revision=20)
    liveness.hold(H1)
    liveness.release(H1, revision=0)
    assert not await answered(liveness)
    liveness.set_acked(H1, Order(revision=21))
    assert await answered(liveness)


async def test_a_move_that_was_not_written_holds_nobody(liveness):
    liveness.hold(H1)
    liveness.release(H1, revision=0)
    assert await answered(liveness)
