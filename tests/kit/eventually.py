"""Waiting for a condition, with a deadline."""

import asyncio
import itertools
import time
from collections.abc import Callable

_AT_ONCE = 50
"""So many looks only give way to others: in memory all is done by then."""


async def eventually(predicate: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Returns once `predicate()` is true; AssertionError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    for look in itertools.count():
        if predicate():
            return
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
        await asyncio.sleep(0 if look < _AT_ONCE else 0.01)
