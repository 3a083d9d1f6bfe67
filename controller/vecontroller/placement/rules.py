"""What the configuration says of placement: how much of a host VEs may have, and whether they are spread or packed."""

from collections.abc import Mapping

from veapi import selector
from veapi.model import HostFacts, Resources, Value
from vecontroller.placement.model import Strategy


class HostClass(Value, frozen=True, kw_only=True):
    """Of hosts whose labels `match` selects. VEs may have `overcommit` times what is left without `reserve`.

    `overcommit`: cpu, memory, disk and pids by name; 1 where it says nothing.
    """

    match: str = ""
    overcommit: Mapping[str, float] = {}
    reserve: Resources = Resources()

    def room(self, capacity: Resources) -> Resources:
        """Of a host of that capacity; never below 0."""
        return Resources(
            cpu_millis=self._of("cpu", capacity.cpu_millis - self.reserve.cpu_millis),
            memory_bytes=self._of("memory", capacity.memory_bytes - self.reserve.memory_bytes),
            disk_bytes=self._of("disk", capacity.disk_bytes - self.reserve.disk_bytes),
            pids=self._of("pids", capacity.pids - self.reserve.pids),
        )

    def _of(self, name: str, left: int) -> int:
        return int(max(left, 0) * self.overcommit.get(name, 1.0))


class Rules(Value, frozen=True, kw_only=True):
    """The first class that matches a host is its class; none: VEs may have all of it. `projects`: where another strategy holds."""

    strategy: Strategy = Strategy.SPREAD
    projects: Mapping[str, Strategy] = {}
    classes: tuple[HostClass, ...] = ()

    def room(self, facts: HostFacts) -> Resources:
        """What VEs may have of the host in all."""
        for each in self.classes:
            if selector.terms(each.match)(facts.labels):
                return each.room(facts.capacity)
        return facts.capacity

    def strategy_of(self, project: str) -> Strategy:
        return self.projects.get(project, self.strategy)


PLAIN = Rules()
