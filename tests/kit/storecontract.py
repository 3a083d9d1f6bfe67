"""What every `Store` must do, for the model and for etcd alike: each function is one promise of the port."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest

from vecontroller.store.port import Batch, Compacted, Delete, Guard, Put, Store, StoreEvent, Write

ROOT = "/verack/"
Compact = Callable[[int], Awaitable[None]]
Promise = Callable[[Store, Compact], Awaitable[None]]


async def put(store: Store, key: str, value: bytes = b"x") -> int:
    done = await store.transact([], [Put(key=ROOT + key, value=value)])
    assert done.succeeded
    return done.revision


async def take(batches: AsyncIterator[Batch], *, until: int) -> list[StoreEvent]:
    """The events up to the revision `until`."""
    events: list[StoreEvent] = []
    async with asyncio.timeout(30):
        async for batch in batches:
            assert batch.revision == batch.events[-1].revision
            events += batch.events
            if batch.revision >= until:
                return events
    raise AssertionError("the watch ended")


async def a_key_is_read_with_its_revisions(store: Store, compact: Compact) -> None:
    assert await store.get(ROOT + "a") is None
    first = await put(store, "a", b"1")
    second = await put(store, "a", b"2")
    item = await store.get(ROOT + "a")
    assert item is not None
    assert (item.value, item.create_revision, item.mod_revision) == (b"2", first, second)


async def a_list_is_all_of_the_prefix_at_one_revision(store: Store, compact: Compact) -> None:
    for name in ("x/1", "x/2", "xy"):
        last = await put(store, name)
    snapshot = await store.list(ROOT + "x/")
    assert [item.key for item in snapshot.items] == [ROOT + "x/1", ROOT + "x/2"]
    assert snapshot.revision == last


async def a_guard_holds_only_at_its_revision(store: Store, compact: Compact) -> None:
    made = await put(store, "a", b"1")
    writes = [Put(key=ROOT + "a", value=b"2")]
    refused = await store.transact([Guard(key=ROOT + "a", mod_revision=made - 1)], writes)
    assert not refused.succeeded
    assert [item.value for item in refused.found] == [b"1"]
    assert refused.revision == made
    assert (await store.transact([Guard(key=ROOT + "a", mod_revision=made)], writes)).succeeded


async def a_guard_of_zero_wants_no_key(store: Store, compact: Compact) -> None:
    guards = [Guard(key=ROOT + "a", mod_revision=0)]
    writes = [Put(key=ROOT + "a", value=b"1")]
    assert (await store.transact(guards, writes)).succeeded
    assert not (await store.transact(guards, writes)).succeeded
    await store.transact([], [Delete(key=ROOT + "a")])
    assert (await store.transact(guards, writes)).succeeded


async def what_is_found_leaves_out_keys_that_are_not_there(store: Store, compact: Compact) -> None:
    await put(store, "a")
    guards = [Guard(key=ROOT + "a", mod_revision=0), Guard(key=ROOT + "b", mod_revision=9)]
    refused = await store.transact(guards, [Delete(key=ROOT + "a")])
    assert [item.key for item in refused.found] == [ROOT + "a"]


async def a_transaction_is_one_revision(store: Store, compact: Compact) -> None:
    await put(store, "old")
    before = (await store.list(ROOT)).revision
    writes: list[Write] = [
        Put(key=ROOT + "a", value=b""),
        Put(key=ROOT + "b", value=b""),
        Delete(key=ROOT + "old"),
    ]
    done = await store.transact([], writes)
    assert done.revision == before + 1
    events = await take(store.watch(ROOT, before), until=done.revision)
    assert {(event.key, event.revision) for event in events} == {
        (write.key, done.revision) for write in writes
    }


async def deleting_what_is_not_there_changes_nothing(store: Store, compact: Compact) -> None:
    made = await put(store, "a")
    done = await store.transact([], [Delete(key=ROOT + "b")])
    assert done.succeeded
    assert done.revision == made


async def a_key_that_is_made_again_has_a_new_create_revision(
    store: Store, compact: Compact
) -> None:
    await put(store, "a")
    await store.transact([], [Delete(key=ROOT + "a")])
    again = await put(store, "a")
    item = await store.get(ROOT + "a")
    assert item is not None
    assert item.create_revision == again


async def a_transaction_of_full_size_is_taken(store: Store, compact: Compact) -> None:
    guards = [Guard(key=f"{ROOT}{number}", mod_revision=0) for number in range(101)]
    writes = [Put(key=f"{ROOT}{number}", value=b"x" * 8192) for number in range(100)]
    assert (await store.transact(guards, writes)).succeeded
    assert len((await store.transact(guards, writes)).found) == 100


async def a_transaction_over_the_limit_is_a_programmers_error(
    store: Store, compact: Compact
) -> None:
    with pytest.raises(AssertionError):
        await store.transact([], [Delete(key=f"{ROOT}{number}") for number in range(101)])
    with pytest.raises(AssertionError):
        await store.transact([], [Delete(key=ROOT + "a"), Put(key=ROOT + "a", value=b"")])


async def a_watch_gives_exactly_the_later_events(store: Store, compact: Compact) -> None:
    first = await put(store, "a", b"1")
    await put(store, "other", b"")
    watch = store.watch(ROOT, first)
    await put(store, "a", b"2")
    last = (await store.transact([], [Delete(key=ROOT + "a")])).revision
    events = await take(watch, until=last)
    assert [(event.key, event.item and event.item.value) for event in events] == [
        (ROOT + "other", b""),
        (ROOT + "a", b"2"),
        (ROOT + "a", None),
    ]


async def a_watch_of_the_future_waits(store: Store, compact: Compact) -> None:
    now = await put(store, "a")
    reading = asyncio.ensure_future(anext(store.watch(ROOT, now)))
    await asyncio.sleep(0.05)
    assert not reading.done()
    later = await put(store, "b")
    assert (await asyncio.wait_for(reading, 10)).revision == later


async def a_watch_from_a_compacted_revision_says_so(store: Store, compact: Compact) -> None:
    first = await put(store, "a", b"1")
    for _ in range(5):
        last = await put(store, "a", b"2")
    await compact(last)
    for gone in (first, last - 1):  # old etcds leave out deletes at the first revision that is left
        with pytest.raises(Compacted):
            await asyncio.wait_for(anext(store.watch(ROOT, gone)), 10)
    newer = await put(store, "a", b"3")
    assert len(await take(store.watch(ROOT, last), until=newer)) == 1


PROMISES: Mapping[str, Promise] = {
    promise.__name__: promise
    for promise in (
        a_key_is_read_with_its_revisions,
        a_list_is_all_of_the_prefix_at_one_revision,
        a_guard_holds_only_at_its_revision,
        a_guard_of_zero_wants_no_key,
        what_is_found_leaves_out_keys_that_are_not_there,
        a_transaction_is_one_revision,
        deleting_what_is_not_there_changes_nothing,
        a_key_that_is_made_again_has_a_new_create_revision,
        a_transaction_of_full_size_is_taken,
        a_transaction_over_the_limit_is_a_programmers_error,
        a_watch_gives_exactly_the_later_events,
        a_watch_of_the_future_waits,
        a_watch_from_a_compacted_revision_says_so,
    )
}
