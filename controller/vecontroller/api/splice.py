"""Ends of a stream to a host: what a person sends is fed in beside what comes back, and both end together."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

from veapi.errors import RemoteFailed, VerackError
from vecontroller.api.ports import Pipe


@asynccontextmanager
async def feeding(pipe: Pipe, feed: Coroutine[None, None, None] | None) -> AsyncIterator[None]:
    """Runs `feed` within the block and closes the pipe after it.

    When the feed fails, the pipe is closed with that error, so that `receive` raises it.
    """
    task = asyncio.create_task(_feed(pipe, feed)) if feed is not None else None
    try:
        yield
    finally:
        pipe.close()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _feed(pipe: Pipe, feed: Coroutine[None, None, None]) -> None:
    try:
        await feed
    except VerackError as error:
        pipe.close(error)
    except Exception:
        pipe.close(RemoteFailed("what was sent could not be passed on", hint="try again"))
        raise


def ended_early(host: str) -> RemoteFailed:
    return RemoteFailed(
        f"host {host} ended the stream before it was done",
        hint=f"try again; the log of veagent on {host} may say why",
    )
