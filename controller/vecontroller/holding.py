"""What writes on their way will take, so that they don't take it from each other.

The store decides about keys; this is for what it can't decide (room on a host), and spares races for what it can (addresses).
What a write of unknown outcome would have taken stays held for a while: it may still come about.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from veapi.clock import Clock
from veapi.errors import Conflict, TimedOut
from veapi.model import HostName, ProjectAmounts, Resources
from vecontroller import quota
from vecontroller.store.port import Ambiguous

UNKNOWN_HELD_S = 60.0
"""Longer than a write to the store can be under way."""
T = TypeVar("T")


@dataclass(slots=True)
class _Taken(Generic[T]):
    what: T
    until: float = float("inf")


class Holding(Generic[T]):
    """In memory only: of this leader's writes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._taken: list[_Taken[T]] = []

    def live(self) -> list[T]:
        """What is held now."""
        now = self._clock.boot()
        self._taken = [taken for taken in self._taken if taken.until > now]
        return [taken.what for taken in self._taken]

    @contextmanager
    def holding(self, what: T) -> Iterator[None]:
        """Held within it; after an outcome that nobody knows for 60 s more."""
        taken = _Taken(what)
        self._taken.append(taken)
        try:
            yield
        except (Ambiguous, TimedOut, asyncio.CancelledError):
            taken.until = self._clock.boot() + UNKNOWN_HELD_S
            raise
        except BaseException:
            self._taken.remove(taken)
            raise
        self._taken.remove(taken)


class Reserved:
    """What VEs are about to take: growing and returning ones room on hosts, which the scheduler reckons with; all of a quota."""

    def __init__(self, clock: Clock) -> None:
        self._holding: Holding[tuple[HostName, Resources]] = Holding(clock)
        self._asked: Holding[tuple[str, ProjectAmounts]] = Holding(clock)
        self._leaving: Holding[str] = Holding(clock)

    def on(self, host: HostName) -> list[Resources]:
        return [amount for at, amount in self._holding.live() if at == host]

    def all(self) -> list[tuple[HostName, Resources]]:
        return self._holding.live()

    @contextmanager
    def holding(self, host: HostName, amount: Resources) -> Iterator[None]:
        """Within it nobody else gets that room."""
        with self._holding.holding((host, amount)):
            yield

    def asked(self, project: str) -> ProjectAmounts:
        """What writes on their way add to what the project has."""
        total = quota.NOTHING
        for name, more in self._asked.live():
            if name == project:
                total = quota.added(total, more)
        return total

    @contextmanager
    def asking(self, project: str, more: ProjectAmounts) -> Iterator[None]:
        """Within it nobody else gets that part of the quota, and the project stays. Conflict when it is being deleted."""
        if project in self._leaving.live():
            raise Conflict(f"project {project} is being deleted", hint="use another one")
        with self._asked.holding((project, more)):
            yield

    @contextmanager
    def leaving(self, project: str) -> Iterator[None]:
        """Within it nothing comes into the project. Conflict when something may be on its way into it."""
        if any(name == project for name, _ in self._asked.live()):
            raise Conflict(
                f"something is being made in project {project}", hint="try again in a moment"
            )
        with self._leaving.holding(project):
            yield
