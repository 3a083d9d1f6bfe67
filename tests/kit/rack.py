"""A real rack for tests: devrack with a name of its own and no link to this machine's network."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from devrack import cgroups, daemons, files, network
from devrack.down import down, leftovers
from devrack.plan import HostPlan, RackPlan
from devrack.up import make_image, ready_hosts, up

T = TypeVar("T")
_NAME = re.compile(r"t(\d+)[a-z]?$")


@dataclass(frozen=True, slots=True)
class Result:
    """What a vectl run gave."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def until(probe: Callable[[], T], *, within_s: float, what: str) -> T:
    """The first true answer of `probe`; an assertion that says what did not come, else."""
    deadline = time.monotonic() + within_s
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s; last: {answer!r}"
        time.sleep(0.02)


class Rack:
    """What a test does to a rack, and asks of it."""

    def __init__(self, plan: RackPlan) -> None:
        self.plan = plan
        self.env = {
            **os.environ,
            "XDG_CONFIG_HOME": str(files.context_file(plan).parents[1]),
        }
        self.env.pop("VECTL_CONTEXT", None)

    def vectl(
        self,
        *arguments: str,
        code: int | None = 0,
        text_in: str | None = None,
        timeout_s: float = 90,
    ) -> Result:
        """Runs vectl; asserts its exit code unless `code` is None, and that no traceback came."""
        done = subprocess.run(
            daemons.vectl_argv(self.plan, arguments),
            env=self.env,
            input=text_in,
            stdin=subprocess.DEVNULL if text_in is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        result = Result(done.returncode, done.stdout, done.stderr)
        if code is not None:
            assert done.returncode == code, f"vectl {arguments}: {result}"
        return result

    def ve(self, name: str) -> dict[str, Any]:
        shown = self.vectl("show", name, "-o", "json").json()
        assert isinstance(shown, dict)
        return shown

    def ves(self) -> list[dict[str, Any]]:
        items = self.vectl("list", "-o", "json").json()["items"]
        assert isinstance(items, list)
        return items

    def kept(self) -> list[dict[str, Any]]:
        """VEs that were deleted and are kept."""
        items = self.vectl("list", "--deleted", "-o", "json").json()["items"]
        assert isinstance(items, list)
        return items

    def purge(self, *names: str) -> None:
        """Deletes VEs with their disks."""
        self.vectl("delete", "--yes", "--purge", *names)

    def purge_all(self) -> None:
        """Every VE of the default project, and what is kept of deleted ones."""
        names = [ve["name"] for ve in self.ves()]
        if names:
            self.purge(*names)
        for ve in self.kept():
            self.vectl("purge", "--yes", ve["uid"])
        until(lambda: not self.kept(), within_s=60, what="deleted VEs are removed")

    def forget_images(self) -> None:
        """Every image but busybox; nothing may use them any more."""
        for image in self.vectl("image", "list", "-o", "json").json()["items"]:
            tags = image.get("tags", [])
            if "busybox" not in tags:
                self.vectl("image", "delete", image["digest"])

    def pids(self) -> dict[str, tuple[int, int]]:
        """Init's process id and its start time, of each VE that runs: equal pairs mean that nothing was restarted."""
        found = {ve["name"]: int(ve["status"].get("init_pid", 0)) for ve in self.ves()}
        return {name: self._identity(pid) for name, pid in found.items() if pid}

    @staticmethod
    def _identity(pid: int) -> tuple[int, int]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return pid, int(fields[19])

    def host(self, name: str) -> HostPlan:
        return next(host for host in self.plan.hosts if host.name == name)

    def run_in(self, namespace: str, *argv: str, check: bool = True) -> str:
        """Runs a program in the network namespace of a host, or of the switch."""
        net = network.NETNS / self.plan.namespace(namespace)
        done = subprocess.run(
            ["nsenter", f"--net={net}", *argv],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def run_in_host(self, host: str, *argv: str) -> str:
        """Runs a program where the host's agent is: in its mounts too."""
        holder = daemons.pid_of(self.plan, f"{host}-holder")
        assert holder is not None, f"{host} has no namespaces"
        done = subprocess.run(
            ["nsenter", "-t", str(holder), "-m", "-n", *argv],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def until_ready(self) -> None:
        """Every host is Ready, as the controller sees it."""
        until(
            lambda: ready_hosts(self.plan) == len(self.plan.hosts),
            within_s=60,
            what="all hosts are Ready",
        )

    def http(self, url: str) -> str:
        """GET from inside the switch's namespace."""
        get = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"
        return self.run_in("switch", sys.executable, "-c", get, url)

    def kill(self, daemon: str) -> None:
        daemons.end(self.plan, daemon, signal.SIGKILL)

    def start_controller(self, number: int = 1) -> None:
        daemons.start_controller(self.plan, self.plan.controllers[number - 1])

    def start_agent(self, host: str) -> None:
        daemons.start_agent(self.plan, self.host(host))

    def start_lxcfs(self) -> None:
        daemons.start_lxcfs(self.plan)

    def processes(self, *words: str) -> list[int]:
        """Ids of the rack's processes whose command line has all the words."""
        found = []
        for pid in cgroups.processes(self.plan.cgroup):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if all(word in line for word in words):
                found.append(pid)
        return found

    def log(self, daemon: str) -> str:
        return daemons.log_path(self.plan, daemon).read_text(errors="replace")


def sweep_stale() -> None:
    """Takes away test racks whose test process is gone."""
    run_folder = Path("/run/verack")
    names = [path.name for path in run_folder.iterdir()] if run_folder.exists() else []
    if network.NETNS.exists():
        names += [
            path.name.split("-")[1]
            for path in network.NETNS.iterdir()
            if path.name.startswith("verack-t")
        ]
    for name in sorted(set(names)):
        match = _NAME.match(name)
        if match and not Path(f"/proc/{match[1]}").exists():
            down(RackPlan(name=name, uplink=False))


@contextmanager
def running_rack(
    suffix: str = "",
    *,
    hosts: Sequence[HostPlan] | None = None,
    cpu: float = 4,
    memory: str = "6G",
    pool_size: str = "40G",
    keep: str = "24h",
    controllers: int = 1,
) -> Iterator[Rack]:
    """A rack of this process with the busybox image; gone afterwards, and asserted to be.

    `cpu`, `memory`, `pool_size`: of each host. `keep`: how long the disks of deleted VEs are kept.
    """
    sweep_stale()
    plan = RackPlan(
        name=f"t{os.getpid()}{suffix}",
        uplink=False,
        id_base=1_000_000_000,
        cpu=cpu,
        memory=memory,
        pool_size=pool_size,
        keep=keep,
        controller_count=controllers,
    )
    if hosts:
        plan = replace(plan, hosts=tuple(hosts))
    try:
        up(plan, lambda text: None)
        rack = Rack(plan)
        rack.vectl("image", "import", "busybox", str(make_image(plan)))
        yield rack
    finally:
        down(plan)
    assert leftovers(plan) == []
