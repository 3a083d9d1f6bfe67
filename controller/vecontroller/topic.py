"""Wakes those who follow the cluster. A subscriber that is slow gets one merged `Changed`, never a queue that grows."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from veapi.clock import Clock
from vecontroller.view import Changed


def merge(first: Changed, second: Changed) -> Changed:
    """Both, as one."""
    return Changed(
        revision=max(first.revision, second.revision),
        ves=first.ves | second.ves,
        hosts=first.hosts | second.hosts,
        placed=first.placed | second.placed,
        images=first.images or second.images,
        projects=first.projects or second.projects,
        groups=first.groups | second.groups,
        relisted=first.relisted or second.relisted,
    )


class Subscription:
    """Holds what changed since the last `next`."""

    def __init__(self) -> None:
        self._pending: Changed | None = None
        self._wake = asyncio.Event()

    def offer(self, changed: Changed) -> None:
        self._pending = changed if self._pending is None else merge(self._pending, changed)
        self._wake.set()

    async def next(self) -> Changed:
        """Waits for a change; all that came meanwhile is merged into it."""
        await self._wake.wait()
        self._wake.clear()
        changed, self._pending = self._pending, None
        assert changed is not None
        return changed

    async def next_within(self, clock: Clock, seconds: float) -> Changed | None:
        """As `next`; None when nothing came for so long. No change is lost, and no cancellation."""
        waits = (asyncio.ensure_future(self.next()), asyncio.ensure_future(clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return None if waits[0].cancelled() else waits[0].result()


class Topic:
    """Everything that may change what somebody sees or decides: store, refusals of the scheduler, heartbeats."""

    def __init__(self) -> None:
        self._subscriptions: dict[Subscription, None] = {}
        """In the order in which they came, and so told: the same in each run."""

    def publish(self, changed: Changed) -> None:
        for subscription in self._subscriptions:
            subscription.offer(changed)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        subscription = Subscription()
        self._subscriptions[subscription] = None
        try:
            yield subscription
        finally:
            self._subscriptions.pop(subscription, None)
