import asyncio

import pytest

from kit.eventually import eventually
from kit.manualclock import ManualClock
from veapi.errors import Denied, Unavailable
from veapi.model import HostName
from veapi.v1 import session_pb2
from vecontroller import relay
from vecontroller.flow import Flow
from vecontroller.relay import RELAYS_PER_HOST, Relays

H1 = HostName("h1")
FIRST = session_pb2.RelayDown(uid="u1", logs=session_pb2.RelayLogs(follow=True))


class Agent:
    """The host's end: dials back when it is asked to."""

    def __init__(self):
        self.asked: asyncio.Queue[tuple[HostName, bytes]] = asyncio.Queue()
        self.connected = True
        numbers = iter(range(1000))
        self.relays = Relays(
            self.tell, ManualClock(), new_ticket=lambda: next(numbers).to_bytes(16, "big")
        )

    def tell(self, host, message):
        if self.connected:
            self.asked.put_nowait((host, message.dial_back.ticket))
        return self.connected

    async def dial(self, ticket=None, host=H1):
        """The stream down, and a queue of what goes up (None: the end)."""
        up: asyncio.Queue[session_pb2.RelayUp | None] = asyncio.Queue()
        up.put_nowait(session_pb2.RelayUp(ticket=ticket or (await self.asked.get())[1]))

        async def requests():
            while (message := await up.get()) is not None:
                yield message

        return self.relays.serve(host, requests()), up


@pytest.fixture
def agent():
    return Agent()


async def opened(agent):
    opening = asyncio.create_task(agent.relays.open(H1, FIRST))
    down, up = await agent.dial()
    assert await anext(down) == FIRST
    return await opening, down, up


async def test_frames_go_both_ways(agent):
    pipe, down, up = await opened(agent)
    await pipe.send(session_pb2.RelayDown(chunk=b"x"))
    assert (await anext(down)).chunk == b"x"
    up.put_nowait(session_pb2.RelayUp(log=b"y"))
    assert (await pipe.receive()).log == b"y"
    await down.aclose()


async def test_the_end_of_the_host_reaches_the_person_after_the_last_frame(agent):
    pipe, down, up = await opened(agent)
    up.put_nowait(session_pb2.RelayUp(log=b"last"))
    up.put_nowait(None)
    assert (await pipe.receive()).log == b"last"
    assert await pipe.receive() is None
    assert await anext(down, None) is None
    assert agent.relays.open_count() == 0


async def test_a_host_that_breaks_off_is_an_error_for_the_person(agent):
    pipe, down, _up = await opened(agent)
    await down.aclose()
    with pytest.raises(Unavailable, match="broke"):
        await pipe.receive()
    assert agent.relays.open_count() == 0


async def test_closing_ends_the_hosts_stream_after_what_was_sent(agent):
    pipe, down, _up = await opened(agent)
    await pipe.send(session_pb2.RelayDown(end=True))
    pipe.close()
    pipe.close()
    assert (await anext(down)).end
    assert await anext(down, None) is None
    assert agent.relays.open_count() == 0


async def test_with_its_ticket_a_host_that_reads_no_more_sees_the_end(agent):
    opening = asyncio.create_task(agent.relays.open(H1, FIRST))
    _host, ticket = await agent.asked.get()
    down, _ = await agent.dial(ticket)
    await anext(down)
    pipe = await opening
    watching = asyncio.create_task(anext((await agent.dial(ticket))[0], None))
    await eventually(lambda: pipe.watched)
    await pipe.send(session_pb2.RelayDown(chunk=b"never read"))
    assert not watching.done()
    pipe.close()
    assert await watching is None
    late, _ = await agent.dial(ticket)
    with pytest.raises(Denied):
        await anext(late)
    await down.aclose()


async def test_a_ticket_is_for_one_host_and_one_use(agent):
    opening = asyncio.create_task(agent.relays.open(H1, FIRST))
    _host, ticket = await agent.asked.get()
    stranger, _ = await agent.dial(ticket, host=HostName("h2"))
    with pytest.raises(Denied):
        await anext(stranger)
    down, _ = await agent.dial(ticket)
    assert await anext(down) == FIRST
    pipe = await opening
    for host in ("h2", "h1"):  # the stream's own host may only wait for its end, and that once
        again, _ = await agent.dial(ticket, host=HostName(host))
        waiting = asyncio.create_task(anext((await agent.dial(ticket))[0], None))
        await eventually(lambda: pipe.watched)
        with pytest.raises(Denied):
            await anext(again)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await down.aclose()


async def test_of_two_that_dial_with_one_ticket_at_once_one_gets_the_stream(agent):
    opening = asyncio.create_task(agent.relays.open(H1, FIRST))
    _host, ticket = await agent.asked.get()
    streams = [(await agent.dial(ticket))[0] for _ in range(2)]
    dialled = [asyncio.create_task(anext(stream, None)) for stream in streams]
    pipe = await opening
    await eventually(lambda: pipe.watched)
    pipe.close()
    found = await asyncio.gather(*dialled)
    assert sorted(each is None for each in found) == [False, True]
    for stream in streams:
        await stream.aclose()


async def test_a_made_up_ticket_is_denied(agent):
    down, _ = await agent.dial(b"\7" * 16)
    with pytest.raises(Denied):
        await anext(down)


async def test_a_host_that_does_not_dial_back_is_unavailable(agent, monkeypatch):
    monkeypatch.setattr(relay, "DIAL_BACK_WITHIN_S", 0.01)
    with pytest.raises(Unavailable, match="did not open the stream") as caught:
        await agent.relays.open(H1, FIRST)
    assert "vectl host show h1" in caught.value.hint
    assert agent.relays.open_count() == 0
    late, _ = await agent.dial()
    with pytest.raises(Denied):
        await anext(late)


async def test_a_host_without_session_is_unavailable_at_once(agent):
    agent.connected = False
    with pytest.raises(Unavailable, match="not connected"):
        await agent.relays.open(H1, FIRST)
    assert agent.relays.open_count() == 0


async def test_a_host_has_a_limit_of_streams(agent):
    opening = [asyncio.create_task(agent.relays.open(H1, FIRST)) for _ in range(RELAYS_PER_HOST)]
    await eventually(lambda: agent.relays.open_count() == RELAYS_PER_HOST)
    with pytest.raises(Unavailable, match="limit"):
        await agent.relays.open(H1, FIRST)
    for task in opening:
        task.cancel()
    await asyncio.gather(*opening, return_exceptions=True)
    assert agent.relays.open_count() == 0


async def test_a_full_direction_makes_its_sender_wait():
    flow: Flow[session_pb2.RelayDown] = Flow(10)
    await flow.put(session_pb2.RelayDown(chunk=b"x" * 100))
    waiting = asyncio.create_task(flow.put(session_pb2.RelayDown(chunk=b"y")))
    await ManualClock.settle()
    assert not waiting.done()
    await flow.get()
    await waiting


async def test_ending_releases_a_sender_that_waits():
    flow: Flow[session_pb2.RelayDown] = Flow(10)
    await flow.put(session_pb2.RelayDown(chunk=b"x" * 100))
    waiting = asyncio.create_task(flow.put(session_pb2.RelayDown(chunk=b"y")))
    await ManualClock.settle()
    flow.end()
    with pytest.raises(Unavailable):
        await waiting
    first = await flow.get()
    assert first is not None
    assert first.chunk == b"x" * 100
    assert await flow.get() is None
