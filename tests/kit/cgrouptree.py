"""Made-up cgroup trees in plain folders, with as much of the kernel's behaviour as limits need."""

import errno
import shutil
from pathlib import Path

from veagent.cgroup import Files, cpulist

UNLIMITED_V1 = str(9223372036854771712)
V1_FILES = {
    "cpu": {
        "cpu.shares": "1024",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "-1",
        "cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 2500000000\n",
    },
    "cpuacct": {"cpuacct.usage": "7000000000\n", "cpuacct.stat": "user 300\nsystem 200\n"},
    "cpuset": {"cpuset.cpus": "", "cpuset.mems": "", "cgroup.clone_children": "0"},
    "memory": {
        "memory.limit_in_bytes": UNLIMITED_V1,
        "memory.memsw.limit_in_bytes": UNLIMITED_V1,
        "memory.usage_in_bytes": "1000",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
        "memory.stat": "hierarchical_memory_limit 4096\ntotal_rss 600\ntotal_cache 300\n"
        "total_inactive_file 100\ntotal_swap 5\n",
    },
    "pids": {"pids.current": "3", "pids.max": "max", "pids.events": "max 2"},
    "devices": {"devices.allow": "", "devices.deny": "", "devices.list": "a *:* rwm\n"},
    "freezer": {"freezer.state": "THAWED\n", "freezer.self_freezing": "0\n"},
    "blkio": {
        "blkio.throttle.io_service_bytes_recursive": "7:1 Read 10\n7:1 Write 20\n7:2 Read 1\nTotal 31",
        "blkio.throttle.read_bps_device": "",
        "blkio.throttle.write_bps_device": "",
        "blkio.bfq.weight": "100\n",
        "blkio.throttle.io_serviced_recursive": "7:1 Read 3\n7:1 Write 4\n7:1 Total 7\nTotal 7\n",
    },
    "unified": {},
}
V2_FILES = {
    "cgroup.subtree_control": "",
    "cgroup.freeze": "0",
    "cgroup.events": "populated 1\nfrozen 0\n",
    "cpu.max": "max 100000",
    "cpu.weight": "100",
    "cpu.stat": "usage_usec 7000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 10\n"
    "nr_throttled 4\nthrottled_usec 2500000\n",
    "memory.max": "max",
    "memory.high": "max",
    "memory.swap.max": "max",
    "memory.current": "1000",
    "memory.swap.current": "5",
    "memory.events": "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\n",
    "memory.stat": "anon 600\nfile 300\ninactive_file 100\n",
    "pids.current": "3",
    "pids.max": "max",
    "pids.events": "max 2\n",
    "cpuset.cpus": "",
    "io.max": "",
    "io.bfq.weight": "default 100\n",
    "io.stat": "7:1 rbytes=10 wbytes=20 rios=3 wios=4 dbytes=0 dios=0\n7:2 rbytes=1 wbytes=0 rios=0 wios=0\n",
}


class MadeUpKernel(Files):
    """Folders get their files as they are made; every write is noted; memory limits obey the kernel's rules."""

    def __init__(self, fs: Path, version: int) -> None:
        self.fs = fs
        self.version = version
        self.writes: list[tuple[str, str]] = []
        self.reclaimable_bytes = 0
        self.machine_kills = 0
        if version == 2:
            self._fill(str(fs))
            (fs / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
            return
        for controller in V1_FILES:
            self.mkdir(str(fs / controller))
        (fs / "cpuset/cpuset.cpus").write_text("0-1\n")
        (fs / "cpuset/cpuset.mems").write_text("0\n")

    def mkdir(self, path: str) -> None:
        super().mkdir(path)
        self._fill(path)

    def rmdir(self, path: str) -> None:
        if not Path(path).is_dir():
            raise FileNotFoundError(errno.ENOENT, "no folder", path)
        if self.folders(path) or (Path(path) / "cgroup.procs").read_text().strip():
            raise OSError(errno.EBUSY, "busy", path)
        shutil.rmtree(path)

    def read(self, path: str) -> str:
        if path == "/proc/vmstat":
            return f"pgfault 7\noom_kill {self.machine_kills}\n"
        return super().read(path)

    def write(self, path: str, value: str) -> None:
        self.writes.append((str(Path(path).relative_to(self.fs)), value))
        name = Path(path).name
        if name == "cpuset.cpus" and self.version == 1:
            self._check_cpus(Path(path).parent, value)
        if name == "devices.deny":
            self._deny_devices(Path(path).parent)
        if name == "freezer.state":
            (Path(path).parent / "freezer.self_freezing").write_text(f"{int(value == 'FROZEN')}\n")
        if name == "cgroup.freeze":
            (Path(path).parent / "cgroup.events").write_text(f"populated 1\nfrozen {value}\n")
        if name == "cpu.cfs_quota_us":
            self._check_quota(Path(path).parent, value)
        if name.startswith("memory."):
            self._check_memory(Path(path).parent, name, value)
        if not Path(path).exists():
            raise FileNotFoundError(errno.ENOENT, "no file", path)
        Path(path).write_text(
            UNLIMITED_V1 if name.endswith("limit_in_bytes") and value == "-1" else value
        )

    def written(self, group: str) -> dict[str, str]:
        """Last values written to files of that group, by file name."""
        return {
            path.rpartition("/")[2]: value
            for path, value in self.writes
            if path.rpartition("/")[0].endswith(group)
        }

    def set(self, path: str, value: str) -> None:
        (self.fs / path).write_text(value)

    def _fill(self, path: str) -> None:
        parts = Path(path).relative_to(self.fs).parts
        files = V2_FILES if self.version == 2 else V1_FILES[parts[0]]
        inherited = Path(path).parent / "devices.list"
        if self.version == 1 and parts[0] == "devices" and inherited.exists():
            files = {**files, "devices.list": inherited.read_text()}
        for name, value in {"cgroup.procs": "", **files}.items():
            if not (Path(path) / name).exists():
                (Path(path) / name).write_text(value)

    def _deny_devices(self, group: Path) -> None:
        """Only a folder without children may deny all; what is made in it later inherits."""
        if self.folders(str(group)):
            raise OSError(errno.EINVAL, "has children", str(group))
        (group / "devices.list").write_text("")

    def _check_cpus(self, group: Path, value: str) -> None:
        """A child's processors are some of its parent's."""
        above = cpulist.parse((group.parent / "cpuset.cpus").read_text())
        below = [
            cpulist.parse((Path(child) / "cpuset.cpus").read_text())
            for child in self.folders(str(group))
        ]
        if not cpulist.parse(value) <= above:
            raise OSError(errno.EACCES, "not the parent's", str(group))
        if any(not child <= cpulist.parse(value) for child in below):
            raise OSError(errno.EBUSY, "children have more", str(group))

    def _check_quota(self, group: Path, value: str) -> None:
        """A child's quota may not be above its parent's."""

        def quota(folder: Path) -> float:
            file = folder / "cpu.cfs_quota_us"
            number = int(file.read_text()) if file.exists() else -1
            return number if number >= 0 else float("inf")

        new = float(value) if value != "-1" else float("inf")
        below = [quota(Path(child)) for child in self.folders(str(group))]
        too_much = new != float("inf") and new > quota(group.parent)
        if too_much or any(child != float("inf") and child > new for child in below):
            raise OSError(errno.EINVAL, "invalid", str(group))

    def _check_memory(self, group: Path, name: str, value: str) -> None:
        if self.version == 2:
            if name == "memory.high" and value != "max":
                used = int((group / "memory.current").read_text())
                (group / "memory.current").write_text(
                    str(max(int(value), used - self.reclaimable_bytes))
                )
            if name == "memory.max" and value != "max":
                assert int((group / "memory.current").read_text()) <= int(value), "would kill"
            return
        new = int(UNLIMITED_V1 if value == "-1" else value)
        limits = {
            file: int((group / file).read_text())
            for file in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
            if (group / file).exists()
        }
        limits[name] = new
        if limits["memory.limit_in_bytes"] > limits.get("memory.memsw.limit_in_bytes", 1 << 63):
            raise OSError(errno.EINVAL, "invalid", str(group / name))
        if int((group / "memory.usage_in_bytes").read_text()) > new:
            raise OSError(errno.EBUSY, "busy", str(group / name))
