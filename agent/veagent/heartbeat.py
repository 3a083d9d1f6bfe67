"""Heartbeats on a stream of their own: an answer means that the controller still led after it got ours.

So the host may count on its lease from the moment at which it *sent* the last heartbeat that was answered, by the
boot clock. No VE of policy `stay` is stopped by it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc.aio

from veagent.wire import write
from veapi.clock import Clock
from veapi.errors import Unavailable
from veapi.groups import TaskGroup
from veapi.model import Timing
from veapi.v1 import session_pb2, session_pb2_grpc

if TYPE_CHECKING:
    Call = grpc.aio.StreamStreamCall[session_pb2.HeartbeatUp, session_pb2.HeartbeatDown]

WRITE_LIMIT_S = 5.0
_KEPT = 64


class Lease:
    """Outlives sessions: when the last answered heartbeat was sent. `told`: called with that time at each answer."""

    def __init__(self, clock: Clock, *, told: Callable[[float], None] = lambda _sent: None) -> None:
        self._clock = clock
        self._told = told
        self._answered_sent: float | None = None

    def answered(self, sent: float) -> None:
        """A heartbeat that was sent at boot time `sent` has been answered."""
        if self._answered_sent is None or sent > self._answered_sent:
            self._answered_sent = sent
        self._told(sent)

    def age_s(self) -> float:
        """Seconds since the last answered heartbeat was sent; infinite before the first."""
        if self._answered_sent is None:
            return float("inf")
        return self._clock.boot() - self._answered_sent

    def fresh(self, timing: Timing) -> bool:
        """Whether the host may still act for VEs that may not run twice."""
        return self.age_s() < timing.fence_after_s


async def beat(
    stub: "session_pb2_grpc.AgentServiceAsyncStub", lease: Lease, timing: Timing, clock: Clock
) -> None:
    """Until the stream breaks, which raises. Unavailable when a heartbeat can't be sent for 5 s."""
    call: Call = stub.Heartbeat()
    sent: dict[int, float] = {}
    try:
        async with TaskGroup() as group:
            group.create_task(_send(call, sent, timing, clock))
            group.create_task(_receive(call, sent, lease))
    finally:
        call.cancel()


async def _send(call: "Call", sent: dict[int, float], timing: Timing, clock: Clock) -> None:
    seq = 0
    while True:
        seq += 1
        sent[seq] = clock.boot()
        sent.pop(seq - _KEPT, None)
        await write(call, session_pb2.HeartbeatUp(seq=seq), timeout_s=WRITE_LIMIT_S)
        await clock.sleep(timing.heartbeat_s)


async def _receive(call: "Call", sent: dict[int, float], lease: Lease) -> None:
    while True:
        message = await call.read()
        if not isinstance(message, session_pb2.HeartbeatDown):
            raise Unavailable("the controller ended the heartbeats")
        when = sent.get(message.seq)
        if when is not None:
            lease.answered(when)
