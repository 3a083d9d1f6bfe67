"""The network and a VE's card as checked values. Nothing reaches a ruleset or the kernel but through here."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from veagent.net.settings import NetSettings, ipv4
from veapi.errors import InvalidInput
from veapi.model import Network, PeerHost, Uid

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MULTICAST_BIT = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The VEs' network, and the hosts that it spans: this one has the address `local`, the others are `peers`."""

    pool: ipaddress.IPv4Network
    gateway: ipaddress.IPv4Address
    gateway_mac: str
    vxlan_id: int
    vxlan_port: int
    local: ipaddress.IPv4Address
    peers: frozenset[ipaddress.IPv4Address]

    @property
    def gateway_address(self) -> str:
        """With the length of the prefix, as the bridge has it."""
        return f"{self.gateway}/{self.pool.prefixlen}"


@dataclass(frozen=True, slots=True, order=True)
class Card:
    """A VE's network card: the one pair of addresses that may come out of its device."""

    device: str
    mac: str
    ip: str


def layout(settings: NetSettings, network: Network, peers: Sequence[PeerHost]) -> Layout:
    """The checked layout. InvalidInput names what is wrong."""
    pool = _pool(network.cidr)
    gateway = ipv4("gateway", network.gateway)
    if gateway not in pool:
        raise InvalidInput(f"gateway {gateway} is outside of the network {pool}")
    if not 0 < network.vxlan_id < 1 << 24 or not 0 < network.vxlan_port < 1 << 16:
        raise InvalidInput(
            f"VXLAN id {network.vxlan_id} or port {network.vxlan_port} is out of range",
            hint="ids are 1 to 16777215, ports 1 to 65535",
        )
    local = ipv4("host address", settings.local_address)
    return Layout(
        pool=pool,
        gateway=gateway,
        gateway_mac=mac_address(network.gateway_mac),
        vxlan_id=network.vxlan_id,
        vxlan_port=network.vxlan_port,
        local=local,
        peers=frozenset(ipv4(f"address of host {p.name}", p.address) for p in peers) - {local},
    )


def card(layout: Layout, uid: Uid, ip: str, mac: str) -> Card:
    """The VE's card. InvalidInput when the network has no such address to give."""
    address, hardware = ipv4("address", ip), mac_address(mac)
    unusable = (layout.gateway, layout.pool.network_address, layout.pool.broadcast_address)
    if address not in layout.pool or address in unusable:
        raise InvalidInput(
            f"{address} can't be a VE's address in {layout.pool} with gateway {layout.gateway}"
        )
    if hardware == layout.gateway_mac:
        raise InvalidInput(f"MAC {hardware} is the gateway's")
    return Card(device=device_name(uid), mac=hardware, ip=str(address))


def device_name(uid: Uid) -> str:
    """Name of a VE's device on its host: `v` and the first 12 hex digits of its uid."""
    if not _UID.fullmatch(uid):
        raise InvalidInput(f"{uid!r} is no uid of a VE", hint="it is a UUID in lower case")
    return "v" + uid.replace("-", "")[:12]


def mac_address(text: str) -> str:
    """In lower case; InvalidInput when it is none, or not the address of a single card."""
    lower = text.lower()
    if not _MAC.fullmatch(lower) or int(lower[:2], 16) & _MULTICAST_BIT:
        raise InvalidInput(f"{text!r} is no MAC address of a card", hint="e.g. 02:00:0a:42:00:05")
    return lower


def _pool(cidr: str) -> ipaddress.IPv4Network:
    try:
        pool = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise InvalidInput(
            f"network {cidr!r}: {error}", hint="an IPv4 network such as 10.66.0.0/16"
        ) from None
    if pool.prefixlen > 30:
        raise InvalidInput(f"network {cidr} has no room for VEs", hint="/30 is the smallest")
    return pool
