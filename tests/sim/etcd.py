"""The model etcd as controllers reach it: over the network, with answers that are lost, late or old, and watches that lag."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import takewhile
from random import Random
from typing import Any, TypeVar

from kit.modelstore import ModelEtcd
from sim.loop import SimLoop
from sim.network import OUTSIDE, Network
from sim.process import Process
from veapi.errors import Unavailable
from vecontroller.store import limits
from vecontroller.store.port import (
    Ambiguous,
    Batch,
    Guard,
    Put,
    Snapshot,
    StoreEvent,
    StoreItem,
    Transacted,
    Write,
)

NODE = "etcd"
TRY_S = 2.0
READ_S = 10.0
"""As `vecontroller.store.etcd` has them."""
LATE_S = 6.0
"""How long a write whose answer nobody waits for any more may be under way."""
T = TypeVar("T")
Committed = Callable[[str, int, Sequence[StoreEvent]], None]
"""Who wrote, the epoch of his term, and what."""


class SimEtcd(ModelEtcd):
    """`paused_until`: it elects a leader. `committed` is told who wrote what. `history` has all of it, compacted or not."""

    def __init__(self, loop: SimLoop) -> None:
        super().__init__()
        self.loop = loop
        self.paused_until = 0.0
        self.committed: Committed = lambda *_: None
        self.history: list[StoreEvent] = []
        self.watches: dict[asyncio.Event, None] = {}

    def write(
        self, who: str, epoch: int, guards: Sequence[Guard], writes: Sequence[Write]
    ) -> Transacted:
        before = self.revision
        done = self.transact(guards, writes)
        if done.succeeded and self.revision > before:
            events = list(takewhile(lambda e: e.revision == self.revision, reversed(self._history)))
            self.history += events
            self.committed(who, epoch, events)
        return done

    def wake(self) -> None:
        for event in self.watches:
            event.set()

    def at(self, revision: int) -> dict[str, StoreItem]:
        """All keys as they were."""
        found: dict[str, StoreItem] = {}
        for event in self.history:
            if event.revision > revision:
                break
            if event.item is None:
                found.pop(event.key, None)
            else:
                found[event.key] = event.item
        return found

    def seed(self, writes: Sequence[Put]) -> None:
        """What is there when the story begins."""
        self.write("the story", 0, [], writes)


class SimStore:
    """vecontroller.store.port.Store, of one process."""

    def __init__(
        self,
        etcd: SimEtcd,
        network: Network,
        process: Process,
        node: str,
        rng: Random,
        *,
        loss: float,
    ) -> None:
        self._etcd = etcd
        self._network = network
        self._process = process
        self._node = node
        self._rng = rng
        self.loss = loss
        self.watch_cut = False
        self.epoch: Callable[[], int] = lambda: 0

    async def get(self, key: str) -> StoreItem | None:
        return await self._read(lambda: self._etcd.items.get(key))

    async def list(self, prefix: str) -> Snapshot:
        return await self._read(lambda: self._etcd.snapshot(prefix))

    async def transact(self, guards: Sequence[Guard], writes: Sequence[Write]) -> Transacted:
        limits.check(guards, writes)
        if self._network.is_cut(self._node, NODE) and self._rng.random() < 0.5:
            await self._process.clock.sleep(0.1)
            raise Unavailable("etcd can't be reached")
        try:
            work, epoch = self._etcd.write, self.epoch()
            return await self._ask(lambda: work(self._node, epoch, guards, writes), late=True)
        except TimeoutError:
            raise Ambiguous("etcd did not say whether it wrote") from None

    async def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Batch]:
        woken = asyncio.Event()
        woken.set()
        etcd = self._etcd
        etcd.watches[woken] = None
        self._process.on_death.append(lambda: etcd.watches.pop(woken, None))
        try:
            while True:
                await woken.wait()
                woken.clear()
                await self._process.clock.sleep(self._network.delay_s(NODE, self._node))
                while self._blind():
                    await self._process.clock.sleep(0.25)
                events = etcd.events_after(prefix, after_revision)
                if not events:
                    continue
                last = self._rng.choice(events).revision if len(events) > 1 else events[-1].revision
                batch = tuple(event for event in events if event.revision <= last)
                if last < events[-1].revision:
                    woken.set()
                after_revision = last
                yield Batch(revision=last, events=batch)
        finally:
            etcd.watches.pop(woken, None)

    async def aclose(self) -> None:
        """There is nothing to close."""

    def _blind(self) -> bool:
        return (
            self.watch_cut
            or self._network.is_cut(NODE, self._node)
            or self._network.is_cut(self._node, NODE)
        )

    async def _read(self, work: Callable[[], T]) -> T:
        clock = self._process.clock
        until = clock.boot() + READ_S
        while True:
            try:
                return await self._ask(work, late=False)
            except TimeoutError:
                if clock.boot() >= until:
                    raise Unavailable("etcd does not answer") from None

    async def _ask(self, work: Callable[[], T], *, late: bool) -> T:
        """One request and its answer. TimeoutError: nobody knows what became of it."""
        answer: asyncio.Future[T] = self._process.loop.create_future()
        self._travel(self._node, NODE, self._arrive, work, answer, late)
        async with asyncio.timeout(TRY_S):
            return await answer

    def _travel(self, source: str, target: str, then: Callable[..., None], *args: Any) -> None:
        """Lost when the path is cut; now and then for no reason at all."""
        delay = self._network.delay_s(source, target)
        fate = self._rng.random()
        if fate < self.loss:
            if source != self._node or fate < self.loss / 3 or not args[-1]:
                return
            delay += self._rng.uniform(0, LATE_S)
        if not self._network.is_cut(source, target):
            self._process.loop.call_later(delay, then, *args, context=OUTSIDE)

    def _arrive(self, work: Callable[[], Any], answer: "asyncio.Future[Any]", late: bool) -> None:  # noqa: FBT001
        loop, etcd = self._process.loop, self._etcd
        if etcd.paused_until > loop.time():
            # While etcd elects, some requests wait and some are dropped.
            if self._rng.random() < 0.5:
                loop.call_at(etcd.paused_until, self._arrive, work, answer, late, context=OUTSIDE)
            return
        try:
            result: Any = work()
        except Exception as error:  # noqa: BLE001 - the answer
            result = error
        self._travel(NODE, self._node, _answer, answer, result, False)


def _answer(answer: "asyncio.Future[Any]", result: Any, _late: bool) -> None:  # noqa: FBT001
    if answer.done():
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
