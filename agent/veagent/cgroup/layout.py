"""What differs between cgroup v1 and v2, as a Protocol, and the values that both are computed from."""

from typing import Protocol

from veagent.cgroup.usage import Usage
from veapi.errors import Conflict
from veapi.model import Resources

PERIOD_US = 100_000
LEAST_QUOTA_US = 1000
CONTAINER = "ct"
"""LXC's own folder below that of the VE."""

DEVICES = (
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
)
"""What a VE may open: null, zero, full, random, urandom, tty, console, ptmx and ptys. Making nodes harms nobody."""


class Layout(Protocol):
    """One kind of cgroup tree. `group` is a path below the mount point(s), without slashes at its ends."""

    version: int
    freezer: str
    """Absolute mount point of the hierarchy that freezes."""

    def tops(self) -> tuple[str, ...]:
        """Absolute mount points of all hierarchies."""
        ...

    def prepare(self, group: str) -> None:
        """Makes the folder and all above it, so that children can have limits."""
        ...

    def create(self, group: str, limits: Resources) -> None:
        """Makes the folder in every hierarchy and sets limits and devices. Its parent is prepared."""
        ...

    def limit(self, group: str, limits: Resources) -> None: ...

    def usage(self, group: str, oom_kills: int) -> Usage: ...

    def oom_kills(self, group: str) -> dict[str, int] | None:
        """Kills counted by each folder, by its path; None when nothing can have changed since the last call."""
        ...

    def forget(self, group: str) -> None:
        """Drops what `oom_kills` remembers of it."""
        ...

    def processes(self, group: str) -> str:
        """Path of a cgroup.procs file that holds the group's own processes."""
        ...

    def frozen(self, group: str) -> bool: ...

    def thaw(self, group: str) -> None: ...

    def thaw_folder(self, folder: str) -> None:
        """The same by an absolute path below `freezer`."""
        ...


def quota_us(limits: Resources) -> int:
    """CPU time in each period of 100 ms; -1 for no limit. The kernel takes 1 ms at least."""
    if limits.cpu_millis <= 0:
        return -1
    return max(LEAST_QUOTA_US, limits.cpu_millis * PERIOD_US // 1000)


def does_not_fit(limits: Resources, current_bytes: int) -> Conflict:
    return Conflict(
        f"memory in use ({current_bytes} bytes) does not fit into the new limit of {limits.memory_bytes} bytes",
        hint="free memory inside the VE first, or restart it with the new limit",
    )
