"""Made-up racks for benchmarks of placement: hosts of three sizes in racks of 40, VEs of a few kinds with and without wishes."""

import random
from collections.abc import Callable

from veapi.model import HostName, Resources, Uid
from vecontroller.placement import HostRow, Request

GIB = 1 << 30
RACK = 40
SIZES = ((32, 128), (64, 256), (96, 512))
"""Cores and GiB of memory of hosts."""
FLAVORS = ((0.25, 0.25), (0.5, 1), (1, 1), (1, 2), (2, 4), (4, 8))
APPS = 60


def size(cores: float, memory_gib: float, disk_gib: float = 4) -> Resources:
    return Resources(
        cpu_millis=round(cores * 1000),
        memory_bytes=round(memory_gib * GIB),
        disk_bytes=round(disk_gib * GIB),
        pids=256,
    )


def made_hosts(count: int, seed: int = 1) -> list[HostRow]:
    """Empty."""
    chance = random.Random(seed)
    return [_host(index, chance) for index in range(count)]


def _host(index: int, chance: random.Random) -> HostRow:
    cores, memory = chance.choice(SIZES)
    rack = f"r{index // RACK:03}"
    room = size(cores * 4, memory, 2000)
    return HostRow(
        name=HostName(f"{rack}-h{index % RACK:02}"),
        rack=rack,
        capacity=Resources(
            cpu_millis=room.cpu_millis,
            memory_bytes=room.memory_bytes,
            disk_bytes=room.disk_bytes,
            pids=200_000,
        ),
        committed=Resources(),
        placed=0,
        labels={
            "rack": rack,
            "zone": f"z{index // RACK % 3}",
            "disk": chance.choice(("ssd", "hdd")),
            "gen": str(chance.randint(1, 9)),
        },
    )


def plain(index: int, chance: random.Random) -> Request:
    """One of six sizes, no wishes."""
    return Request(
        uid=Uid(f"u{index:07}"), resources=size(*chance.choice(FLAVORS)), since=index, project="p"
    )


def mixed(index: int, chance: random.Random) -> Request:
    """Labels, anti-affinity over hosts and spread over racks: a third each, of sixty applications."""
    app = f"a{chance.randrange(APPS)}"
    wishes = (
        {"require": ("disk=ssd",), "prefer": ("gen>5 weight 10",)},
        {"apart": (f"app={app} over host",)},
        {"spread": (f"app={app} over rack skew 2",)},
    )[int(app[1:]) % 3]
    return Request(
        uid=Uid(f"u{index:07}"),
        resources=size(*FLAVORS[int(app[1:]) % len(FLAVORS)]),
        since=index,
        project="p",
        labels={"app": app},
        **wishes,  # type: ignore[arg-type]  # by name
    )


def stream(
    make: Callable[[int, random.Random], Request], count: int, seed: int = 2
) -> list[Request]:
    chance = random.Random(seed)
    return [make(index, chance) for index in range(count)]


def alike(count: int, kinds: int, seed: int = 3) -> list[Request]:
    """Small ones, first all of one kind, then all of the next."""
    chance = random.Random(seed)
    sizes = [
        size(chance.choice((0.1, 0.25, 0.5)), chance.choice((0.1, 0.25, 0.5)), 0.01 * kind)
        for kind in range(1, kinds + 1)
    ]
    return [
        Request(
            uid=Uid(f"u{index:07}"),
            resources=sizes[index * kinds // count],
            since=index,
            project="p",
        )
        for index in range(count)
    ]
