"""A network without wires."""

from collections.abc import Sequence
from ipaddress import ip_network

from veagent.fake.faults import Faults
from veagent.ports import Nic
from veapi.clock import Clock
from veapi.errors import Conflict, NotFound
from veapi.model import Network, PeerHost, Uid

_MTU = 1450


class FakeNetwork(Faults):
    """ports.VENetwork. `attached` is what is let through, `rates` what is limited, in and out."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.attached: dict[Uid, Nic] = {}
        self.rates: dict[Uid, tuple[int, int]] = {}
        self.announced: list[Uid] = []
        self.network: Network | None = None
        self.peers: tuple[PeerHost, ...] = ()

    async def setup(self, network: Network, peers: Sequence[PeerHost]) -> None:
        await self.call("setup")
        self.network, self.peers = network, tuple(peers)

    async def attach(self, uid: Uid, ip: str, mac: str) -> Nic:
        await self.call("attach", uid)
        if self.network is None:
            raise Conflict("the host's network is not set up yet")
        nic = Nic(
            bridge="fake0",
            device=f"f{uid[:12]}",
            mac=mac,
            address=ip,
            prefix_length=ip_network(self.network.cidr).prefixlen,
            gateway=self.network.gateway,
            mtu=_MTU,
        )
        self.attached[uid] = nic
        return nic

    async def rate(self, uid: Uid, *, in_bps: int, out_bps: int) -> None:
        await self.call("rate", uid)
        if uid not in self.attached:
            raise NotFound(f"VE {uid} has no network card now")
        self.rates[uid] = (in_bps, out_bps)

    async def announce(self, uid: Uid) -> None:
        """There is nobody to hear it."""
        self.announced.append(uid)

    async def detach(self, uid: Uid) -> None:
        await self.call("detach", uid)
        self.attached.pop(uid, None)
        self.rates.pop(uid, None)

    async def keep_only(self, uids: Sequence[Uid]) -> None:
        await self.call("keep_only")
        for uid in set(self.attached) - set(uids):
            del self.attached[uid]
            self.rates.pop(uid, None)
