import asyncio

import pytest

from kit.manualclock import ManualClock
from veapi.model import HostName, HostState, Timing
from vecontroller.liveness import SESSION_GRACE_S, TICK_S, Liveness
from vecontroller.topic import Topic

H1 = HostName("h1")
TIMING = Timing()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def topic():
    return Topic()


@pytest.fixture
def liveness(topic, clock):
    return Liveness(topic, clock, timing=lambda: TIMING, revision=lambda: 7)


def test_a_host_that_was_not_heard_of_is_unknown(liveness):
    assert liveness.host_state(H1) is HostState.UNKNOWN
    assert not liveness.connected(H1)
    assert liveness.last_heartbeat(H1) is None


def test_a_host_with_a_session_and_fresh_heartbeats_is_ready(liveness, clock):
    liveness.session_began(H1)
    clock.jump(TIMING.fence_after_s - 0.1)
    liveness.heard(H1)
    clock.jump(TIMING.fence_after_s - 0.1)
    assert liveness.host_state(H1) is HostState.READY
    assert liveness.connected(H1)


def test_a_host_whose_heartbeats_stop_is_silent_though_its_session_lives(liveness, clock):
    liveness.session_began(H1)
    clock.jump(TIMING.fence_after_s)
    assert liveness.host_state(H1) is HostState.SILENT


def test_a_host_that_redials_stays_ready_but_gets_nothing_meanwhile(liveness, clock):
    liveness.session_began(H1)
    liveness.session_ended(H1)
    assert liveness.host_state(H1) is HostState.READY
    assert not liveness.connected(H1)
    clock.jump(SESSION_GRACE_S)
    assert liveness.host_state(H1) is HostState.SILENT


def test_the_end_of_a_replaced_session_does_not_disconnect_the_newer(liveness):
    liveness.session_began(H1)
    liveness.session_began(H1)
    liveness.session_ended(H1)
    assert liveness.connected(H1)


async def test_sessions_and_silence_are_told(liveness, topic, clock):
    with topic.subscribe() as changes:
        liveness.session_began(H1)
        assert (await changes.next()).hosts == {H1}
        running = asyncio.create_task(liveness.run())
        await clock.advance(TIMING.fence_after_s + TICK_S)
        async with asyncio.timeout(5):
            assert (await changes.next()).hosts == {H1}
        assert liveness.host_state(H1) is HostState.SILENT
        running.cancel()


async def test_a_stall_of_the_controller_silences_no_host(liveness, clock):
    liveness.session_began(H1)
    liveness.session_began(HostName("h2"))
    running = asyncio.create_task(liveness.run())
    await clock.advance(TICK_S)
    clock.jump(10 * TIMING.fence_after_s)
    await clock.advance(TICK_S)
    assert liveness.host_state(H1) is HostState.READY
    await clock.advance(TIMING.fence_after_s)
    assert liveness.host_state(H1) is HostState.SILENT
    running.cancel()


async def test_heartbeats_that_change_nothing_wake_nobody(liveness, topic):
    liveness.session_began(H1)
    with topic.subscribe() as changes:
        liveness.heard(H1)
        waiting = asyncio.create_task(changes.next())
        await ManualClock.settle()
        assert not waiting.done()
        waiting.cancel()
