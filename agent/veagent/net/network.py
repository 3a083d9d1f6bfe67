"""The port `VENetwork` on a real kernel.

State is in the kernel; this keeps a copy of the cards so that a filter which somebody flushed comes back with them.
After a restart the copy is read from the kernel. Everything an agent leaves behind serves the VEs, which run on; only
`teardown` removes it.
"""

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from veagent.net import filters, links, rates
from veagent.net.announce import announcement, question, send
from veagent.net.counters import LinkCounters, read_counters
from veagent.net.filters import Table
from veagent.net.layout import Card, Layout, card, device_name, layout
from veagent.net.nft import Nft
from veagent.net.settings import NetSettings
from veagent.net.wiring import Step, Wiring, another_network, plan, wanted
from veagent.ports import Nic
from veapi.clock import Clock
from veapi.errors import Conflict, NotFound, RemoteFailed, Unavailable
from veapi.model import Network, PeerHost, Uid

log = structlog.get_logger()


class HostNetwork:
    """Bridge, VXLAN, gateway, NAT and filters of this host. One per network namespace. `aclose` when done."""

    def __init__(self, settings: NetSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._nft = Nft()
        self._lock = asyncio.Lock()
        self._layout: Layout | None = None
        self._checked_at = 0.0
        self._cards: dict[str, Card] | None = None
        self._rates: dict[str, _Rate] = {}

    async def setup(self, network: Network, peers: Sequence[PeerHost]) -> None:
        """See the port. Conflict when it is another network than before and VEs are attached to that."""
        new = layout(self._settings, network, peers)
        async with self._lock:
            now = self._clock.boot()
            if new == self._layout and now < self._checked_at + self._settings.recheck_s:
                return
            steps = await self._difference(new)
            await self._filter(new)
            if steps:
                await links.apply(steps)
                log.info("network wired", steps=[str(step) for step in steps])
            self._layout, self._checked_at = new, now

    async def attach(self, uid: Uid, ip: str, mac: str) -> Nic:
        """See the port. InvalidInput for an address that the network has not."""
        async with self._lock:
            current = self._set_up()
            new = card(current, uid, ip, mac)
            cards = await self._known_cards()
            old = cards.get(new.device, new)
            cards[new.device] = new
            stale = filters.remove_cards([old]) if old != new else ""
            await self._run(stale + filters.add_cards([new]))
            return self._nic(current, new)

    async def rate(self, uid: Uid, *, in_bps: int, out_bps: int) -> None:
        """See the port. NotFound when the VE has no card: it does not run, or has no network."""
        device = device_name(uid)
        async with self._lock:
            new = _Rate(_index(device), in_bps, out_bps)
            if self._rates.get(device) == new:
                return
            if not new.index:
                raise NotFound(f"VE {uid} has no network card now", hint="start it first")
            self._rates.pop(device, None)
            await rates.set_rates(device, in_bps=in_bps, out_bps=out_bps)
            self._rates[device] = new

    async def announce(self, uid: Uid) -> None:
        """See the port."""
        async with self._lock:
            current, found = self._layout, (await self._known_cards()).get(device_name(uid))
        if current is None or found is None:
            return
        gateway = str(current.gateway)
        frames = (
            (self._settings.vxlan, announcement(found.mac, found.ip)),
            (found.device, question(current.gateway_mac, gateway, asked=found.ip)),
        )
        for device, frame in frames:
            try:
                send(device, frame)
            except OSError as error:
                log.info("not announced", ve=uid, device=device, error=str(error))

    async def detach(self, uid: Uid) -> None:
        """See the port."""
        async with self._lock:
            device = device_name(uid)
            self._rates.pop(device, None)
            if _index(rates.shaper_of(device)):
                await rates.remove_shapers([device])
            old = (await self._known_cards()).pop(device, None)
            if old is not None:
                await self._run(filters.remove_cards([old]))

    async def keep_only(self, uids: Sequence[Uid]) -> None:
        """See the port."""
        kept = {device_name(uid) for uid in uids}
        async with self._lock:
            cards = await self._known_cards()
            stale = [each for each in cards.values() if each.device not in kept]
            for each in stale:
                del cards[each.device]
            await self._run(filters.remove_cards(stale))
            await rates.remove_shapers(await rates.shaped() - kept)

    async def teardown(self) -> None:
        """Removes links and tables; VEs that still run are cut off. For a host that leaves the cluster."""
        async with self._lock:
            await self._nft.run(filters.remove_tables())
            await links.remove((self._settings.vxlan, self._settings.bridge))
            await rates.remove_shapers(await rates.shaped())
            self._layout, self._cards = None, {}

    async def aclose(self) -> None:
        """Releases what this process holds; the network stays."""
        async with self._lock:
            self._nft.close()

    @staticmethod
    def counters() -> Mapping[str, LinkCounters]:
        """By device, see `Nic.device`; also of devices that are no VE's."""
        return read_counters()

    async def _difference(self, new: Layout) -> tuple[Step, ...]:
        want = wanted(self._settings, new)
        found = await links.read(self._settings, want.sysctls)
        await self._refuse_another(found, want)
        return plan(self._settings, found, want)

    async def _refuse_another(self, found: Wiring, want: Wiring) -> None:
        difference = another_network(found, want)
        if not difference:
            return
        live = self.counters().keys() & (await self._known_cards()).keys()
        if live:
            raise Conflict(
                f"this host's overlay has {difference}, and {len(live)} VEs run on it",
                hint="stop the VEs of this host before its network is changed",
            )

    async def _filter(self, new: Layout) -> None:
        """Puts in place the tables that are missing or not as they should be, cards included."""
        cards = await self._known_cards()
        marks = {
            (f"{each.chain.family} {each.chain.table}", each.chain.name)
            for each in await self._nft.list("list chains")
            if each.chain is not None
        }
        stale = [
            table
            for table in filters.tables(self._settings, new)
            if (table.name, table.mark) not in marks
        ]
        if stale:
            await self._nft.run(_replacement(stale, cards.values()))
            log.info("packet filter set", tables=[table.name for table in stale])

    async def _run(self, commands: str) -> None:
        """Runs commands on the cards, which `self._cards` has already; puts the filter back if somebody removed it."""
        try:
            await self._nft.run(commands)
        except RemoteFailed as error:
            if self._layout is None:
                raise
            log.warning("packet filter damaged", words=error.message)
            tables = filters.tables(self._settings, self._layout)
            cards = await self._known_cards()
            await self._nft.run(_replacement(tables, cards.values()))

    async def _known_cards(self) -> dict[str, Card]:
        if self._cards is None:
            self._cards = {each.device: each for each in await self._held_cards()}
        return self._cards

    async def _held_cards(self) -> list[Card]:
        names = {
            f"{each.table.family} {each.table.name}"
            for each in await self._nft.list("list tables")
            if each.table is not None
        }
        if filters.BRIDGE not in names:
            return []
        return [
            Card(*element.concat)
            for each in await self._nft.list(f"list table {filters.BRIDGE}")
            if each.set is not None and each.set.name == "cards"
            for element in each.set.elem
        ]

    def _set_up(self) -> Layout:
        if self._layout is None:
            raise Unavailable(
                "this host's network is not set up yet",
                hint="it is when the host got its first set from a controller",
            )
        return self._layout

    def _nic(self, current: Layout, new: Card) -> Nic:
        return Nic(
            bridge=self._settings.bridge,
            device=new.device,
            mac=new.mac,
            address=new.ip,
            prefix_length=current.pool.prefixlen,
            gateway=str(current.gateway),
            mtu=self._settings.mtu,
        )


@dataclass(frozen=True, slots=True)
class _Rate:
    """Rates in force on the device that had this number: a start makes a new device of the same name."""

    index: int
    in_bps: int
    out_bps: int


def _index(device: str) -> int:
    """0: there is none."""
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return 0


def _replacement(tables: Iterable[Table], cards: Iterable[Card]) -> str:
    """One transaction: at no moment is there a VE without its filter."""
    return "".join(
        table.replacement() + (filters.add_cards(cards) if table.name == filters.BRIDGE else "")
        for table in tables
    )
