"""How calls end: errors to gRPC, and "ask the leader" with its address in the trailing metadata `verack-leader`."""

from typing import Any, NoReturn

import grpc
import grpc.aio

from veapi import rpc
from veapi.errors import VerackError
from vecontroller.leader import NotLeader

LEADER_KEY = "verack-leader"
Context = grpc.aio.ServicerContext[Any, Any]


async def refuse(context: Context, error: VerackError, *, leader: str) -> NoReturn:
    """Ends the call; `leader` (host:port, may be empty) goes along when we are not it: then nothing was done."""
    if isinstance(error, NotLeader):
        metadata = (
            (LEADER_KEY, leader),
            ("verack-kind", error.kind),
            ("verack-hint-bin", error.hint.encode()),
        )
        await context.abort(grpc.StatusCode.UNAVAILABLE, error.message, metadata)
    await rpc.abort(context, error)
