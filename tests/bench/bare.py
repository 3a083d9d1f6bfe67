"""The peer of the benchmarks: no control plane, only snapshot, limit, veth and `lxc-start`, inside a host's namespaces.

Reads commands from stdin, one a line, and answers each with one line of milliseconds:
`prepare NAME`, `start NAME`, `stop NAME`, `remove NAME`, `storm COUNT WORKERS script|tuned`, `sweep`.

A storm is made in two ways: `script` runs the commands that a shell's script would (`btrfs subvolume snapshot`,
`btrfs qgroup limit`, `lxc-start`, which makes the veth); `tuned` uses ioctls in place of `btrfs`.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from veagent.storage import btrfs

CONFIG = """\
lxc.uts.name = {name}
lxc.rootfs.path = dir:{root}
lxc.rootfs.options = idmap=container
lxc.idmap = u 0 {base} 65536
lxc.idmap = g 0 {base} 65536
lxc.init.cmd = /sbin/init
lxc.tty.max = 0
lxc.pty.max = 1024
lxc.autodev = 1
lxc.cap.drop = mac_admin mac_override sys_time sys_module sys_rawio
lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed
lxc.cgroup.dir.monitor = {cgroup}/mon/{name}
lxc.cgroup.dir.monitor.pivot = {cgroup}/pivot
lxc.cgroup.dir.container = {cgroup}/ve/{name}
lxc.cgroup.memory.limit_in_bytes = 50331648
lxc.cgroup.pids.max = 128
lxc.cgroup.cpu.cfs_quota_us = 10000
lxc.log.level = ERROR
lxc.log.file = {folder}/log
lxc.console.logfile = {folder}/console
lxc.seccomp.profile = {seccomp}
{mounts}
lxc.net.0.type = veth
lxc.net.0.link = {bridge}
lxc.net.0.flags = up
lxc.net.0.name = eth0
lxc.net.0.ipv4.address = 10.66.{subnet}.{last}/16
"""
SHOWN = ("cpuinfo", "diskstats", "loadavg", "meminfo", "stat", "swaps", "uptime")


class Bare:
    """Paths: LXC's state, the pool, the image's root in it, lxcfs, seccomp profile; a cgroup; the first id."""

    def __init__(
        self,
        state: Path,
        pool: Path,
        image: Path,
        lxcfs: Path,
        seccomp: Path,
        cgroup: str,
        ids: int,
    ) -> None:
        self.state, self.pool, self.image, self.lxcfs = state, pool, image, lxcfs
        self.seccomp, self.cgroup, self.ids = seccomp, cgroup, ids
        self.number = 1
        state.mkdir(parents=True, exist_ok=True)
        state.chmod(0o711)

    def prepare(self, name: str) -> None:
        """Snapshot, limit, configuration."""
        btrfs.snapshot(self.image, self.pool / "ve", f".bare-{name}")
        root = self._root(name)
        btrfs.limit_group(self.pool, btrfs.subvolume_id(root), 1 << 30)
        self._configure(name)

    async def prepare_by_commands(self, name: str) -> None:
        root = self._root(name)
        await _run("btrfs", "-q", "subvolume", "snapshot", str(self.image), str(root))
        await _run("btrfs", "qgroup", "limit", "1G", str(root))
        self._configure(name)

    def _root(self, name: str) -> Path:
        return self.pool / "ve" / f".bare-{name}"

    def _configure(self, name: str) -> None:
        self.number += 1
        root = self._root(name)
        folder = self.state / name
        folder.mkdir()
        mounts = "\n".join(
            f"lxc.mount.entry = {self.lxcfs}/proc/{file} proc/{file} none bind,ro,optional 0 0"
            for file in SHOWN
        )
        text = CONFIG.format(
            name=name,
            root=root,
            base=self.ids + 65_536 * self.number,
            folder=folder,
            cgroup=self.cgroup,
            bridge="vebr0",
            seccomp=self.seccomp,
            subnet=200 + self.number // 250,
            last=1 + self.number % 250,
            mounts=mounts,
        )
        (folder / "config").write_text(text)

    async def start(self, name: str) -> None:
        """Without a PATH `lxc-start` finds no newuidmap and writes the id maps itself: four programs less."""
        start = ("/usr/bin/lxc-start", "-d", "-P", str(self.state), "-n", name)
        await _run(*start, path="/nonexistent")

    async def stop(self, name: str) -> None:
        await _run("/usr/bin/lxc-stop", "-k", "-P", str(self.state), "-n", name)

    def remove(self, name: str) -> None:
        for hierarchy in Path("/sys/fs/cgroup").iterdir():
            procs = hierarchy / self.cgroup / "ve" / name / "cgroup.procs"
            if procs.exists():
                for pid in procs.read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                break
        self._until_gone(name)
        btrfs.delete_subvolume(self.pool / "ve", f".bare-{name}")
        shutil.rmtree(self.state / name)

    def _until_gone(self, name: str) -> None:
        deadline = time.monotonic() + 10
        monitor = f"[lxc monitor] {self.state} {name}".encode()
        while any(_command(pid).endswith(monitor) for pid in os.listdir("/proc") if pid.isdigit()):
            assert time.monotonic() < deadline, f"{name} does not end"
            time.sleep(0.01)

    async def storm(self, count: int, workers: int, how: str) -> None:
        names = iter([f"storm-{i}" for i in range(count)])

        async def work() -> None:
            for name in names:
                if how == "tuned":
                    self.prepare(name)
                else:
                    await self.prepare_by_commands(name)
                await self.start(name)

        await asyncio.gather(*(work() for _ in range(workers)))

    def sweep(self) -> None:
        for folder in list(self.state.iterdir()):
            self.remove(folder.name)
        self.number = 1


async def _run(*command: str, path: str | None = None) -> None:
    env = {"PATH": path or os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        *command, env=env, stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0, command


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ")
    except OSError:
        return b""


async def _serve(bare: Bare) -> None:
    for line in sys.stdin:
        verb, *rest = line.split()
        began = time.perf_counter()
        match verb:
            case "prepare":
                bare.prepare(rest[0])
            case "start":
                await bare.start(rest[0])
            case "stop":
                await bare.stop(rest[0])
            case "remove":
                bare.remove(rest[0])
            case "storm":
                await bare.storm(int(rest[0]), int(rest[1]), rest[2])
            case "sweep":
                bare.sweep()
        print(f"{(time.perf_counter() - began) * 1000:.3f}", flush=True)


def main() -> None:
    state, pool, image, lxcfs, seccomp, cgroup, ids = sys.argv[1:]
    asyncio.run(
        _serve(
            Bare(Path(state), Path(pool), Path(image), Path(lxcfs), Path(seccomp), cgroup, int(ids))
        )
    )


if __name__ == "__main__":
    main()
