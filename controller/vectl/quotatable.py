"""What projects have and may have, for people."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from veapi.units import format_cpu, format_size

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import Project

RESOURCES = ("ves", "cpu_millis", "memory_bytes", "disk_bytes", "addresses", "snapshots")
UNLIMITED = "none"


@dataclass(frozen=True, slots=True)
class Row:
    """One resource. `quota` 0: without a limit."""

    field: str
    used: int
    quota: int

    @property
    def name(self) -> str:
        return self.field.partition("_")[0]

    @property
    def above(self) -> bool:
        return bool(self.quota) and self.used > self.quota

    def shown(self, amount: int) -> str:
        if self.field == "cpu_millis":
            return format_cpu(amount)
        return format_size(amount) if self.field.endswith("_bytes") else str(amount)

    def limit(self) -> str:
        return self.shown(self.quota) if self.quota else UNLIMITED


def rows(project: "Project") -> list[Row]:
    return [
        Row(field, getattr(project.usage, field), getattr(project.quota, field))
        for field in RESOURCES
    ]


def cell(project: "Project", field: str) -> str:
    """E.g. `12G/16G`, or `12G` without a limit."""
    row = Row(field, getattr(project.usage, field), getattr(project.quota, field))
    return f"{row.shown(row.used)}/{row.limit()}" if row.quota else row.shown(row.used)
