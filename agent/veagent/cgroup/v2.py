"""The one tree of cgroup v2."""

from veagent.cgroup.disk import Disk
from veagent.cgroup.files import Files
from veagent.cgroup.layout import (
    CONTAINER,
    PERIOD_US,
    does_not_fit,
    holdable_io,
    quota_us,
    refuse_io,
    weight_of,
)
from veagent.cgroup.oom import FileNotice, OomNotice
from veagent.cgroup.usage import Usage, io_stat, limit, table
from veapi.model import Limits

NEEDED = ("cpu", "memory", "pids")
_WANTED = (*NEEDED, "io", "cpuset")


class V2:
    """Devices are not limited here: on v2 that is a BPF program, which LXC attaches from its configuration."""

    version = 2

    def __init__(self, fs: str, files: Files) -> None:
        self._fs = fs
        self.freezer = fs
        self._files = files
        here = files.read(f"{fs}/cgroup.controllers").split()
        self._controllers = " ".join(f"+{name}" for name in _WANTED if name in here)
        self._io = "io" in here

    def tops(self) -> tuple[str, ...]:
        return (self._fs,)

    def prepare(self, group: str) -> None:
        self._delegate(self._fs)
        path = self._fs
        for name in group.split("/"):
            path = f"{path}/{name}"
            self._files.mkdir(path)
            self._delegate(path)

    def guard_devices(self, group: str) -> None:
        """See the class: not here."""

    def create(self, group: str, limits: Limits, disk: Disk | None) -> None:
        self._files.mkdir(f"{self._fs}/{group}")
        self._delegate(f"{self._fs}/{group}")
        self.limit(group, limits, disk)

    def holdable(self, limits: Limits, disk: Disk | None) -> Limits:
        return holdable_io(limits, disk, able=self._io)

    def limit(self, group: str, limits: Limits, disk: Disk | None) -> None:
        refuse_io(limits, disk, able=self._io)
        self._limit_memory(group, limits)
        quota = quota_us(limits)
        for each in (group, f"{group}/{CONTAINER}"):  # LXC's too: lxcfs counts processors by it
            if each == group or self._files.exists(f"{self._fs}/{each}"):
                self._set(each, "cpu.max", f"{'max' if quota < 0 else quota} {PERIOD_US}")
        self._set(group, "cpu.weight", str(weight_of(limits)))
        self._set(group, "pids.max", str(limits.pids or "max"))
        self._limit_io(group, limits, disk)

    def pin(self, group: str, cpus: str) -> None:
        """Groups below have at most what is above them: nothing to do there."""
        self._set(group, "cpuset.cpus", cpus)

    def usage(self, group: str, oom_kills: int) -> Usage:
        cpu = table(self._get(group, "cpu.stat"))
        memory = table(self._get(group, "memory.stat"))
        current = int(self._get(group, "memory.current"))
        moved = io_stat(self._get(group, "io.stat") if self._io else "")
        return Usage(
            cpu_seconds=cpu["usage_usec"] / 1e6,
            cpu_user_seconds=cpu["user_usec"] / 1e6,
            cpu_system_seconds=cpu["system_usec"] / 1e6,
            cpu_periods=cpu.get("nr_periods", 0),
            cpu_throttled_periods=cpu.get("nr_throttled", 0),
            cpu_throttled_seconds=cpu.get("throttled_usec", 0) / 1e6,
            memory_current_bytes=current,
            memory_limit_bytes=limit(self._get(group, "memory.max")),
            memory_swap_bytes=self._swap(group),
            memory_working_set_bytes=max(0, current - memory["inactive_file"]),
            memory_anon_bytes=memory["anon"],
            memory_file_bytes=memory["file"],
            oom_kills=oom_kills,
            pids_current=int(self._get(group, "pids.current")),
            pids_limit=limit(self._get(group, "pids.max")),
            pids_refused=table(self._get(group, "pids.events")).get("max", 0),
            io_read_bytes=moved["rbytes"],
            io_write_bytes=moved["wbytes"],
            io_reads=moved["rios"],
            io_writes=moved["wios"],
        )

    def oom_kills(self, group: str) -> dict[str, int] | None:
        """memory.events counts the folders below too."""
        path = f"{self._fs}/{group}"
        return {path: table(self._files.read(f"{path}/memory.events")).get("oom_kill", 0)}

    def forget(self, group: str) -> None:
        """Nothing is kept."""

    def processes(self, group: str) -> str:
        return f"{self._fs}/{group}/cgroup.procs"

    def frozen(self, group: str) -> bool:
        try:
            return table(self._get(group, "cgroup.events")).get("frozen", 0) == 1
        except FileNotFoundError:
            return False

    def freeze(self, group: str) -> None:
        self._set(group, "cgroup.freeze", "1")

    def still(self, group: str) -> bool:
        return self.frozen(group)

    def suspended(self, group: str) -> bool:
        try:
            return self._get(group, "cgroup.freeze").strip() == "1"
        except FileNotFoundError:
            return False

    def oom_notice(self, group: str) -> OomNotice:
        return FileNotice(f"{self._fs}/{group}")

    def thaw(self, group: str) -> None:
        self.thaw_folder(f"{self.freezer}/{group}")

    def thaw_folder(self, folder: str) -> None:
        self._files.write(f"{folder}/cgroup.freeze", "0")

    def _limit_io(self, group: str, limits: Limits, disk: Disk | None) -> None:
        """Only what was asked, or is to be taken back: most VEs have none."""
        if not self._io or disk is None:
            return
        read, write = limits.io_read_bps or "max", limits.io_write_bps or "max"
        if (read, write) != ("max", "max") or self._get(group, "io.max").strip():
            self._set(group, "io.max", f"{disk.number} rbps={read} wbps={write}")
        if disk.weights:
            self._set(group, "io.bfq.weight", f"default {limits.io_weight or 100}")

    def _limit_memory(self, group: str, limits: Limits) -> None:
        """A memory.max below use would kill: memory.high reclaims first, and what stays then decides."""
        new = limits.memory_bytes
        if new and int(self._get(group, "memory.current")) > new:
            self._set(group, "memory.high", str(new))
            try:
                current = int(self._get(group, "memory.current"))
                if current > new:
                    raise does_not_fit(limits, current)
                self._set(group, "memory.max", str(new))
            finally:
                self._set(group, "memory.high", "max")
        else:
            self._set(group, "memory.max", str(new or "max"))
        if self._files.exists(f"{self._fs}/{group}/memory.swap.max"):
            self._set(group, "memory.swap.max", str(limits.swap_bytes) if new else "max")

    def _swap(self, group: str) -> int:
        try:
            return int(self._get(group, "memory.swap.current"))
        except FileNotFoundError:
            return 0

    def _delegate(self, path: str) -> None:
        """Lets the folders below have limits."""
        self._files.write(f"{path}/cgroup.subtree_control", self._controllers)

    def _get(self, group: str, name: str) -> str:
        return self._files.read(f"{self._fs}/{group}/{name}")

    def _set(self, group: str, name: str, value: str) -> None:
        self._files.write(f"{self._fs}/{group}/{name}", value)
