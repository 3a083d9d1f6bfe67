"""Many VEs on one host: starting all, stopping one, what the agent takes while nothing happens. Beside plain LXC."""

import asyncio
import os
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.sides import BareHost, bare_hosts, context_of, small, until_running, until_state
from devrack import daemons
from kit.rack import Rack
from vectl.client import Client

_TICK = os.sysconf("SC_CLK_TCK")
_QUIET_S = 30.0


async def bench_crowd(rack: Rack, rounds: int, count: int, workers: int) -> None:
    """Prints rates, medians and sizes; asserts nothing."""
    ours: list[float] = []
    plain: list[float] = []
    with bare_hosts(rack) as hosts:
        async with Client.connect(context_of(rack)) as client:
            for number in range(rounds):
                plain.append(_plain_crowd(hosts[0], count, workers))
                names = [f"crowd{number}-{n}" for n in range(count)]
                ours.append(await _crowd(client, names))
                if number + 1 == rounds:
                    _print_rates(count, ours, plain)
                    await _quiet(rack, count)
                    await _stops(client, hosts[0], names[:20])
                rack.vectl("delete", "--yes", "--purge", *names)


async def _crowd(client: Client, names: list[str]) -> float:
    async def ask() -> None:
        await asyncio.gather(*(client.create(replace(small(name), pids=64)) for name in names))

    return len(names) / (await until_running(client, names, ask)) * 1000


def _plain_crowd(host: BareHost, count: int, workers: int) -> float:
    rate = count / host.do(f"storm {count} {workers} script") * 1000
    host.do("sweep")
    return rate


def _print_rates(count: int, ours: list[float], plain: list[float]) -> None:
    print(f"{count} VEs on one host, median of {len(ours)} rounds, interleaved, VEs a second:")
    print(f"  verack, create calls -> all Running   {statistics.median(ours):7.1f}")
    print(f"  plain LXC by a bare script            {statistics.median(plain):7.1f}")


async def _quiet(rack: Rack, count: int) -> None:
    pid = daemons.pid_of(rack.plan, "h1-agent")
    assert pid is not None
    await asyncio.sleep(5)
    before, began = _cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(_QUIET_S)
    share = (_cpu_seconds(pid) - before) / (time.monotonic() - began)
    memory = _rollup(pid)
    print(f"the agent with {count} VEs while nothing happens:")
    print(f"  of a core over {_QUIET_S:g} s          {share:7.2%}")
    print(
        f"  memory, MiB: own (PSS) {memory['Pss'] / 1024:.1f}, resident {memory['Rss'] / 1024:.1f}"
    )


async def _stops(client: Client, host: BareHost, names: list[str]) -> None:
    """One after the other, each beside `lxc-stop -k` of a plain one."""
    ours: list[float] = []
    plain: list[float] = []
    for name in names:
        ours.append(
            await until_state(
                client, [name], "Stopped", partial(client.set_run, name, "stopped", force=True)
            )
        )
        host.do(f"prepare plain-{name}")
        host.do(f"start plain-{name}")
        plain.append(host.do(f"stop plain-{name}"))
        host.do(f"remove plain-{name}")
    print(f"a busybox VE killed, p50 (worst) of {len(names)}, interleaved, ms:")
    print(
        f"  verack, stop --force -> seen Stopped  {statistics.median(ours):7.1f} ({max(ours):.1f})"
    )
    print(
        f"  plain LXC, lxc-stop -k                {statistics.median(plain):7.1f} ({max(plain):.1f})"
    )


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _rollup(pid: int) -> dict[str, int]:
    """KiB by name."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}
