"""Both sides of a benchmark: VEs of a rack by the API, and the peer without a control plane on the same hosts."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from devrack import daemons
from devrack.plan import REPOSITORY, HostPlan
from kit.rack import Rack
from vectl.client import Client
from vectl.context import Context
from vectl.wanted import Wanted

SMALL = ("--cpu", "0.1", "--memory", "48M", "--disk", "256M", "--pids", "128")


def small(name: str) -> Wanted:
    """As SMALL: a hundred fit."""
    return Wanted(
        name=name,
        image="busybox",
        cpu_millis=100,
        memory_bytes=48 << 20,
        disk_bytes=256 << 20,
        pids=128,
    )


SECCOMP = REPOSITORY / "agent/veagent/runtime/ve.seccomp"


class BareHost:
    """The peer on one host of the rack."""

    def __init__(self, rack: Rack, host: HostPlan, seccomp: Path) -> None:
        plan = rack.plan
        pool = plan.host_state(host) / "pool"
        holder = daemons.pid_of(plan, f"{host.name}-holder")
        image = _image_root(holder or 0, pool)
        arguments = [
            str(plan.run / f"bare-{host.name}"),
            str(pool),
            str(image),
            str(plan.lxcfs),
            str(seccomp),
            f"{plan.cgroup}/bare-{host.name}",
            str(plan.id_base + 2 * 65_536_000 * (host.number + 4)),
        ]
        self.process = subprocess.Popen(
            [
                "nsenter",
                "-t",
                str(holder),
                "-m",
                "-n",
                sys.executable,
                "-m",
                "bench.bare",
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY / 'tests'}"},
        )

    def ask(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def answer(self) -> float:
        """Milliseconds."""
        assert self.process.stdout is not None
        return float(self.process.stdout.readline())

    def do(self, line: str) -> float:
        self.ask(line)
        return self.answer()

    def close(self) -> None:
        self.do("sweep")
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


def _image_root(holder: int, pool: Path) -> Path:
    folder = Path(f"/proc/{holder}/root{pool}/images")
    (digest,) = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    return pool / "images" / digest / "root"


@contextmanager
def bare_hosts(rack: Rack) -> Iterator[list[BareHost]]:
    with ExitStack() as stack:
        hosts = [BareHost(rack, host, SECCOMP) for host in rack.plan.hosts]
        for host in hosts:
            stack.callback(host.close)
        yield hosts


def context_of(rack: Rack) -> Context:
    folder = rack.plan.identity("admin")
    return Context(
        name=rack.plan.name,
        endpoints=(f"unix:{rack.plan.socket}",),
        cluster=rack.plan.name,
        ca=folder / "ca.crt",
        cert=folder / "tls.crt",
        key=folder / "tls.key",
        project="default",
    )


async def until_running(
    client: Client, names: list[str], act: Callable[[], Awaitable[object]]
) -> float:
    """Milliseconds from before `act` until a watch that was open before shows all of them Running."""
    return await until_state(client, names, "Running", act)


async def until_state(
    client: Client, names: list[str], state: str, act: Callable[[], Awaitable[object]]
) -> float:
    """As `until_running`, of any state."""
    waiting = set(names)
    async with client.watch(names=names) as watch:
        changes = aiter(watch)
        began = time.perf_counter()
        asked = asyncio.ensure_future(act())
        async for change in changes:
            if change.ve is not None and change.ve.status.state == state:
                waiting.discard(change.ve.name)
            if change.ve is not None and change.ve.status.state in {"Pending", "Failed"}:
                assert change.ve.status.reason in {"", "Scheduling"}, change.ve.status
            if not waiting:
                break
        await asked
    return (time.perf_counter() - began) * 1000
