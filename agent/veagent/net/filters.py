"""The packet filter as text for nft: three tables of our own, nothing of anybody else's is touched.

`bridge verack`: out of a VE's device comes only its own MAC and IPv4 address, in ARP too, and nothing but IPv4 and ARP:
the overlay has no IPv6, and one VE's router advertisements would redirect the others. It is checked before the bridge
learns. The gateway, which every host has, is not seen across the overlay: neither its MAC nor ARP about its address.
`inet verack`: VXLAN is taken from peers only, and VEs can neither forge it (the kernel does not look at who sent it, and
a forged frame would pass all filters) nor open connections to the ports of verack.
`ip verack_nat`: what leaves the VEs' network leaves with the host's address.

VEs' devices are known by the pattern of their names, `v` and hex digits, because `meta ibrname` needs a kernel option
that is not everywhere; a device that has no card is silent. `cards` is the only part that changes when VEs come and go.
A table carries a mark, an empty chain named after the digest of its rules: this tells whether it is there and current
(nft 1.0 does not list a table's comment in JSON).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from veagent.net.layout import Card, Layout
from veagent.net.settings import NetSettings

BRIDGE = "bridge verack"
HOST = "inet verack"
NAT = "ip verack_nat"
TABLES = (BRIDGE, HOST, NAT)
CARDS = f"{BRIDGE} cards"
_MARK = "rules_"
# "v" and a hex digit; but after "ve" one more, for veth0 and the like are not ours.
_VE_DEVICES = tuple(f"v{c}*" for c in "0123456789abcdf") + tuple(
    f"ve{c}*" for c in "0123456789abcdef"
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table by family and name, and its content without the mark and without cards."""

    name: str
    body: str

    @property
    def mark(self) -> str:
        """Name of the empty chain that stands for these very rules."""
        return _MARK + hashlib.sha256(self.body.encode()).hexdigest()[:16]

    def replacement(self) -> str:
        """Commands that put it in place of whatever has its name, in one transaction."""
        return (
            f"add table {self.name}\ndelete table {self.name}\n"
            f"table {self.name} {{\nchain {self.mark} {{\n}}\n{self.body}}}\n"
        )


def tables(settings: NetSettings, layout: Layout) -> tuple[Table, ...]:
    """All that `setup` puts into the kernel."""
    return (
        Table(BRIDGE, _bridge(settings, layout)),
        Table(HOST, _host(settings, layout)),
        Table(NAT, _nat(settings, layout)),
    )


def add_cards(cards: Iterable[Card]) -> str:
    """A command that lets the cards through; empty when there are none."""
    elements = ", ".join(map(_element, cards))
    return f"add element {CARDS} {{ {elements} }}\n" if elements else ""


def remove_cards(cards: Iterable[Card]) -> str:
    """Commands after which none of the cards gets through, whether it did before or not."""
    elements = ", ".join(map(_element, cards))
    if not elements:
        return ""
    return (
        f"add element {CARDS} {{ {elements} }}\n"  # nft 1.0 has no `destroy`
        f"delete element {CARDS} {{ {elements} }}\n"
    )


def remove_tables() -> str:
    """Commands after which none of the tables is there."""
    return "".join(f"add table {name}\ndelete table {name}\n" for name in TABLES)


def _element(card: Card) -> str:
    return f'"{card.device}" . {card.mac} . {card.ip}'


def _bridge(settings: NetSettings, layout: Layout) -> str:
    ve_devices = "".join(f'iifname "{name}" counter drop\n' for name in _VE_DEVICES)
    mac, gateway = layout.gateway_mac, layout.gateway
    return f"""set cards {{
type ifname . ether_addr . ipv4_addr
}}
chain prerouting {{
type filter hook prerouting priority -300; policy accept;
iifname "{settings.vxlan}" goto overlay
iifname . ether saddr . ip saddr @cards accept
iifname . ether saddr . arp saddr ip @cards iifname . arp saddr ether . arp saddr ip @cards accept
{ve_devices}}}
chain overlay {{
ether saddr {mac} counter drop
ether daddr {mac} counter drop
arp saddr ip {gateway} counter drop
arp daddr ip {gateway} counter drop
}}
chain postrouting {{
type filter hook postrouting priority 300; policy accept;
oifname "{settings.vxlan}" goto overlay
}}
"""


def _host(settings: NetSettings, layout: Layout) -> str:
    peers = _addresses({str(peer) for peer in layout.peers})
    guarded = _addresses(set(_guarded_hosts(settings, layout)))
    ports = ", ".join(map(str, sorted(settings.guarded_ports)))
    of_ves = f'iifname "{settings.bridge}"'
    guard_host = f"{of_ves} tcp dport {{ {ports} }} counter drop\n" if ports else ""
    guard_others = (
        f"{of_ves} ip daddr @guarded tcp dport {{ {ports} }} counter drop\n" if ports else ""
    )
    return f"""set peers {{
type ipv4_addr
{peers}}}
set guarded {{
type ipv4_addr
{guarded}}}
chain input {{
type filter hook input priority -10; policy accept;
{of_ves} udp dport {layout.vxlan_port} counter drop
udp dport {layout.vxlan_port} @th,96,24 {layout.vxlan_id} ip saddr != @peers counter drop
{guard_host}}}
chain forward {{
type filter hook forward priority -10; policy accept;
{of_ves} udp dport {layout.vxlan_port} counter drop
{guard_others}}}
"""


def _guarded_hosts(settings: NetSettings, layout: Layout) -> Iterable[str]:
    yield str(layout.local)
    yield from map(str, layout.peers)
    yield from settings.guarded_hosts


def _addresses(addresses: set[str]) -> str:
    return f"elements = {{ {', '.join(sorted(addresses))} }}\n" if addresses else ""


def _nat(settings: NetSettings, layout: Layout) -> str:
    pool = layout.pool
    return f"""chain postrouting {{
type nat hook postrouting priority srcnat; policy accept;
ip saddr {pool} ip daddr != {pool} oifname != "{settings.bridge}" masquerade
}}
"""
