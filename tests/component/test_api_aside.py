"""Work in threads beside the loop: of few calls at once, whatever becomes of the callers."""

import asyncio
import contextlib
import threading

import pytest

from kit.eventually import eventually
from veapi.errors import Conflict
from vecontroller.api.aside import Aside


async def test_the_thread_of_a_caller_who_has_gone_counts_until_it_ends() -> None:
    aside, begun, go_on = Aside("plans", at_once=1), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)

    call = asyncio.create_task(aside.run(work))
    try:
        await eventually(begun.is_set)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        with pytest.raises(Conflict, match="1 plans are under way"):
            await aside.run(work)
    finally:
        go_on.set()
    assert call.cancelled()
    for _ in range(1000):
        with contextlib.suppress(Conflict):
            assert await aside.run(lambda: "its turn") == "its turn"
            return
        await asyncio.sleep(0.01)
    pytest.fail("its place was never free again")


async def test_what_the_work_raises_reaches_its_caller_and_frees_its_place() -> None:
    aside = Aside("plans", at_once=1)

    def work() -> None:
        raise Conflict("no", hint="other")

    for _ in range(2):
        with pytest.raises(Conflict, match="no"):
            await aside.run(work)
