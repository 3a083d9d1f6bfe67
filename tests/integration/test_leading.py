"""Mirror, leadership and writer together, on a real etcd that is killed, compacted and cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from kit.etcds import forget_data, kill, lasting_etcd, real_etcd, store_of  # noqa: F401 - a fixture
from kit.eventually import eventually
from kit.proxy import Proxy, proxied
from kit.world import make_ve
from veapi.clock import SystemClock
from veapi.model import Uid
from vecontroller.leader import Leadership, NotLeader, acquire, keep
from vecontroller.mirror import Mirror
from vecontroller.store import keys, values
from vecontroller.store.etcd import EtcdStore
from vecontroller.store.port import Delete, Guard, Put
from vecontroller.store.watch import WatchTiming
from vecontroller.topic import Topic
from vecontroller.writer import LostRace, Writer

CLOCK = SystemClock()
FAST = WatchTiming(idle_s=0.3, last_backoff_s=0.2)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with lasting_etcd(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture
async def etcd(shared):
    """The module's etcd, emptied."""
    async with store_of(shared) as store:
        found = [item.key for item in (await store.list(keys.ROOT)).items]
        await store.transact([], [Delete(key=key) for key in found])
    return shared


class Controller:
    """The part of a controller that knows the store."""

    def __init__(self, name: str, store: EtcdStore) -> None:
        self.name = name
        self.store = store
        self.topic = Topic()
        self.mirror = Mirror(store, self.topic, CLOCK)
        self.term: Leadership | None = None
        self.writer = Writer(store, self.mirror, lambda: self.term)
        self.candidacy: asyncio.Task[None] | None = None

    def stand(self) -> None:
        self.candidacy = asyncio.create_task(self._lead())

    async def _lead(self) -> None:
        self.term = await acquire(
            self.store, name=self.name, address="127.0.0.1:1", run_id=self.name, clock=CLOCK
        )
        await keep(self.term)

    async def freeze(self) -> None:
        """Its beats stop, as those of a killed process do."""
        assert self.candidacy is not None
        self.candidacy.cancel()
        with suppress(asyncio.CancelledError):
            await self.candidacy

    async def create(self, uid: str, op_id: str = "op") -> int:
        key = keys.ve_spec(Uid(uid))
        value = values.encode_ve(make_ve(uid, op_id=op_id))
        return await self.writer.commit(
            [Guard(key=key, mod_revision=0)], [Put(key=key, value=value)], confirm=(key, op_id)
        )

    @property
    def won(self) -> Leadership:
        """The term, once there is one."""
        assert self.term is not None
        return self.term

    @property
    def uids(self) -> set[str]:
        return set(self.mirror.view.ves)


@asynccontextmanager
async def controller(etcd, name: str, *endpoints: str) -> AsyncIterator[Controller]:
    async with store_of(etcd, *endpoints, timing=FAST) as store:
        it = Controller(name, store)
        await it.mirror.start()
        following = asyncio.create_task(it.mirror.run())
        try:
            yield it
            assert not following.done(), following
        finally:
            following.cancel()
            if it.candidacy is not None:
                await it.freeze()
            await asyncio.gather(following, return_exceptions=True)


async def test_of_two_candidates_one_leads_and_the_other_takes_over(etcd) -> None:
    async with controller(etcd, "c1") as one, controller(etcd, "c2") as two:
        one.stand()
        two.stand()
        await eventually(lambda: one.term or two.term)
        lead, standby = (one, two) if one.term else (two, one)
        await lead.won.confirmed_after(CLOCK.boot())
        assert standby.term is None

        await lead.freeze()
        waiting = asyncio.create_task(lead.won.confirmed_after(CLOCK.boot()))
        await eventually(lambda: standby.term)
        assert standby.won.epoch > lead.won.epoch
        await standby.won.confirmed_after(CLOCK.boot())
        await standby.create("u1")

        with pytest.raises(NotLeader):
            await lead.create("u2")
        assert lead.won.lost.is_set()
        with pytest.raises(NotLeader):
            await waiting
        await eventually(lambda: one.uids == two.uids == {"u1"})
        assert one.mirror.view.leader is not None
        assert one.mirror.view.leader.value.name == standby.name


async def test_a_deposed_leader_that_wakes_confirms_nothing(etcd) -> None:
    async with (
        proxied(etcd.endpoint) as proxy,
        controller(etcd, "c1", proxy.endpoint) as old,
        controller(etcd, "c2") as new,
    ):
        old.stand()
        await eventually(lambda: old.term)
        await old.won.confirmed_after(CLOCK.boot())
        proxy.freeze()
        heartbeat = asyncio.create_task(old.won.confirmed_after(CLOCK.boot()))
        new.stand()
        await eventually(lambda: new.term)
        assert not heartbeat.done()
        proxy.cut()
        proxy.thaw()
        with pytest.raises(NotLeader):
            await heartbeat
        assert old.won.deposed
        assert not new.won.deposed


async def test_kill_9_of_etcd_costs_the_leader_nothing(tmp_path) -> None:
    async with real_etcd(tmp_path) as etcd, controller(etcd, "c1") as it:
        it.stand()
        await eventually(lambda: it.term)
        await it.create("u1")
        dead = kill(etcd)
        await it.won.confirmed_after(CLOCK.boot())
        assert etcd.pid != dead
        await it.create("u2")
        assert it.uids == {"u1", "u2"}
        assert not it.won.deposed
        assert it.mirror.relists == 0


async def test_after_compaction_the_mirror_lists_again_and_deletes_what_vanished(etcd) -> None:
    async with (
        proxied(etcd.endpoint) as proxy,
        controller(etcd, "c1", proxy.endpoint) as it,
        store_of(etcd) as other,
    ):
        await write_specs(other, "u1", "u2")
        await eventually(lambda: it.uids == {"u1", "u2"})
        with it.topic.subscribe() as subscription:
            proxy.freeze()
            await other.transact([], [Delete(key=keys.ve_spec(Uid("u1")))])
            await other.compact(await write_specs(other, "u3"))
            proxy.cut()
            proxy.thaw()
            await eventually(lambda: it.mirror.relists == 1)
            assert it.uids == {"u2", "u3"}
            assert (await subscription.next()).ves == {"u1", "u3"}
        await write_specs(other, "u4")
        await eventually(lambda: "u4" in it.uids)


async def write_specs(store: EtcdStore, *uids: str) -> int:
    puts = [Put(key=keys.ve_spec(Uid(uid)), value=values.encode_ve(make_ve(uid))) for uid in uids]
    return (await store.transact([], puts)).revision


async def lost_answer(proxy: Proxy, other: EtcdStore, *, applied: bool) -> None:
    """Waits for the next write of a frozen proxy's client, then cuts it off and lets it come back."""
    if applied:
        async with asyncio.timeout(10):
            while await other.get(keys.ve_spec(Uid("u1"))) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    else:
        await asyncio.sleep(0.2)
    proxy.cut()
    proxy.thaw()


@pytest.mark.parametrize("applied", [True, False])
async def test_a_write_of_unknown_outcome_is_decided_by_its_op_id(etcd, *, applied: bool) -> None:
    async with (
        proxied(etcd.endpoint) as proxy,
        controller(etcd, "c1", proxy.endpoint) as it,
        store_of(etcd) as other,
    ):
        it.term = await acquire(it.store, name="c1", address="a", run_id="r", clock=CLOCK)
        proxy.freeze(requests=not applied)
        creating = asyncio.create_task(it.create("u1"))
        await lost_answer(proxy, other, applied=applied)
        revision = await creating
        item = await other.get(keys.ve_spec(Uid("u1")))
        assert item is not None
        assert item.mod_revision == item.create_revision == revision
        assert it.writer.ambiguous == 1
        with pytest.raises(LostRace):
            await it.create("u1", "another")
