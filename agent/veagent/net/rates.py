"""How fast VEs may send and receive: token buckets on their devices, which no root of a VE can reach.

What goes into a VE leaves its device on the host (`v...`), so a `tbf` there limits it. What comes out of a VE arrives at
that device, where the kernel only drops; so it is led over an `ifb` device of its own (`i...`), which has a queue.
"""

from collections.abc import Iterable
from errno import EEXIST, EINVAL, ENODEV, ENOENT
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from veapi.errors import RemoteFailed

_ROOT = 0x10000
_BUCKET_S = 0.05
"""A bucket holds what the rate gives in this time: enough that timers of 1 to 4 ms don't cost throughput."""
_LEAST_BUCKET_BYTES = 16_384
_LATENCY_US = 50_000
_MATCH_ALL = ["0x0/0x0+0"]
_ALL_PROTOCOLS = 0x0003


def shaper_of(device: str) -> str:
    """Name of the device that what comes out of a VE is led over."""
    return "i" + device[1:]


async def set_rates(device: str, *, in_bps: int, out_bps: int) -> None:
    """Bits a second, seen from the VE; 0: no limit. RemoteFailed names what the kernel refused."""
    async with AsyncIPRoute() as netlink:
        try:
            index = await _index(netlink, device)
            await _bucket(netlink, index, in_bps)
            await _shape(netlink, device, index, out_bps)
        except (NetlinkError, OSError) as error:
            raise RemoteFailed(
                f"the kernel refused to limit the rate of {device}: {error}",
                hint="it needs sch_tbf, sch_ingress, cls_u32, act_mirred and ifb; or set net_in and net_out to 0",
            ) from None


async def remove_shapers(devices: Iterable[str]) -> None:
    """Of VEs' devices that are gone; those that have none are fine."""
    names = [shaper_of(device) for device in devices]
    if not names:
        return
    async with AsyncIPRoute() as netlink:
        for name in names:
            for index in await netlink.link_lookup(ifname=name):
                await netlink.link("del", index=index)


async def shaped() -> set[str]:
    """VEs' devices, there or gone, that have a shaper."""
    async with AsyncIPRoute() as netlink:
        found: set[str] = set()
        async for message in await netlink.link("dump", kind="ifb"):
            name = str(message.get("ifname"))
            if name.startswith("i") and len(name) == 13:
                found.add("v" + name[1:])
        return found


async def _shape(netlink: Any, device: str, index: int, bps: int) -> None:
    name = shaper_of(device)
    if not bps:
        await _quiet(netlink.tc("del", "clsact", index), ENOENT, EINVAL)
        for found in await netlink.link_lookup(ifname=name):
            await netlink.link("del", index=found)
        return
    if not await netlink.link_lookup(ifname=name):
        await netlink.link("add", ifname=name, kind="ifb")
    shaper = await _index(netlink, name)
    await _bucket(netlink, shaper, bps)
    await netlink.link("set", index=shaper, state="up")
    await _quiet(netlink.tc("add", "clsact", index), EEXIST)
    await _lead(netlink, index, shaper)


async def _lead(netlink: Any, index: int, shaper: int) -> None:
    """All that arrives at `index` goes over `shaper`, and comes back as if it had just arrived."""
    action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": shaper}
    await netlink.tc(
        "replace-filter",
        "u32",
        index,
        handle=0x80000800,
        parent=0xFFFFFFF2,
        prio=1,
        protocol=_ALL_PROTOCOLS,
        target=0x10000,
        keys=_MATCH_ALL,
        action=action,
    )


async def _bucket(netlink: Any, index: int, bps: int) -> None:
    if not bps:
        await _quiet(
            netlink.tc("del", index=index, parent=0xFFFFFFFF, handle=_ROOT), ENOENT, EINVAL
        )
        return
    rate = bps // 8
    burst = max(_LEAST_BUCKET_BYTES, int(rate * _BUCKET_S))
    await netlink.tc(
        "replace",
        "tbf",
        index,
        handle=_ROOT,
        parent=0xFFFFFFFF,
        rate=rate,
        burst=burst,
        latency=f"{_LATENCY_US}us",
    )


async def _index(netlink: Any, name: str) -> int:
    found: list[int] = await netlink.link_lookup(ifname=name)
    if not found:
        raise OSError(ENODEV, f"there is no link {name}")
    return found[0]


async def _quiet(call: Any, *accepted: int) -> None:
    try:
        await call
    except NetlinkError as error:
        if error.code not in accepted:
            raise
