"""Wakes those who follow the cluster. A subscriber that is slow gets one merged `Changed`, never a queue that grows."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

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
