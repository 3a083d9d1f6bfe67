"""The model of etcd keeps the promises of the port, and fails as it is told."""

import pytest

from kit.modelstore import Fail, ModelStore
from kit.storecontract import PROMISES, ROOT, put
from veapi.errors import Unavailable
from vecontroller.store.port import Ambiguous, Guard, Put, Regressed

WRITE = [Put(key=ROOT + "a", value=b"1")]


@pytest.mark.parametrize("name", PROMISES)
async def test_the_model_keeps_the_promise(name: str) -> None:
    store = ModelStore()

    async def compact(revision: int) -> None:
        store.etcd.compact(revision)

    await PROMISES[name](store, compact)


@pytest.mark.parametrize(("how", "there"), [(Fail.APPLIED, True), (Fail.LOST, False)])
async def test_an_ambiguous_write_was_applied_or_not(how: Fail, *, there: bool) -> None:
    store = ModelStore()
    store.fail_writes(how)
    with pytest.raises(Ambiguous):
        await store.transact([], WRITE)
    assert (await store.get(ROOT + "a") is not None) is there


async def test_a_late_write_lands_with_its_guards() -> None:
    store = ModelStore()
    store.fail_writes(Fail.LATE)
    with pytest.raises(Ambiguous):
        await store.transact([Guard(key=ROOT + "a", mod_revision=0)], WRITE)
    assert await store.get(ROOT + "a") is None
    await put(store, "a", b"2")
    store.land_late_writes()
    item = await store.get(ROOT + "a")
    assert item is not None
    assert item.value == b"2"


async def test_a_refused_write_is_unavailable_and_not_ambiguous() -> None:
    store = ModelStore()
    store.fail_writes(Fail.REFUSED)
    with pytest.raises(Unavailable) as refused:
        await store.transact([], WRITE)
    assert not isinstance(refused.value, Ambiguous)
    assert await store.get(ROOT + "a") is None


async def test_switches_are_of_one_client() -> None:
    store = ModelStore()
    other = ModelStore(store.etcd)
    store.away = True
    with pytest.raises(Unavailable):
        await store.get(ROOT + "a")
    await put(other, "a")
    store.away = False
    assert await store.get(ROOT + "a") is not None


async def test_a_healed_watch_goes_on_where_it_was() -> None:
    store = ModelStore()
    watch = store.watch(ROOT, store.etcd.revision)
    await put(store, "a")
    assert [event.key for event in (await anext(watch)).events] == [ROOT + "a"]
    store.cut_watches()
    await put(store, "b")
    await put(store, "c")
    store.heal_watches()
    assert [event.key for event in (await anext(watch)).events] == [ROOT + "b", ROOT + "c"]


async def test_a_restored_cluster_is_told_to_watchers() -> None:
    store = ModelStore()
    await put(store, "a")
    old = store.etcd.snapshot()
    await put(store, "b")
    watch = store.watch(ROOT, store.etcd.revision)
    store.etcd.restore(old)
    with pytest.raises(Regressed):
        await anext(watch)
    assert await store.get(ROOT + "b") is None
