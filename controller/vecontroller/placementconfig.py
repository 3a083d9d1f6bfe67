"""[placement] of controller.toml: spread or pack, and how much of which hosts VEs may have."""

import msgspec

from veapi import selector, validate
from veapi.errors import InvalidInput
from veapi.model import Resources
from veapi.units import parse_cpu, parse_size
from vecontroller.placement import HostClass, Rules, Strategy

LEAST_RATIO, MOST_RATIO = 0.1, 100.0


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the parts."""


class RatioSection(_Section, frozen=True, kw_only=True):
    """How often each resource may be given away."""

    cpu: float = 1.0
    memory: float = 1.0
    disk: float = 1.0
    pids: float = 1.0


class ReserveSection(_Section, frozen=True, kw_only=True):
    """What the host keeps for itself, in the words of `veapi.units`."""

    cpu: str | float = 0
    memory: str | int = 0
    disk: str | int = 0
    pids: int = 0


class ClassSection(_Section, frozen=True, kw_only=True):
    """Of the hosts that a selector selects; the first class of the file that does."""

    hosts: str
    overcommit: RatioSection = RatioSection()
    reserve: ReserveSection = ReserveSection()


class PlacementSection(_Section, frozen=True, kw_only=True):
    """`projects`: strategies of projects that have another one."""

    strategy: Strategy = Strategy.SPREAD
    projects: dict[str, Strategy] = {}
    classes: dict[str, ClassSection] = {}

    @property
    def rules(self) -> Rules:
        """InvalidInput names the field."""
        for name in self.projects:
            validate.name("placement.projects", name)
        return Rules(
            strategy=self.strategy,
            projects=self.projects,
            classes=tuple(_class(each, name) for name, each in self.classes.items()),
        )


def _class(section: ClassSection, name: str) -> HostClass:
    field = f"placement.classes.{name}"
    ratios = msgspec.structs.asdict(section.overcommit)
    for resource, ratio in ratios.items():
        if not LEAST_RATIO <= ratio <= MOST_RATIO:
            raise InvalidInput(
                f"{field}.overcommit.{resource}: {ratio:g} is not from {LEAST_RATIO:g} to {MOST_RATIO:g}",
                hint="1 gives away what is there, 4 gives it away four times",
            )
    try:
        match = str(selector.terms(section.hosts))
    except InvalidInput as error:
        raise InvalidInput(f"{field}.hosts: {error.message}", hint=error.hint) from None
    return HostClass(match=match, overcommit=ratios, reserve=_reserve(section.reserve, field))


def _reserve(section: ReserveSection, field: str) -> Resources:
    if section.pids < 0:
        raise InvalidInput(
            f"{field}.reserve.pids: {section.pids} is below 0", hint="write e.g. 500"
        )
    return Resources(
        cpu_millis=parse_cpu(section.cpu, field=f"{field}.reserve.cpu"),
        memory_bytes=parse_size(section.memory, field=f"{field}.reserve.memory"),
        disk_bytes=parse_size(section.disk, field=f"{field}.reserve.disk"),
        pids=section.pids,
    )
