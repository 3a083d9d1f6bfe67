"""The rack that is to suffer: what runs where, and how all of it is made whole again."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.oracle import Oracle, locking_image, oracle
from devrack import cgroups, daemons
from devrack.plan import HostPlan
from devrack.shell import run
from devrack.up import make_image
from kit.rack import Rack, Result, running_rack, until
from kit.rackleaders import mend

SMALL_DISK_MIB = 400
SMALL = ("--cpu", "0.05", "--memory", "24M", "--disk", "48M", "--pids", "64")
IMAGE = "chaos"
TABLE = "chaos"
NARROW = "etcd-3"
"""The member of etcd whose disk is small enough to be filled."""
HOSTS = tuple(HostPlan(f"h{n}", f"r{(n + 1) // 2}", n) for n in range(1, 6))


@dataclass(slots=True)
class Rig:
    """A rack, its oracle, and what was written down about its VEs."""

    rack: Rack
    oracle: Oracle
    turns: int = 5
    """How often a case loses a leader."""
    began: float = field(default_factory=time.monotonic)
    story: list[str] = field(default_factory=list)
    frozen_copies: set[str] = field(default_factory=set)
    """VEs of a host that stood still as a whole for longer than a lease: their old copies could not be ended meanwhile."""

    def say(self, text: str) -> None:
        line = f"[{time.monotonic() - self.began:7.1f} s] {text}"
        self.story.append(line)
        print(line, flush=True)

    def hosts(self) -> list[str]:
        return [host.name for host in self.rack.plan.hosts]

    def vectl(self, *arguments: str, timeout_s: float = 120) -> Result:
        """Whatever comes of it."""
        return self.rack.vectl(*arguments, code=None, timeout_s=timeout_s)

    def ves(self) -> list[dict[str, Any]] | None:
        """All VEs; None when nobody answers."""
        told = self.vectl("list", "-o", "json", timeout_s=60)
        if told.code != 0:
            return None
        items: list[dict[str, Any]] = told.json()["items"]
        return items

    def on(self, host: str, policy: str = "") -> list[str]:
        """Names of the VEs that are placed there, of that policy if one is given."""
        return [
            ve["name"]
            for ve in self.ves() or ()
            if ve.get("placement", {}).get("host") == host
            and policy in {"", ve["spec"]["on_host_loss"]}
        ]

    def ve_pids(self, host: str) -> set[int]:
        """Of the host's VEs and their monitors."""
        return cgroups.processes(f"{self.rack.plan.cgroup}/{host}")

    def daemon_pids(self, host: str) -> set[int]:
        names = (f"{host}-agent", f"{host}-vefence")
        return {pid for name in names if (pid := daemons.pid_of(self.rack.plan, name))}

    def monitors(self, host: str) -> set[int]:
        """LXC's process beside each VE."""
        lines = {pid: Path(f"/proc/{pid}/cmdline") for pid in self.ve_pids(host)}
        return {pid for pid, path in lines.items() if _read(path).startswith("[lxc monitor]")}

    def mend(self) -> None:
        """All links are up, nothing stands still, every daemon runs. Again does no harm."""
        for host in self.rack.plan.hosts:
            self.rack.run_in("switch", "ip", "link", "set", host.name, "up", check=False)
            self.rack.run_in(host.name, "nft", "delete", "table", "inet", TABLE, check=False)
            signal_all(self.daemon_pids(host.name) | self.ve_pids(host.name), signal.SIGCONT)
            self.start_host(host.name)
        for each in self.rack.plan.controllers:
            pid = daemons.pid_of(self.rack.plan, each.etcd)
            signal_all({pid} if pid else (), signal.SIGCONT)
        mend(self.rack)

    def narrow(self, member: str) -> None:
        """That member of etcd has a small disk of its own from now on. `down` takes it away as any mount of the rack."""
        data = self.rack.plan.state / member
        self.rack.kill(member)
        kept = data.with_name(f"{member}-kept")
        data.rename(kept)
        data.mkdir(mode=0o700)
        size = f"size={SMALL_DISK_MIB}m,mode=700"
        run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(data)])
        run(["cp", "-a", f"{kept}/.", str(data)])
        run(["rm", "-r", str(kept)])
        mend(self.rack)

    def start_host(self, host: str) -> None:
        """What a machine's init would start."""
        for what, start in (("vefence", daemons.start_vefence), ("agent", daemons.start_agent)):
            if daemons.pid_of(self.rack.plan, f"{host}-{what}") is None:
                start(self.rack.plan, self.rack.host(host))

    def keep_logs(self, where: Path) -> None:
        where.mkdir(parents=True, exist_ok=True)
        (where / "story").write_text("\n".join(self.story) + "\n")
        logs, locks = str(self.rack.plan.run), str(self.oracle.locks)
        subprocess.run(f"cp {logs}/*.log {where}/; cp -r {locks} {where}/", shell=True, check=False)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def signal_all(pids: Sequence[int] | set[int], number: signal.Signals) -> None:
    """Of those that are gone nothing is wanted."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def rig_of(ves: int, *, suffix: str = "c") -> Iterator[Rig]:
    """Three controllers and etcd members, five hosts, and so many VEs, half of which may move. Gone afterwards."""
    with (
        oracle() as made,
        running_rack(
            suffix, hosts=HOSTS, controllers=3, cpu=8, memory="8G", pool_size="4G", keep="1h"
        ) as rack,
    ):
        rig = Rig(rack, made)
        rig.narrow(NARROW)
        rack.vectl("image", "import", IMAGE, str(locking_image(make_image(rack.plan))))
        rig.say("the rack is up")
        fenced = ves // 2
        for name, count, policy in (("stay", ves - fenced, "stay"), ("move", fenced, "recreate")):
            rack.vectl(
                *("create", name, "--count", str(count), "--image", IMAGE, *SMALL),
                *("--on-host-loss", policy, "--timeout", "120s"),
                timeout_s=200,
            )
        until(lambda: sum(made.starts().values()) == ves, within_s=60, what="each VE has spoken")
        rig.say(f"{ves} VEs run, {fenced} of them may move")
        yield rig
