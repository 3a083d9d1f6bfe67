"""What the other nouns are made of: identities, words, amounts, events."""

from enum import Enum, StrEnum
from typing import NewType

import msgspec

Uid = NewType("Uid", str)
"""Identity of a VE: a lower-case UUID, safe in paths, argument lists and cgroup names."""


HostName = NewType("HostName", str)


Digest = NewType("Digest", str)
"""`sha256:` and 64 hex digits: the identity of an image (of its uncompressed tar, or of its OCI manifest)."""


EVENTS_KEPT = 20


class Run(StrEnum):
    """What the user wants of a VE."""

    RUNNING = "running"
    STOPPED = "stopped"
    FROZEN = "frozen"


class OnHostLoss(StrEnum):
    """What happens to a VE whose host is lost."""

    STAY = "stay"
    RECREATE = "recreate"


class VEState(StrEnum):
    """State of a VE as an operator reads it. PENDING, UNKNOWN and DELETED are computed, never stored."""

    PENDING = "Pending"
    CREATING = "Creating"
    RUNNING = "Running"
    FROZEN = "Frozen"
    STOPPED = "Stopped"
    DELETING = "Deleting"
    DELETED = "Deleted"
    FAILED = "Failed"
    UNKNOWN = "Unknown"
    MIGRATING = "Migrating"


class HostState(StrEnum):
    """Whether a host's heartbeats arrive. UNKNOWN: not heard of since this controller began to lead."""

    READY = "Ready"
    SILENT = "Silent"
    UNKNOWN = "Unknown"


class EventType(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


class Action(Enum):
    """What a host shall do with a VE of its set."""

    RUN = "run"
    STOP = "stop"
    RELEASE = "release"
    PURGE = "purge"
    FREEZE = "freeze"
    KEEP = "keep"


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all values here: frozen, compared by content, keyword-only."""


class Resources(Value, frozen=True, kw_only=True):
    """An amount of each resource that is placed by."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    pids: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(
            cpu_millis=self.cpu_millis + other.cpu_millis,
            memory_bytes=self.memory_bytes + other.memory_bytes,
            disk_bytes=self.disk_bytes + other.disk_bytes,
            pids=self.pids + other.pids,
        )

    def __or__(self, other: "Resources") -> "Resources":
        """The larger of each."""
        return Resources(
            cpu_millis=max(self.cpu_millis, other.cpu_millis),
            memory_bytes=max(self.memory_bytes, other.memory_bytes),
            disk_bytes=max(self.disk_bytes, other.disk_bytes),
            pids=max(self.pids, other.pids),
        )


class Limits(Value, frozen=True, kw_only=True):
    """All that the kernel holds a VE to. Weights: 0 is the default (cpu: 100 per core; io: 100); rates: 0 is no limit.

    `cpu_weight` 1 to 10000, `io_weight` 1 to 1000; `io_*_bps` in bytes a second, `net_*_bps` in bits a second; `swap_bytes` on
    top of the memory.
    """

    cpu_millis: int = 0
    cpu_weight: int = 0
    memory_bytes: int = 0
    swap_bytes: int = 0
    pids: int = 0
    disk_bytes: int = 0
    io_weight: int = 0
    io_read_bps: int = 0
    io_write_bps: int = 0
    net_in_bps: int = 0
    net_out_bps: int = 0


class Event(Value, frozen=True, kw_only=True):
    """Something that happened to a VE, for people. `at` in Unix seconds."""

    at: float
    type: EventType
    reason: str
    message: str
    host: str = ""
