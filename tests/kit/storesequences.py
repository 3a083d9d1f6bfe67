"""Random sequences of what a store can be asked, and what came of them, in words that two stores can be compared by.

Revisions are told relative to the first one of the sequence, so that the same sequence gives the same words on a new model
and on an etcd that has seen others before. Keys are few, so that guards hold and fail about as often.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from kit.storecontract import Compact, take
from vecontroller.store.port import Compacted, Delete, Guard, Put, Store, StoreItem, Write

KEYS = "abcd"
STEPS = 14
Told = tuple[object, ...]


@dataclass(slots=True)
class _Sequence:
    store: Store
    compact: Compact
    prefix: str
    rng: Random
    base: int = 0
    newest: int = 0
    compacted: int = 0

    async def run(self) -> list[Told]:
        self.base = self.newest = self.compacted = (await self.store.list(self.prefix)).revision
        return [await self._step() for _ in range(STEPS)]

    async def _step(self) -> Told:
        draw = self.rng.random()
        if draw < 0.65:
            return await self._transact()
        if draw < 0.75:
            item = await self.store.get(self._key())
            return ("get", self._item(item) if item is not None else None)
        if draw < 0.85:
            found = await self.store.list(self.prefix)
            return ("list", found.revision - self.base, *map(self._item, found.items))
        if draw < 0.96:
            return await self._watch()
        return await self._compact()

    async def _transact(self) -> Told:
        """Guards on what is there, on nothing, and on what never was."""
        guards = [await self._guard(key) for key in self._some(3)]
        writes = [self._write(key) for key in self._some(3) or [KEYS[0]]]
        done = await self.store.transact(guards, writes)
        self.newest = done.revision
        return ("transact", done.succeeded, done.revision - self.base, *map(self._item, done.found))

    async def _guard(self, key: str) -> Guard:
        found = await self.store.get(self.prefix + key)
        now = found.mod_revision if found is not None else 0
        wrong = self.rng.choice((0, self.newest, self.newest + 1))
        right = self.rng.random() < 0.75
        return Guard(key=self.prefix + key, mod_revision=now if right else wrong)

    def _write(self, key: str) -> Write:
        value = b"%d" % self.rng.randrange(100)
        if self.rng.random() < 0.3:
            return Delete(key=self.prefix + key)
        return Put(key=self.prefix + key, value=value)

    async def _watch(self) -> Told:
        """All from some revision on, also from one that is gone."""
        after = self.rng.randint(self.base, max(self.base, self.newest))
        if after == self.newest:
            return ("watch", "nothing")
        try:
            events = await take(self.store.watch(self.prefix, after), until=self.newest)
        except Compacted:
            return ("watch", "compacted")
        told = [
            (e.revision - self.base, e.key[len(self.prefix) :], e.item and self._item(e.item))
            for e in events
        ]
        return ("watch", *sorted(told, key=str))

    async def _compact(self) -> Told:
        if self.newest <= self.compacted:
            return ("compact", "nothing")
        self.compacted = self.rng.randint(self.compacted + 1, self.newest)
        await self.compact(self.compacted)
        return ("compact", self.compacted - self.base)

    def _key(self) -> str:
        return self.prefix + self.rng.choice(KEYS)

    def _some(self, most: int) -> Sequence[str]:
        return self.rng.sample(KEYS, self.rng.randint(0, most))

    def _item(self, item: StoreItem) -> Told:
        key = item.key[len(self.prefix) :]
        return key, item.value, item.mod_revision - self.base, item.create_revision - self.base


async def told(store: Store, compact: Compact, seed: int) -> list[Told]:
    """What came of the sequence of this seed; nobody else may write meanwhile."""
    async with asyncio.timeout(60):
        return await _Sequence(store, compact, f"/verack/{seed}/", Random(seed)).run()
