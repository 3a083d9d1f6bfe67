"""`make bench`: verack beside plain LXC, in one run, interleaved. Prints medians; asserts nothing.

create   one VE on a rack with twelve: create call -> Running, the whole `vectl create`, and `lxc-start -d` alone
recover  a killed init is Running again; a killed agent has its VEs again
storm    100 VEs over the three hosts, beside a bare script that does snapshot, limit, veth and lxc-start
"""

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from devrack import daemons
from devrack.plan import REPOSITORY, HostPlan
from kit.rack import Rack, running_rack, until
from vectl.client import Client
from vectl.context import Context
from vectl.wanted import Wanted

KINDS = ["create", "recover", "storm"]
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
        endpoint=f"unix:{rack.plan.socket}",
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
    waiting = set(names)
    async with client.watch(names=names) as watch:
        changes = aiter(watch)
        began = time.perf_counter()
        asked = asyncio.ensure_future(act())
        async for change in changes:
            if change.ve is not None and change.ve.status.state == "Running":
                waiting.discard(change.ve.name)
            if change.ve is not None and change.ve.status.state in {"Pending", "Failed"}:
                assert change.ve.status.reason in {"", "Scheduling"}, change.ve.status
            if not waiting:
                break
        await asked
    return (time.perf_counter() - began) * 1000


async def bench_create(rack: Rack, runs: int) -> None:
    """Interleaved: one of each kind per round."""
    rack.vectl("create", "base", "--count", "12", "--image", "busybox", *SMALL)
    api: list[float] = []
    command: list[float] = []
    plain: list[float] = []
    with bare_hosts(rack) as hosts:
        async with Client.connect(context_of(rack)) as client:
            for i in range(runs):
                wanted = small(f"api-{i}")
                create = partial(client.create, wanted)
                api.append(await until_running(client, [wanted.name], create))
                bare = hosts[i % len(hosts)]
                bare.do(f"prepare plain-{i}")
                plain.append(bare.do(f"start plain-{i}"))
                began = time.perf_counter()
                rack.vectl("create", f"cmd-{i}", "--image", "busybox", *SMALL)
                command.append((time.perf_counter() - began) * 1000)
                rack.vectl("delete", "--yes", f"api-{i}", f"cmd-{i}")
                bare.do(f"remove plain-{i}")
    print(f"one VE on a rack with 12, p50 (p95) of {runs}, interleaved, ms:")
    for what, values in (
        ("create call -> Running", api),
        ("the whole `vectl create`", command),
        ("`lxc-start -d` alone", plain),
    ):
        p95 = statistics.quantiles(values, n=20)[-1]
        print(f"  {what:26} {statistics.median(values):7.1f} ({p95:.1f})")
    print(f"  ratio to lxc-start         {statistics.median(api) / statistics.median(plain):7.1f}")
    rack.vectl("delete", "--yes", *[ve["name"] for ve in rack.ves()])


async def bench_recover(rack: Rack, runs: int) -> None:
    """What fails comes back: an init that is killed, an agent that is killed with its VEs running."""
    names = [f"base-{i}" for i in range(12)]
    rack.vectl("create", "base", "--count", "12", "--image", "busybox", *SMALL)
    inits: list[float] = []
    agents: list[float] = []
    async with Client.connect(context_of(rack)) as client:
        for i in range(runs):
            inits.append(await _init_back(client, names[i % len(names)]))
            agents.append(_agent_back(rack))
    print(f"p50 (worst) of {runs}, ms:")
    for what, values in (
        ("init killed -> seen Running", inits),
        ("agent started again after SIGKILL -> its VEs adopted", agents),
    ):
        print(f"  {what:54} {statistics.median(values):7.1f} ({max(values):.1f})")
    rack.vectl("delete", "--yes", *names)


async def _init_back(client: Client, name: str) -> float:
    before = (await client.get(name)).status
    async with client.watch(names=[name]) as watch:
        began = time.perf_counter()
        os.kill(before.init_pid, signal.SIGKILL)
        async for change in watch:
            status = change.ve.status if change.ve is not None else before
            if status.state == "Running" and status.init_pid not in {0, before.init_pid}:
                break
    return (time.perf_counter() - began) * 1000


def _agent_back(rack: Rack) -> float:
    rack.kill("h1-agent")
    seen = rack.log("h1-agent").count("adopted ")
    began = time.perf_counter()
    rack.start_agent("h1")
    until(lambda: rack.log("h1-agent").count("adopted ") > seen, within_s=20, what="adopted")
    elapsed = (time.perf_counter() - began) * 1000
    until(
        lambda: all(ve["status"]["state"] == "Running" for ve in rack.ves()),
        within_s=20,
        what="all Running",
    )
    return elapsed


async def bench_storm(rack: Rack, rounds: int, count: int, workers: int) -> None:
    rates: dict[str, list[float]] = {"verack": [], "script": [], "tuned": []}
    with bare_hosts(rack) as hosts:
        async with Client.connect(context_of(rack)) as client:
            for i in range(rounds):
                rates["verack"].append(await _storm_of_ours(rack, client, i, count))
                for how in ("script", "tuned"):
                    rates[how].append(_storm_of_bare(hosts, count, workers, how))
    whats = {
        "verack": "verack, create calls -> all Running",
        "script": f"bare script of commands, {workers} at a time per host",
        "tuned": "the same with ioctls in place of `btrfs`",
    }
    print(
        f"{count} VEs over {len(hosts)} hosts, median of {rounds} rounds, interleaved, VEs a second:"
    )
    ours = statistics.median(rates["verack"])
    for how, what in whats.items():
        median = statistics.median(rates[how])
        runs = [round(rate, 1) for rate in rates[how]]
        print(f"  {what:48} {median:6.1f}  verack has {ours / median:4.0%} of it  {runs}")


async def _storm_of_ours(rack: Rack, client: Client, number: int, count: int) -> float:
    names = [f"storm{number}-{n}" for n in range(count)]

    async def ask() -> None:
        await asyncio.gather(*(client.create(small(name)) for name in names))

    rate = count / (await until_running(client, names, ask)) * 1000
    rack.vectl("delete", "--yes", *names)
    return rate


def _storm_of_bare(hosts: list[BareHost], count: int, workers: int, how: str) -> float:
    shares = [count // len(hosts) + (n < count % len(hosts)) for n in range(len(hosts))]
    began = time.perf_counter()
    for host, share in zip(hosts, shares, strict=True):
        host.ask(f"storm {share} {workers} {how}")
    for host in hosts:
        host.answer()
    rate = count / (time.perf_counter() - began)
    for host in hosts:
        host.do("sweep")
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", metavar="|".join(KINDS))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4)
    arguments = parser.parse_args()
    what = arguments.what or KINDS
    with running_rack("b") as rack:
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Linux {os.uname().release}")
        if "create" in what:
            asyncio.run(bench_create(rack, arguments.runs))
        if "recover" in what:
            asyncio.run(bench_recover(rack, max(5, arguments.runs // 2)))
        if "storm" in what:
            asyncio.run(bench_storm(rack, arguments.rounds, 100, arguments.workers))


if __name__ == "__main__":
    main()
