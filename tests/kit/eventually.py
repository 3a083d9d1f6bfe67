"""Waiting for a condition, with a deadline."""

import asyncio
import time
from collections.abc import Callable


async def eventually(predicate: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Returns once `predicate()` is true; AssertionError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
        await asyncio.sleep(0.01)
