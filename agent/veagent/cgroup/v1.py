"""cgroup v1 hierarchies, also in the hybrid arrangement with an empty v2 tree beside them."""

import errno
import os
from contextlib import suppress

from veagent.cgroup.cpulist import union
from veagent.cgroup.disk import Disk
from veagent.cgroup.files import VANISHED, Files
from veagent.cgroup.layout import (
    CONTAINER,
    DEVICES,
    PERIOD_US,
    does_not_fit,
    holdable_io,
    quota_us,
    refuse_io,
    weight_of,
)
from veagent.cgroup.oom import EventNotice, OomNotice
from veagent.cgroup.usage import Usage, blkio, limit, table
from veapi.errors import Conflict
from veapi.model import Limits

_TICKS = os.sysconf("SC_CLK_TCK")
NEEDED = ("cpu", "cpuacct", "memory", "pids", "devices", "freezer", "cpuset")
_VMSTAT = "/proc/vmstat"
_QUOTA = "cpu.cfs_quota_us"
_PERIOD = "cpu.cfs_period_us"
_MOST_PINNED = 256
"""Folders of a VE whose processors are changed: each takes some hundred microseconds, in which the agent does nothing else."""
_MOST_COUNTED = 1024
"""Folders of a VE whose kills are counted; what a VE divides further is told as less."""
_MOST_FREED = 4096
"""Folders of a VE whose quotas are looked at when its own gets lower."""
_MEMORY = "memory.limit_in_bytes"
_MEMSW = "memory.memsw.limit_in_bytes"


class V1:
    """One folder per hierarchy for each group."""

    version = 1

    def __init__(self, fs: str, files: Files) -> None:
        self._fs = fs
        self.freezer = f"{fs}/freezer"
        self._files = files
        self._tops = tuple(_hierarchies(fs, files))
        self._memsw = files.exists(f"{fs}/memory/{_MEMSW}")
        self._blkio = files.exists(f"{fs}/blkio")
        self._kills: dict[str, tuple[int, int]] = {}

    def tops(self) -> tuple[str, ...]:
        return self._tops

    def prepare(self, group: str) -> None:
        """Makes the folders. A fresh v1 cpuset has neither CPUs nor memory: ours inherit them from above."""
        for top in self._tops:
            for path in _steps(top, group):
                self._files.mkdir(path)
        for path in _steps(f"{self._fs}/cpuset", group):
            self._inherit_cpuset(path)

    def guard_devices(self, group: str) -> None:
        """Groups below inherit what is allowed here. The kernel takes a denial only while there are none yet."""
        if self._allows_every_device(group):
            with suppress(OSError):
                self._allow_devices(group)

    def _allows_every_device(self, group: str) -> bool:
        return self._get("devices", group, "devices.list").strip() == "a *:* rwm"

    def _allow_devices(self, group: str) -> None:
        self._set("devices", group, "devices.deny", "a")
        for device in DEVICES:
            self._set("devices", group, "devices.allow", device)

    def create(self, group: str, limits: Limits, disk: Disk | None) -> None:
        for top in self._tops:
            self._files.mkdir(f"{top}/{group}")
        if self._allows_every_device(group):
            self._allow_devices(group)
        self.limit(group, limits, disk)

    def holdable(self, limits: Limits, disk: Disk | None) -> Limits:
        return holdable_io(limits, disk, able=self._blkio)

    def limit(self, group: str, limits: Limits, disk: Disk | None) -> None:
        refuse_io(limits, disk, able=self._blkio)
        self._limit_memory(group, limits)
        self._set("cpu", group, "cpu.shares", str(max(2, weight_of(limits) * 1024 // 100)))
        self._limit_quota(group, quota_us(limits))
        self._set("pids", group, "pids.max", str(limits.pids or "max"))
        self._limit_io(group, limits, disk)

    def pin(self, group: str, cpus: str) -> None:
        """A folder's processors are always a part of its parent's: so first all get both, then, bottom up, the new ones."""
        top = f"{self._fs}/cpuset/{group}"
        paths = self._below(top, most=_MOST_PINNED + 1)
        if len(paths) > _MOST_PINNED:
            raise Conflict(
                f"the VE has more than {_MOST_PINNED} cpuset groups of its own, so its processors stay",
                hint="remove some inside the VE, or restart it",
            )
        old = {path: self._cpus_of(path, top) for path in paths}
        if set(old.values()) <= {cpus, None}:
            return
        for path in paths:
            self._pin_folder(path, union(old[top] or "", cpus), top)
        for path in reversed(paths):
            self._pin_folder(path, cpus, top)

    def _below(self, top: str, *, most: int) -> list[str]:
        """The folder and those below it, parents first, no more than `most`."""
        paths = [top]
        for path in paths:
            if len(paths) >= most:
                break
            with suppress(OSError):
                paths += self._files.folders(path)
        return paths[:most]

    def _cpus_of(self, path: str, top: str) -> str | None:
        """None for a folder below `top` that its VE has removed meanwhile."""
        try:
            return self._files.read(f"{path}/cpuset.cpus").strip()
        except OSError as error:
            if path == top or error.errno not in VANISHED:
                raise
            return None

    def _pin_folder(self, path: str, cpus: str, top: str) -> None:
        try:
            self._files.write(f"{path}/cpuset.cpus", cpus)
        except OSError as error:
            if path == top or error.errno not in VANISHED:
                raise

    def usage(self, group: str, oom_kills: int) -> Usage:
        ticks = table(self._get("cpuacct", group, "cpuacct.stat"))
        cpu = table(self._get("cpu", group, "cpu.stat"))
        memory = table(self._get("memory", group, "memory.stat"))
        current = int(self._get("memory", group, "memory.usage_in_bytes"))
        moved, operations = self._io(group)
        return Usage(
            cpu_seconds=int(self._get("cpuacct", group, "cpuacct.usage")) / 1e9,
            cpu_user_seconds=ticks["user"] / _TICKS,
            cpu_system_seconds=ticks["system"] / _TICKS,
            cpu_periods=cpu["nr_periods"],
            cpu_throttled_periods=cpu["nr_throttled"],
            cpu_throttled_seconds=cpu["throttled_time"] / 1e9,
            memory_current_bytes=current,
            memory_limit_bytes=limit(str(memory["hierarchical_memory_limit"])),
            memory_swap_bytes=memory.get("total_swap", 0),
            memory_working_set_bytes=max(0, current - memory["total_inactive_file"]),
            memory_anon_bytes=memory["total_rss"],
            memory_file_bytes=memory["total_cache"],
            oom_kills=oom_kills,
            pids_current=int(self._get("pids", group, "pids.current")),
            pids_limit=limit(self._get("pids", group, "pids.max")),
            pids_refused=self._refused(group) + self._refused(f"{group}/{CONTAINER}"),
            io_read_bytes=moved[0],
            io_write_bytes=moved[1],
            io_reads=operations[0],
            io_writes=operations[1],
        )

    def oom_kills(self, group: str) -> dict[str, int] | None:
        """v1 counts a kill only in the victim's own folder, so all below are read; but only when the machine had a kill.

        The machine's count moves a little before the folder's: so one look more follows the last change. (The counts of
        limits that were hit are no sign: Linux 6.18 leaves memory.failcnt at 0.)
        """
        kills = table(self._files.read(_VMSTAT)).get("oom_kill", 0)
        before, looks = self._kills.get(group, (-1, 0))
        looks = looks + 1 if kills == before else 0
        self._kills[group] = (kills, looks)
        if looks > 1:
            return None
        found: dict[str, int] = {}
        for path in self._below(f"{self._fs}/memory/{group}", most=_MOST_COUNTED):
            with suppress(OSError):
                counted = table(self._files.read(f"{path}/memory.oom_control"))
                found[path] = counted.get("oom_kill", 0)
        return found

    def forget(self, group: str) -> None:
        self._kills.pop(group, None)

    def processes(self, group: str) -> str:
        return f"{self._fs}/pids/{group}/cgroup.procs"

    def freeze(self, group: str) -> None:
        self._set("freezer", group, "freezer.state", "FROZEN")

    def still(self, group: str) -> bool:
        return self._get("freezer", group, "freezer.state").strip() == "FROZEN"

    def suspended(self, group: str) -> bool:
        try:
            return self._get("freezer", group, "freezer.self_freezing").strip() == "1"
        except FileNotFoundError:
            return False

    def oom_notice(self, group: str) -> OomNotice:
        return EventNotice(f"{self._fs}/memory/{group}")

    def frozen(self, group: str) -> bool:
        try:
            return self._get("freezer", group, "freezer.state").strip() != "THAWED"
        except FileNotFoundError:
            return False

    def thaw(self, group: str) -> None:
        self.thaw_folder(f"{self.freezer}/{group}")

    def thaw_folder(self, folder: str) -> None:
        self._files.write(f"{folder}/freezer.state", "THAWED")

    def _limit_quota(self, group: str, new: int) -> None:
        """LXC's folder has the quota too: lxcfs counts processors by it. A folder's may never be above its parent's."""
        old = int(self._get("cpu", group, _QUOTA))
        self._set("cpu", group, _PERIOD, str(PERIOD_US))
        groups = [group, f"{group}/{CONTAINER}"]
        if new != -1 and (old == -1 or new < old):
            self._free_quotas(f"{self._fs}/cpu/{group}/{CONTAINER}", new)
            groups.reverse()
        for each in groups:
            if each == group or self._files.exists(f"{self._fs}/cpu/{each}"):
                self._set("cpu", each, _QUOTA, str(new))

    def _free_quotas(self, top: str, new: int) -> None:
        """Takes away quotas above the new one that the VE has set below: with them the kernel refuses to lower the one above."""
        for path in self._below(top, most=_MOST_FREED)[1:]:
            with suppress(OSError):
                quota = int(self._files.read(f"{path}/{_QUOTA}"))
                if quota * PERIOD_US > new * int(self._files.read(f"{path}/{_PERIOD}")):
                    self._files.write(f"{path}/{_QUOTA}", "-1")

    def _limit_io(self, group: str, limits: Limits, disk: Disk | None) -> None:
        """Only what was asked, or is to be taken back: most VEs have none."""
        if not self._blkio or disk is None:
            return
        for name, value in (("read", limits.io_read_bps), ("write", limits.io_write_bps)):
            file = f"blkio.throttle.{name}_bps_device"
            if value or self._get("blkio", group, file).strip():
                self._set("blkio", group, file, f"{disk.number} {value}")
        if disk.weights:
            self._set("blkio", group, "blkio.bfq.weight", str(limits.io_weight or 100))

    def _limit_memory(self, group: str, limits: Limits) -> None:
        """The sum with swap may never be below memory: the one that grows away from the other comes first."""
        memory = limits.memory_bytes or -1
        both = memory + limits.swap_bytes if limits.memory_bytes else -1
        new = {_MEMORY: memory, _MEMSW: both} if self._memsw else {_MEMORY: memory}
        files = list(new)
        old = {name: self._get("memory", group, name).strip() for name in files}
        if self._memsw and (memory == -1 or memory > int(old[_MEMSW])):
            files.reverse()
        done: list[str] = []
        for name in files:
            try:
                self._set("memory", group, name, str(new[name]))
            except OSError as error:
                for undo in done:
                    self._set("memory", group, undo, old[undo])
                if error.errno == errno.EBUSY:
                    current = int(self._get("memory", group, "memory.usage_in_bytes"))
                    raise does_not_fit(limits, current) from None
                raise
            done.append(name)

    def _refused(self, group: str) -> int:
        """v1 counts in the folder of who forked. Those that a systemd inside has made are left out: they come and go."""
        try:
            return table(self._get("pids", group, "pids.events")).get("max", 0)
        except FileNotFoundError:
            return 0

    def _io(self, group: str) -> tuple[tuple[int, int], tuple[int, int]]:
        if not self._blkio:
            return (0, 0), (0, 0)
        return (
            blkio(self._get("blkio", group, "blkio.throttle.io_service_bytes_recursive")),
            blkio(self._get("blkio", group, "blkio.throttle.io_serviced_recursive")),
        )

    def _inherit_cpuset(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not self._files.read(f"{path}/{name}").strip():
                self._files.write(f"{path}/{name}", self._files.read(f"{parent}/{name}").strip())
        self._files.write(f"{path}/cgroup.clone_children", "1")

    def _get(self, controller: str, group: str, name: str) -> str:
        return self._files.read(f"{self._fs}/{controller}/{group}/{name}")

    def _set(self, controller: str, group: str, name: str, value: str) -> None:
        self._files.write(f"{self._fs}/{controller}/{group}/{name}", value)


def _hierarchies(fs: str, files: Files) -> list[str]:
    """Every mounted hierarchy once, named ones and the v2 tree too: LXC makes its folders in all of them."""
    return sorted(path for path in files.folders(fs) if files.exists(f"{path}/cgroup.procs"))


def _steps(top: str, group: str) -> list[str]:
    names = group.split("/")
    return ["/".join((top, *names[: count + 1])) for count in range(len(names))]
