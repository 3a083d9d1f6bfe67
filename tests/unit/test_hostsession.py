import asyncio

import pytest
import structlog

from kit.manualclock import ManualClock
from veapi import codec
from veapi.errors import Conflict, Unavailable
from veapi.model import HostName, HostSet, Order, PeerHost
from veapi.v1 import session_pb2
from vecontroller.hostsession import ACK_WITHIN_S, QUEUE_LIMIT, HostSession, Roster

ACK = session_pb2.SessionDown(report_ack=session_pb2.ReportAck(seq=1))


class Wishes:
    """The set that a host shall have, as a test changes it."""

    def __init__(self):
        self.revision = 1
        self.peer = "h2"

    def change(self, peer):
        self.peer, self.revision = peer, self.revision + 1

    def build(self):
        order = Order(incarnation=1, epoch=1, revision=self.revision)
        return HostSet(order=order, entries=(), peers=(PeerHost(name=self.peer, address="a"),))


@pytest.fixture
def wishes():
    return Wishes()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def session(wishes, clock):
    return HostSession(HostName("h1"), wishes.build, clock)


@pytest.fixture
async def stream(session):
    found = session.outgoing()
    yield found
    await found.aclose()


async def nothing(stream):
    """Asserts that nothing is sent now; the stream can be asked on."""
    waiting = asyncio.ensure_future(anext(stream))
    await ManualClock.settle()
    assert not waiting.done()
    return waiting


async def given_up(waiting):
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


def peers(message):
    return [peer.name for peer in message.set.peers]


async def test_the_set_comes_at_once(stream):
    assert peers(await anext(stream)) == ["h2"]


async def test_while_a_set_is_under_way_no_other_is_sent_then_only_the_newest(
    session, stream, wishes
):
    first = await anext(stream)
    for peer in ("h3", "h4", "h5"):
        wishes.change(peer)
        session.set_may_have_changed()
    waiting = await nothing(stream)
    session.set_acked(Order(incarnation=1, epoch=1, revision=first.set.order.revision))
    assert peers(await waiting) == ["h5"]


async def test_a_host_that_holds_a_newer_set_than_ours_is_told_loudly(session, stream):
    first = await anext(stream)
    with structlog.testing.capture_logs() as logs:
        session.set_acked(Order(incarnation=1, epoch=1, revision=first.set.order.revision + 1))
    assert [(each["log_level"], each["host"]) for each in logs] == [("error", session.host)]
    assert "set back" in logs[0]["hint"]


async def test_the_acknowledgement_of_our_own_set_is_no_reason_for_alarm(session, stream):
    first = await anext(stream)
    with structlog.testing.capture_logs() as logs:
        session.set_acked(codec.order_in(first.set.order))
    assert not logs


async def test_an_acknowledgement_of_an_older_set_does_not_count(session, stream, wishes):
    await anext(stream)
    wishes.change("h3")
    session.set_may_have_changed()
    waiting = await nothing(stream)
    session.set_acked(Order(incarnation=1, epoch=0, revision=9))
    await ManualClock.settle()
    assert not waiting.done()
    await given_up(waiting)


async def test_the_same_wishes_are_not_sent_again(session, stream, wishes):
    first = await anext(stream)
    session.set_acked(Order(incarnation=1, epoch=1, revision=first.set.order.revision))
    wishes.change("h2")
    session.set_may_have_changed()
    await given_up(await nothing(stream))


async def test_a_set_that_is_never_acknowledged_is_followed_by_the_next_in_the_end(
    session, stream, wishes, clock
):
    await anext(stream)
    wishes.change("h3")
    clock.jump(ACK_WITHIN_S)
    session.set_may_have_changed()
    assert peers(await anext(stream)) == ["h3"]


async def test_other_messages_do_not_wait_for_the_set(session, stream):
    await anext(stream)
    session.tell(ACK)
    assert await anext(stream) == ACK


async def test_an_agent_that_reads_nothing_loses_its_session(session, stream):
    for _ in range(QUEUE_LIMIT + 1):
        session.tell(ACK)
    with pytest.raises(Unavailable, match="does not read"):
        async for _ in stream:
            pass


async def test_a_newer_session_of_the_same_host_ends_the_older(wishes, clock):
    roster = Roster()
    older, newer = (HostSession(HostName("h1"), wishes.build, clock) for _ in range(2))
    roster.join(older)
    roster.join(newer)
    with pytest.raises(Conflict, match="newer session"):
        await anext(older.outgoing())
    roster.leave(older)
    assert roster.tell(HostName("h1"), ACK)
    assert roster.all() == [newer]


def test_a_host_without_session_can_not_be_told(wishes, clock):
    assert not Roster().tell(HostName("h9"), ACK)
