"""What a user asks of a VE, as values: what `create` and manifests give to the client."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A VE to be. What is left empty or 0 is a default of a new VE, and kept of one that is there; an empty project is the context's.

    `given`: names of fields here that count also when they are empty or 0. Units: as in `veapi.model.Limits`.
    """

    name: str
    image: str = ""
    project: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    pids: int = 0
    run: str = ""
    ip: str = ""
    host: str = ""
    on_host_loss: str = ""
    cpu_weight: int = 0
    swap_bytes: int = 0
    io_weight: int = 0
    io_read_bps: int = 0
    io_write_bps: int = 0
    net_in_bps: int = 0
    net_out_bps: int = 0
    snapshot_schedule: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    tolerate: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    priority: int = 0
    given: frozenset[str] = frozenset()

    def spec(self) -> dict[str, object]:
        """The fields of the spec, by the names that they have on the wire."""
        found = {
            each.name: getattr(self, each.name) for each in fields(self) if each.name not in _BESIDE
        }
        return wire(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedGroup:
    """A group to be. What is None or empty is a default of a new group, and kept of one that is there.

    `template`: what counts are its labels and spec.
    """

    name: str
    template: Wanted
    project: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    replicas: int | None = None
    max_unavailable: str = ""
    min_ready_s: float | None = None
    progress_deadline_s: float | None = None
    paused: bool | None = None


_BESIDE = ("name", "project", "labels", "given")


def wire(values: Mapping[str, object]) -> dict[str, object]:
    """Fields of a spec by the names that they have on the wire, where a cpu is in cores."""
    found = dict(values)
    if "cpu_millis" in found:
        millis = found.pop("cpu_millis")
        assert isinstance(millis, int)
        found["cpu"] = millis / 1000
    return found


def wire_names(names: frozenset[str]) -> list[str]:
    return sorted("cpu" if name == "cpu_millis" else name for name in names)
