"""Reads and changes links by netlink. The only module that knows pyroute2, which has no types: `Any` ends here.

Sockets are opened in the network namespace of this process; there is no other one for the agent.
"""

from collections.abc import AsyncIterator, Iterable
from errno import ENODEV, ENOENT
from pathlib import Path
from typing import Any, assert_never

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from veagent.net.settings import NetSettings
from veagent.net.wiring import (
    AddAddress,
    AddBridge,
    AddVxlan,
    Bridge,
    DeleteAddress,
    DeleteLink,
    Flood,
    Forget,
    SetLink,
    Step,
    Sysctl,
    Vxlan,
    Wiring,
)
from veapi.errors import Conflict, RemoteFailed

ANY_MAC = "00:00:00:00:00:00"
_AF_INET = 2
_SYSCTL = Path("/proc/sys")


async def read(settings: NetSettings, sysctls: Iterable[str]) -> Wiring:
    """The links by the names of `settings` and the values of `sysctls`, as they are now.

    Conflict when a name belongs to a link of another kind.
    """
    async with AsyncIPRoute() as netlink:
        bridge = await _get(netlink, settings.bridge, "bridge")
        vxlan = await _get(netlink, settings.vxlan, "vxlan")
        return Wiring(
            bridge=None if bridge is None else await _bridge(netlink, bridge),
            vxlan=None if vxlan is None else await _vxlan(netlink, vxlan, bridge),
            sysctls={key: value for key in sysctls if (value := _read_sysctl(key)) is not None},
        )


async def apply(steps: Iterable[Step]) -> None:
    """Carries out the steps in order. RemoteFailed names the step that the kernel refused."""
    async with AsyncIPRoute() as netlink:
        for step in steps:
            try:
                await _apply(netlink, step)
            except (NetlinkError, OSError) as error:
                raise RemoteFailed(
                    f"the kernel refused {step}: {error}",
                    hint="the agent needs root, and a kernel with bridge and vxlan",
                ) from None


async def remove(names: Iterable[str]) -> None:
    """Deletes the links; one that is not there is fine."""
    async with AsyncIPRoute() as netlink:
        for name in names:
            found = await netlink.link_lookup(ifname=name)
            if found:
                await netlink.link("del", index=found[0])


async def _apply(netlink: Any, step: Step) -> None:
    match step:
        case AddBridge(link, mac, mtu):
            await _add_bridge(netlink, link, mac, mtu)
        case AddVxlan():
            await _add_vxlan(netlink, step)
        case DeleteLink(link):
            await netlink.link("del", index=await _index(netlink, link))
        case SetLink():
            fields = await _fields(netlink, step)
            await netlink.link("set", index=await _index(netlink, step.link), **fields)
        case AddAddress(link, address):
            await _address(netlink, "replace", link, address)
        case DeleteAddress(link, address):
            await _address(netlink, "del", link, address)
        case Flood(link, host):
            index = await _index(netlink, link)
            await netlink.fdb("append", ifindex=index, lladdr=ANY_MAC, dst=host)
        case Forget(link, host):
            await _forget(netlink, await _index(netlink, link), host)
        case Sysctl(key, value):
            _write_sysctl(key, value)
        case _:
            assert_never(step)


async def _add_bridge(netlink: Any, link: str, mac: str, mtu: int) -> None:
    await netlink.link(
        "add",
        ifname=link,
        kind="bridge",
        address=mac,
        mtu=mtu,
        br_stp_state=0,
        br_forward_delay=0,
        br_mcast_snooping=0,
    )


async def _add_vxlan(netlink: Any, step: AddVxlan) -> None:
    await netlink.link(
        "add",
        ifname=step.link,
        kind="vxlan",
        mtu=step.mtu,
        vxlan_id=step.vxlan_id,
        vxlan_port=step.port,
        vxlan_local=step.local,
        vxlan_learning=True,
    )


async def _fields(netlink: Any, step: SetLink) -> dict[str, object]:
    fields: dict[str, object] = {}
    if step.master is not None:
        fields["master"] = await _index(netlink, step.master)
    if step.mac is not None:
        fields["address"] = step.mac
    if step.mtu is not None:
        fields["mtu"] = step.mtu
    if step.up is not None:
        fields["state"] = "up" if step.up else "down"
    return fields


async def _address(netlink: Any, command: str, link: str, address: str) -> None:
    ip, _, length = address.partition("/")
    index = await _index(netlink, link)
    await netlink.addr(command, index=index, address=ip, prefixlen=int(length))


async def _forget(netlink: Any, index: int, host: str) -> None:
    entries = [entry async for entry in _entries(netlink, index) if entry[1] == host]
    for mac, _ in entries:
        try:
            await netlink.fdb("del", ifindex=index, lladdr=mac, dst=host)
        except NetlinkError as error:
            if error.code != ENOENT:  # a learned one may have aged meanwhile
                raise


async def _index(netlink: Any, link: str) -> int:
    found: list[int] = await netlink.link_lookup(ifname=link)
    if not found:
        raise OSError(ENODEV, f"there is no link {link}")
    return found[0]


async def _get(netlink: Any, link: str, kind: str) -> Any | None:
    try:
        message = (await netlink.link("get", ifname=link))[0]
    except NetlinkError as error:
        if error.code == ENODEV:
            return None
        raise RemoteFailed(f"can't read link {link}: {error}") from None
    found = message.get(("linkinfo", "kind"))
    if found != kind:
        raise Conflict(
            f"link {link} is no {kind} but {found or 'something else'}",
            hint="remove it, or give the agent another name for its own",
        )
    return message


async def _bridge(netlink: Any, message: Any) -> Bridge:
    addresses = await netlink.addr("dump", index=message["index"], family=_AF_INET)
    return Bridge(
        mac=message.get("address"),
        mtu=message.get("mtu"),
        up=message["state"] == "up",
        addresses=frozenset([f"{a.get('local')}/{a['prefixlen']}" async for a in addresses]),
    )


async def _vxlan(netlink: Any, message: Any, bridge: Any | None) -> Vxlan:
    entries = [entry async for entry in _entries(netlink, message["index"])]
    data = message.get(("linkinfo", "data"))
    return Vxlan(
        vxlan_id=data.get("vxlan_id"),
        port=data.get("vxlan_port"),
        local=data.get("vxlan_local") or "",
        learning=bool(data.get("vxlan_learning")),
        mtu=message.get("mtu"),
        up=message["state"] == "up",
        attached=bridge is not None and message.get("master") == bridge["index"],
        flood=frozenset(host for mac, host in entries if mac == ANY_MAC),
        towards=frozenset(host for _, host in entries),
    )


async def _entries(netlink: Any, index: int) -> AsyncIterator[tuple[str, str]]:
    """MAC and host of each entry that leads to a host."""
    async for entry in await netlink.fdb("dump", ifindex=index):
        if entry["ifindex"] == index and entry.get("dst"):
            yield entry.get("lladdr"), entry.get("dst")


def _read_sysctl(key: str) -> str | None:
    try:
        return (_SYSCTL / key).read_text().strip()
    except FileNotFoundError:
        return None


def _write_sysctl(key: str, value: str) -> None:
    path = _SYSCTL / key
    if path.exists():  # a kernel without IPv6 has no key for it
        path.write_text(value)
