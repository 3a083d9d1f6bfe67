"""What the host decides about its part of the overlay."""

import ipaddress
import re
from dataclasses import dataclass

from veapi.errors import InvalidInput

_LINK_NAME = re.compile(r"[a-z][a-z0-9_-]{0,14}")
PORTS_OF_VERACK = (7443, 7444, 7480, 7481)
"""API, peers, and both kinds of metrics, as the example configurations have them."""


@dataclass(frozen=True, slots=True)
class NetSettings:
    """`local_address` is the host's IPv4 address on the network between the hosts; VXLAN leaves from it.

    VEs can't open TCP connections to `guarded_ports` of this host, of its peers and of `guarded_hosts` (IPv4 addresses,
    such as the controllers'). `mtu` is the VEs': the network's between the hosts, less 50 bytes for VXLAN.
    A `setup` with nothing new looks at the kernel again only after `recheck_s` seconds.
    """

    local_address: str
    bridge: str = "vebr0"
    vxlan: str = "vevx0"
    mtu: int = 1450
    guarded_ports: tuple[int, ...] = PORTS_OF_VERACK
    guarded_hosts: tuple[str, ...] = ()
    recheck_s: float = 30.0

    def __post_init__(self) -> None:
        for field in ("bridge", "vxlan"):
            link_name(field, getattr(self, field))
        for address in (self.local_address, *self.guarded_hosts):
            ipv4("address", address)
        for port in self.guarded_ports:
            if not 0 < port < 65536:
                raise InvalidInput(f"guarded port {port} is not within 1 and 65535")
        if not 576 <= self.mtu <= 65535:
            raise InvalidInput(f"mtu {self.mtu} is not within 576 and 65535")


def link_name(field: str, text: str) -> str:
    """`text`, when it is safe as the name of a link in rules and in /proc/sys."""
    if not _LINK_NAME.fullmatch(text):
        raise InvalidInput(
            f"{field} {text!r} is no name for a network link",
            hint="1 to 15 lower-case letters, digits, - and _, beginning with a letter",
        )
    return text


def ipv4(field: str, text: str) -> ipaddress.IPv4Address:
    """The address; InvalidInput when it is none."""
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise InvalidInput(
            f"{field} {text!r} is no IPv4 address",
            hint="the network between the hosts and the VEs' network are IPv4, e.g. 10.88.0.11",
        ) from None
