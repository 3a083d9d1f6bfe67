"""Addresses of VEs: the lowest free one of the pool, or the one that was asked for. Pure."""

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network

from veapi import validate
from veapi.errors import Conflict, InvalidInput
from veapi.model import Network
from vecontroller.view import View

_FIELD = "spec.ip"


def choose(view: View, network: Network, wanted: str, reserved: Collection[str]) -> str:
    """Conflict when it, or the whole pool, is taken; InvalidInput when it is no address of the pool."""
    if wanted:
        return _asked(view, network, wanted, reserved)
    pool = IPv4Network(network.cidr)
    for number in range(int(pool.network_address) + 1, int(pool.broadcast_address)):
        ip = _text(number)
        if ip != network.gateway and _free(view, network, ip, reserved):
            return ip
    raise Conflict(
        f"all addresses of {network.cidr} are taken",
        hint="delete VEs that are not needed, or give the cluster a larger pool",
    )


def mac_of(ip: str) -> str:
    """A locally administered MAC that follows from the address; no gateway's begins so."""
    return ":".join(f"{byte:02x}" for byte in b"\x02v" + IPv4Address(ip).packed)


def _asked(view: View, network: Network, wanted: str, reserved: Collection[str]) -> str:
    ip = validate.ipv4(_FIELD, wanted)
    pool = IPv4Network(network.cidr)
    edges = (str(pool.network_address), str(pool.broadcast_address))
    if IPv4Address(ip) not in pool or ip in edges:
        raise InvalidInput(
            f"{_FIELD}: {ip} is no address of the cluster's pool {network.cidr}",
            hint="leave it out, and a free one is chosen",
        )
    if ip == network.gateway:
        raise InvalidInput(
            f"{_FIELD}: {ip} is the gateway's", hint="leave it out, and a free one is chosen"
        )
    if not _free(view, network, ip, reserved):
        raise Conflict(
            f"{_FIELD}: {ip} is taken{_holder(view, network, ip)}",
            hint="leave it out, and a free one is chosen",
        )
    return ip


def _free(view: View, network: Network, ip: str, reserved: Collection[str]) -> bool:
    return (network.name, ip) not in view.addresses and ip not in reserved


def _holder(view: View, network: Network, ip: str) -> str:
    held = view.addresses.get((network.name, ip))
    ve = view.ves.get(held.value) if held is not None else None
    return f" by VE {ve.value.project}/{ve.value.name}" if ve is not None else ""


def _text(number: int) -> str:
    """Much faster than IPv4Address, as this runs for each taken address."""
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
