"""The store on an etcd cluster of three, whose members die and stand still: nothing is lost, nothing is written twice."""

import asyncio
import signal

import pytest

from kit.certs import issue, make_ca
from kit.etcdcluster import etcd_cluster, store_on
from veapi.channel import Identity
from veapi.clock import SystemClock
from veapi.errors import Unavailable
from vecontroller.leader import acquire
from vecontroller.store.etcd import EtcdStore
from vecontroller.store.port import Ambiguous, Guard, Put

ROOT = "/t/"
COUNT = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with etcd_cluster(tmp_path_factory.mktemp("cluster") / "etcd") as found:
        yield found


@pytest.fixture(autouse=True)
async def whole(cluster):
    """All members run before each test."""
    for member in cluster.members:
        if member.process.poll() is not None:
            cluster.start(member)
        member.send(signal.SIGCONT)
    await cluster.until_answers()


async def settle(store, key, value):
    """Writes once, whatever happens: looks before it tries again, as all of our writers do. Gives how often it tried."""
    for tries in range(1, 200):
        item = await store.get(key)
        if item is not None and item.value == value:
            return tries - 1
        guard = Guard(key=key, mod_revision=item.mod_revision if item else 0)
        try:
            await store.transact([guard], [Put(key=key, value=value)])
        except Ambiguous:
            continue
        except Unavailable:
            await asyncio.sleep(0.1)
    raise AssertionError(f"{key} was never written")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_loss_of_etcds_leader_loses_no_write_and_no_event(cluster, number):
    lost = await asyncio.to_thread(cluster.leader)
    prefix = f"{ROOT}{number.name}/"
    async with store_on(cluster, lost) as store:
        head = await store.head()
        seen: list[tuple[str, int]] = []
        watching = asyncio.create_task(collect(store, prefix, head, seen, COUNT))
        for i in range(COUNT):
            if i == COUNT // 3:
                lost.send(number)
            await settle(store, f"{prefix}{i:03}", b"x")
        await asyncio.wait_for(watching, 60)
        assert [key for key, _ in seen] == [f"{prefix}{i:03}" for i in range(COUNT)]
        items = (await store.list(prefix)).items
        assert all(item.mod_revision == item.create_revision for item in items)
        assert [(item.key, item.mod_revision) for item in items] == seen


async def collect(store, prefix, after, seen, count):
    async for batch in store.watch(prefix, after):
        seen.extend((event.key, event.revision) for event in batch.events)
        if len(seen) >= count:
            return


async def test_a_controller_leads_on_when_etcds_leader_dies(cluster):
    lost = await asyncio.to_thread(cluster.leader)
    clock = SystemClock()
    async with store_on(cluster, lost) as store, store_on(cluster) as other:
        term = await acquire(store, name="c1", address="a:1", run_id="r1", clock=clock)
        standing_by = asyncio.create_task(
            acquire(other, name="c2", address="b:1", run_id="r2", clock=clock)
        )
        beating = asyncio.create_task(term.keep_beating())
        await term.confirmed_after(clock.boot())
        lost.send(signal.SIGKILL)
        await asyncio.wait_for(term.confirmed_after(clock.boot()), 30)
        await asyncio.wait_for(term.confirmed_after(clock.boot()), 30)
        assert not term.deposed
        assert not standing_by.done()
        for task in (standing_by, beating):
            task.cancel()
        await asyncio.gather(standing_by, beating, return_exceptions=True)
        await term.resign()


async def test_without_a_majority_nothing_is_written_and_that_is_said(cluster):
    async with store_on(cluster) as store:
        await settle(store, f"{ROOT}majority", b"1")
        for member in cluster.members[:2]:
            member.end()
        with pytest.raises(Unavailable):
            await store.transact([], [Put(key=f"{ROOT}majority", value=b"2")])
        for member in cluster.members[:2]:
            cluster.start(member)
        await settle(store, f"{ROOT}majority", b"3")


async def test_members_are_opened_by_certificates_of_etcds_own_ca_alone(cluster, tmp_path):
    stranger = issue(make_ca(tmp_path, "rack"), "controller.rack")
    identity = Identity(ca=cluster.client.ca, cert=stranger.cert, key=stranger.key)
    store = EtcdStore(cluster.endpoints, identity, read_timeout_s=2.0)
    with pytest.raises(Unavailable):
        await store.head()
    await store.aclose()
