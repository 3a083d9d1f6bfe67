"""What differs between cgroup v1 and v2, as a Protocol, and the values that both are computed from."""

from typing import Protocol

import msgspec

from veagent.cgroup.disk import Disk
from veagent.cgroup.oom import OomNotice
from veagent.cgroup.usage import Usage
from veapi.errors import Conflict
from veapi.model import Limits

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

    def guard_devices(self, group: str) -> None:
        """Has groups below begin with the devices of a VE, so that they need not be told each one."""
        ...

    def create(self, group: str, limits: Limits, disk: Disk | None) -> None:
        """Makes the folder in every hierarchy and sets limits and devices. Its parent is prepared."""
        ...

    def holdable(self, limits: Limits, disk: Disk | None) -> Limits:
        """Without those that it would refuse on this host."""
        ...

    def limit(self, group: str, limits: Limits, disk: Disk | None) -> None:
        """All of them but those of the network and of the disk's size. `disk`: that which the VE's root is on."""
        ...

    def pin(self, group: str, cpus: str) -> None:
        """Sets the processors (a list such as "0,2-3") of the group and of all below, whatever they had."""
        ...

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

    def freeze(self, group: str) -> None:
        """Begins; `still` tells when it is done."""
        ...

    def frozen(self, group: str) -> bool:
        """Nothing can run in it, or will soon, whoever wanted that."""
        ...

    def still(self, group: str) -> bool:
        """All of it stands still."""
        ...

    def suspended(self, group: str) -> bool:
        """It was frozen by `freeze` on this very group: what the VE does itself below does not count."""
        ...

    def thaw(self, group: str) -> None: ...

    def thaw_folder(self, folder: str) -> None:
        """The same by an absolute path below `freezer`."""
        ...

    def oom_notice(self, group: str) -> OomNotice:
        """Becomes readable when the kernel has ended a process of the group for want of memory."""
        ...


def weight_of(limits: Limits) -> int:
    """The weight of the processors, 1 to 10000: what was asked, else 100 for each core."""
    return limits.cpu_weight or min(10_000, max(1, (limits.cpu_millis or 1000) // 10))


def holdable_io(limits: Limits, disk: Disk | None, *, able: bool) -> Limits:
    """The limits without those that `refuse_io` would refuse."""
    rates, weights = able and disk is not None, able and disk is not None and disk.weights
    return msgspec.structs.replace(
        limits,
        io_read_bps=limits.io_read_bps if rates else 0,
        io_write_bps=limits.io_write_bps if rates else 0,
        io_weight=limits.io_weight if weights else 0,
    )


def refuse_io(limits: Limits, disk: Disk | None, *, able: bool) -> None:
    """Conflict when the host can't hold the VE to the asked limits of its disk. `able`: the kernel has the controller."""
    if (limits.io_read_bps or limits.io_write_bps) and (disk is None or not able):
        raise Conflict(
            "this host can't limit io_read and io_write: its pool's disk or the kernel's controller is not there",
            hint="set both to 0, or place the VE on another host",
        )
    if limits.io_weight and not (able and disk is not None and disk.weights):
        raise Conflict(
            "this host's disk has no weights, so io_weight can't be set",
            hint="limit io_read and io_write instead, or have the disk's scheduler set to bfq",
        )


def quota_us(limits: Limits) -> int:
    """CPU time in each period of 100 ms; -1 for no limit. The kernel takes 1 ms at least."""
    if limits.cpu_millis <= 0:
        return -1
    return max(LEAST_QUOTA_US, limits.cpu_millis * PERIOD_US // 1000)


def does_not_fit(limits: Limits, current_bytes: int) -> Conflict:
    return Conflict(
        f"memory in use ({current_bytes} bytes) does not fit into the new limit of {limits.memory_bytes} bytes",
        hint="free memory inside the VE first, or restart it with the new limit",
    )
