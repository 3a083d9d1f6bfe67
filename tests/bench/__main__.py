"""`make bench`: verack beside plain LXC, in one run, interleaved. Prints medians; asserts nothing.

create   one VE on a rack with twelve: create call -> Running, the whole `vectl create`, and `lxc-start -d` alone
recover  a killed init is Running again; a killed agent has its VEs again
storm    100 VEs over the three hosts, beside a bare script that does snapshot, limit, veth and lxc-start
placement  placement alone, in memory, on made-up racks of 100 to 10,000 hosts
crowd    300 VEs on one host: how fast they start and stop, what the agent takes
failover  three controllers on an etcd cluster of three: how long the API is away when a leader is lost
hostloss  a host with 20 VEs of policy recreate is lost: how long until all run elsewhere
"""

import argparse
import asyncio
import os
import signal
import statistics
import time
from functools import partial

from bench.crowd import bench_crowd
from bench.failover import bench_failover
from bench.hostloss import bench_hostloss
from bench.placement import bench_mass, bench_placement, bench_words
from bench.sides import SMALL, bare_hosts, context_of, small, until_running
from bench.storm import bench_storm
from devrack.plan import HostPlan
from kit.rack import Rack, running_rack, until
from vectl.client import Client

KINDS = ["placement", "create", "recover", "storm", "crowd", "failover", "hostloss"]


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
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Linux {os.uname().release}")
    if "placement" in what:
        print("placement in memory, CPU of one thread:")
        bench_placement((100, 1_000, 5_000, 10_000), 20_000)
        bench_mass(5_000, 100_000, 20)
        bench_words(1_000)
    if {"create", "recover", "storm"} & set(what):
        with running_rack("b") as rack:
            if "create" in what:
                asyncio.run(bench_create(rack, arguments.runs))
            if "recover" in what:
                asyncio.run(bench_recover(rack, max(5, arguments.runs // 2)))
            if "storm" in what:
                asyncio.run(bench_storm(rack, arguments.rounds, 100, arguments.workers))
    if "crowd" in what:
        with running_rack(
            "c", hosts=[HostPlan("h1", "r1", 1)], cpu=100, memory="20G", pool_size="100G"
        ) as rack:
            asyncio.run(bench_crowd(rack, arguments.rounds, 300, arguments.workers))
    if "failover" in what:
        with running_rack("f", controllers=3) as rack:
            bench_failover(rack, max(1, arguments.runs // 2))
    if "hostloss" in what:
        with running_rack("h", cpu=16) as rack:
            bench_hostloss(rack, max(1, arguments.runs // 2))


if __name__ == "__main__":
    main()
