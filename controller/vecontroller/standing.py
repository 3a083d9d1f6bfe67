"""Whether this controller leads, and who does if not: one place that all calls ask."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from vecontroller.calls import Context, refuse
from vecontroller.leader import Leadership, NotLeader

_KINDS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Standing:
    """`ready`: we lead and our view covers our own leader key, so that we may serve."""

    def __init__(self) -> None:
        self.leadership: Leadership | None = None
        self.leader_address = ""
        """host:port of the leader as it was last seen, for those who ask us instead."""
        self.ready = False

    @property
    def leader(self) -> str:
        """host:port of whom others should ask; empty when it is not known."""
        if self.leadership is not None and self.leadership.deposed:
            return self.leadership.successor
        return self.leader_address

    @property
    def serving(self) -> bool:
        return self.ready and self.leadership is not None and not self.leadership.deposed

    @property
    def healthy(self) -> bool:
        """Leads and serves, or waits to lead."""
        return self.serving if self.ready else True

    @property
    def epoch(self) -> int:
        return self.leadership.epoch if self.leadership is not None else 0

    @property
    def incarnation(self) -> int:
        return self.leadership.incarnation if self.leadership is not None else 0

    def term(self) -> Leadership:
        """Raises NotLeader."""
        if self.leadership is None:
            raise self.refusal()
        return self.leadership

    def refusal(self) -> NotLeader:
        if self.leader:
            return NotLeader(
                "this controller does not lead", hint=f"the leader is at {self.leader}"
            )
        return NotLeader("no controller leads yet", hint="try again in a few seconds")


class Gate(grpc.aio.ServerInterceptor):
    """Answers every call with "ask the leader" while this controller does not lead."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """See grpc.aio."""
        handler = await continuation(handler_call_details)
        if handler is None or self._standing.serving:
            return handler

        async def closed(_request: object, context: Context) -> None:
            standing = self._standing
            await refuse(context, standing.refusal(), leader=standing.leader)

        make = _KINDS[handler.request_streaming, handler.response_streaming]
        return make(
            closed,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
