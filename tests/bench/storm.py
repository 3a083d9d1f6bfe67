"""100 VEs at once over all hosts, beside a bare script that does snapshot, limit, veth and lxc-start."""

import asyncio
import statistics
import time

from bench.sides import BareHost, bare_hosts, context_of, small, until_running
from kit.rack import Rack
from vectl.client import Client


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
