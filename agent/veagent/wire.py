"""Writing to a gRPC stream that may have ended meanwhile."""

import asyncio
from typing import Protocol, TypeVar

from veapi.errors import Unavailable

M_contra = TypeVar("M_contra", contravariant=True)


class Writer(Protocol[M_contra]):
    async def write(self, request: M_contra, /) -> None: ...


async def write(call: Writer[M_contra], message: M_contra, *, timeout_s: float) -> None:
    """Raises AioRpcError when the stream broke, Unavailable when it is over or takes nothing for `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            await call.write(message)
    except TimeoutError:
        raise Unavailable(f"the other side takes nothing for {timeout_s:g} s") from None
    except asyncio.InvalidStateError:
        raise Unavailable("the stream is over") from None
