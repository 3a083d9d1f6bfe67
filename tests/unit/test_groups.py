"""A group that failed leaves its task as it was: the next time limit in it is a time limit."""

import asyncio

import pytest

from veapi.groups import TaskGroup


async def fails() -> None:
    await asyncio.sleep(0)
    raise ConnectionError


async def failed_group() -> None:
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as group:
            group.create_task(fails())
            group.create_task(asyncio.sleep(60))


async def test_after_a_failed_group_a_time_limit_still_is_one() -> None:
    for _ in range(3):
        await failed_group()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.sleep(60)


async def test_a_failure_of_the_body_leaves_nothing_either() -> None:
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            raise ConnectionError
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as group:
            group.create_task(fails())
            await asyncio.sleep(60)
    assert task.cancelling() == 0


async def test_who_is_cancelled_from_outside_stays_cancelled() -> None:
    async def grouped() -> None:
        async with TaskGroup() as group:
            group.create_task(asyncio.sleep(60))

    task = asyncio.create_task(grouped())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
