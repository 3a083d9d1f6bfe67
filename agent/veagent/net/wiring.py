"""Which links this host shall have, compared with those it has: the difference as steps, which are data.

A crash between any two steps leaves a state from which the next plan goes on; a plan for what is already so is empty.

The gateway has the same address and MAC on every host, so a VE that moves keeps its gateway; `filters` keeps it from
being seen across the overlay. VXLAN learns where MACs are; unknown ones and broadcasts are flooded by one all-zero entry
per peer. So a moved VE is found at its first frame from the new host.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from veagent.net.layout import Layout
from veagent.net.settings import NetSettings


@dataclass(frozen=True, slots=True)
class Bridge:
    """`addresses` are IPv4 with prefix length."""

    mac: str
    mtu: int
    up: bool
    addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class Vxlan:
    """`towards`: every host that an entry of its forwarding table names; `flood`: those of the all-zero entries."""

    vxlan_id: int
    port: int
    local: str
    learning: bool
    mtu: int
    up: bool
    attached: bool
    flood: frozenset[str]
    towards: frozenset[str]

    def same_tunnel(self, other: "Vxlan") -> bool:
        """Whether what can't be changed on a living device is equal."""
        return (self.vxlan_id, self.port, self.local, self.learning) == (
            other.vxlan_id,
            other.port,
            other.local,
            other.learning,
        )


@dataclass(frozen=True, slots=True)
class Wiring:
    """Links of a host, wanted or found. None: there is none. `sysctls`: keys below /proc/sys that the kernel has."""

    bridge: Bridge | None
    vxlan: Vxlan | None
    sysctls: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DeleteLink:
    link: str


@dataclass(frozen=True, slots=True)
class AddBridge:
    link: str
    mac: str
    mtu: int


@dataclass(frozen=True, slots=True)
class AddVxlan:
    link: str
    vxlan_id: int
    port: int
    local: str
    mtu: int


@dataclass(frozen=True, slots=True)
class SetLink:
    """Sets what is not None."""

    link: str
    mac: str | None = None
    mtu: int | None = None
    master: str | None = None
    up: bool | None = None


@dataclass(frozen=True, slots=True)
class AddAddress:
    link: str
    address: str


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    link: str
    address: str


@dataclass(frozen=True, slots=True)
class Flood:
    """Frames of unknown destination go to this host too."""

    link: str
    host: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Removes every forwarding entry towards this host, learned ones too."""

    link: str
    host: str


@dataclass(frozen=True, slots=True)
class Sysctl:
    key: str
    value: str


Step = (
    DeleteLink
    | AddBridge
    | AddVxlan
    | SetLink
    | AddAddress
    | DeleteAddress
    | Flood
    | Forget
    | Sysctl
)


def wanted(settings: NetSettings, layout: Layout) -> Wiring:
    """What `setup` shall bring about."""
    peers = frozenset(str(peer) for peer in layout.peers)
    return Wiring(
        bridge=Bridge(
            mac=layout.gateway_mac,
            mtu=settings.mtu,
            up=True,
            addresses=frozenset({layout.gateway_address}),
        ),
        vxlan=Vxlan(
            vxlan_id=layout.vxlan_id,
            port=layout.vxlan_port,
            local=str(layout.local),
            learning=True,
            mtu=settings.mtu,
            up=True,
            attached=True,
            flood=peers,
            towards=peers,
        ),
        sysctls={
            "net/ipv4/ip_forward": "1",
            f"net/ipv6/conf/{settings.bridge}/disable_ipv6": "1",
            f"net/ipv6/conf/{settings.vxlan}/disable_ipv6": "1",
        },
    )


def another_network(found: Wiring, wanted: Wiring) -> str:
    """In which way the links belong to another network than the wanted one; empty when they do not."""
    assert wanted.bridge is not None
    assert wanted.vxlan is not None
    have, want = found.bridge, wanted.bridge
    if have and have.addresses and have.addresses != want.addresses:
        return f"gateway {', '.join(sorted(have.addresses))}, not {', '.join(want.addresses)}"
    if have and have.addresses and have.mac != want.mac:
        return f"gateway MAC {have.mac}, not {want.mac}"
    tunnel = found.vxlan
    if tunnel and (tunnel.vxlan_id, tunnel.port) != (wanted.vxlan.vxlan_id, wanted.vxlan.port):
        return (
            f"VXLAN {tunnel.vxlan_id} at port {tunnel.port}, "
            f"not {wanted.vxlan.vxlan_id} at {wanted.vxlan.port}"
        )
    return ""


def plan(settings: NetSettings, found: Wiring, wanted: Wiring) -> tuple[Step, ...]:
    """The steps from `found` to `wanted`, in order."""
    assert wanted.bridge is not None
    assert wanted.vxlan is not None
    return (
        *_bridge(settings.bridge, found.bridge, wanted.bridge),
        *_vxlan(settings, found.vxlan, wanted.vxlan),
        *_sysctls(found, wanted),  # before the links are up, so that they send nothing in IPv6
        *_up(settings, found, wanted),
    )


def _bridge(link: str, found: Bridge | None, wanted: Bridge) -> Iterator[Step]:
    if found is None:
        yield AddBridge(link, wanted.mac, wanted.mtu)
        found = Bridge(wanted.mac, wanted.mtu, up=False, addresses=frozenset())
    yield from (DeleteAddress(link, each) for each in sorted(found.addresses - wanted.addresses))
    if (found.mac, found.mtu) != (wanted.mac, wanted.mtu):
        yield SetLink(link, mac=wanted.mac, mtu=wanted.mtu)
    yield from (AddAddress(link, each) for each in sorted(wanted.addresses - found.addresses))


def _vxlan(settings: NetSettings, found: Vxlan | None, wanted: Vxlan) -> Iterator[Step]:
    link = settings.vxlan
    if found is not None and not found.same_tunnel(wanted):
        yield DeleteLink(link)
        found = None
    if found is None:
        yield AddVxlan(link, wanted.vxlan_id, wanted.port, wanted.local, wanted.mtu)
        found = _new(wanted)
    yield from (Forget(link, host) for host in sorted(found.towards - wanted.towards))
    yield from (Flood(link, host) for host in sorted(wanted.flood - found.flood))
    if found.mtu != wanted.mtu:
        yield SetLink(link, mtu=wanted.mtu)
    if not found.attached:
        yield SetLink(link, master=settings.bridge)


def _sysctls(found: Wiring, wanted: Wiring) -> Iterator[Step]:
    for key, value in wanted.sysctls.items():
        if found.sysctls.get(key) != value:
            yield Sysctl(key, value)


def _up(settings: NetSettings, found: Wiring, wanted: Wiring) -> Iterator[Step]:
    if found.bridge is None or not found.bridge.up:
        yield SetLink(settings.bridge, up=True)
    if found.vxlan is None or not found.vxlan.up or not _keeps(found.vxlan, wanted.vxlan):
        yield SetLink(settings.vxlan, up=True)


def _keeps(found: Vxlan, wanted: Vxlan | None) -> bool:
    return wanted is not None and found.same_tunnel(wanted)


def _new(wanted: Vxlan) -> Vxlan:
    return Vxlan(
        vxlan_id=wanted.vxlan_id,
        port=wanted.port,
        local=wanted.local,
        learning=wanted.learning,
        mtu=wanted.mtu,
        up=False,
        attached=False,
        flood=frozenset(),
        towards=frozenset(),
    )
