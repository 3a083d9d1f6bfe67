"""The mirror shows the store as it is, whatever happened on the way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.eventually import eventually
from kit.manualclock import ManualClock
from kit.modelstore import ModelStore
from kit.world import make_facts, make_placement, make_ve
from veapi.errors import TimedOut
from veapi.model import Cluster, HostName, Project, Uid, VEState, VEStatus
from vecontroller import fold
from vecontroller.mirror import AUDIT_EVERY_S, Mirror
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Put, StoreItem, Write
from vecontroller.topic import Subscription, Topic
from vecontroller.view import Changed, View

HOSTS = ("h1", "h2", "h3")
UIDS = tuple(f"u{number}" for number in range(4))


class Following:
    """A mirror that runs on a model store, and one who hears its changes."""

    def __init__(self) -> None:
        self.store = ModelStore()
        self.clock = ManualClock()
        self.topic = Topic()
        self.mirror = Mirror(self.store, self.topic, self.clock)
        self.subscription: Subscription

    @property
    def view(self) -> View:
        return self.mirror.view

    async def write(self, *writes: Write) -> Changed:
        """Writes, and gives what was heard of it."""
        done = await self.store.transact([], writes)
        await self.mirror.reached(done.revision)
        return await asyncio.wait_for(self.subscription.next(), 1)


@asynccontextmanager
async def following(*first: Write) -> AsyncIterator[Following]:
    it = Following()
    if first:
        await it.store.transact([], first)
    await it.mirror.start()
    with it.topic.subscribe() as it.subscription:
        running = asyncio.create_task(it.mirror.run())
        try:
            yield it
        finally:
            running.cancel()


def spec(uid: str, **options) -> Put:
    return Put(key=keys.ve_spec(Uid(uid)), value=values.encode_ve(make_ve(uid, **options)))


def placed(uid: str, host: str) -> Put:
    return Put(key=keys.ve_placement(Uid(uid)), value=values.encode_placement(make_placement(host)))


def status(uid: str, state: VEState = VEState.RUNNING) -> Put:
    return Put(key=keys.ve_status(Uid(uid)), value=values.encode_status(VEStatus(state=state)))


def fresh_view(store: ModelStore) -> View:
    """What a mirror that begins now would show."""
    view = View(revision=store.etcd.revision)
    for item in store.etcd.snapshot(keys.ROOT).items:
        fold.apply(view, item.key, item, fold.Changes())
    return view


async def test_a_list_then_the_later_events_make_the_view() -> None:
    async with following(spec("u1"), placed("u1", "h1")) as it:
        assert it.view.ves[Uid("u1")].value.uid == "u1"
        await it.write(spec("u2"), status("u2"), Delete(key=keys.ve_spec(Uid("u1"))))
        assert set(it.view.ves) == {"u2"}
        assert it.view.statuses[Uid("u2")].value.state is VEState.RUNNING
        assert it.view.revision == it.store.etcd.revision


async def test_what_changed_names_the_hosts_before_and_after_a_move() -> None:
    async with following(spec("u1"), placed("u1", "h1")) as it:
        changed = await it.write(placed("u1", "h2"))
        assert changed.placed == {"h1", "h2"}
        assert changed.ves == {"u1"}
        assert it.view.placed_on == {"h2": {"u1"}}


async def test_what_changed_names_the_host_of_a_changed_spec_but_not_of_a_status() -> None:
    async with following(spec("u1"), placed("u1", "h1")) as it:
        assert (await it.write(spec("u1", restart_seq=1))).placed == {"h1"}
        changed = await it.write(status("u1"))
        assert changed == Changed(revision=it.view.revision, ves=frozenset({Uid("u1")}))


async def test_what_changed_names_hosts_images_and_projects() -> None:
    async with following() as it:
        facts = values.encode_host_status(make_facts())
        changed = await it.write(Put(key=keys.host_status(HostName("h1")), value=facts))
        assert changed.hosts == {"h1"}
        assert not changed.images
        tag = values.encode_ref("sha256:x")
        assert (await it.write(Put(key=keys.image_tag("base"), value=tag))).images
        project = values.encode_project(Project(name="p", created_at=0))
        assert (await it.write(Put(key=keys.project("p"), value=project))).projects
        cluster = values.encode_cluster(Cluster(name="rack"))
        assert (await it.write(Put(key=keys.CLUSTER, value=cluster))).relisted


async def test_the_leaders_beat_moves_the_revision_and_wakes_nobody() -> None:
    async with following() as it:
        done = await it.store.transact([], [Put(key=keys.BEAT, value=values.encode_beat(1))])
        await it.mirror.reached(done.revision)
        assert it.view.revision == done.revision
        assert it.subscription._pending is None


async def test_who_leads_is_in_the_view() -> None:
    async with following() as it:
        leader = values.Leader("c1", "10.0.0.1:7443", "run")
        await it.write(Put(key=keys.LEADER, value=values.encode_leader(leader)))
        assert it.view.leader is not None
        assert it.view.leader.value == leader
        assert it.view.leader.mod_revision == it.store.etcd.revision


async def test_a_value_that_cant_be_read_leaves_the_view_and_is_counted() -> None:
    async with following(spec("u1"), spec("u2")) as it:
        key = keys.ve_spec(Uid("u1"))
        await it.write(Put(key=key, value=b"\xff garbage"))
        assert set(it.view.ves) == {"u2"}
        assert it.view.quarantined == {key: it.store.etcd.revision}
        await it.write(spec("u1"))
        assert set(it.view.ves) == {"u1", "u2"}
        assert it.view.quarantined == {}


async def test_a_quarantined_key_that_is_deleted_is_forgotten() -> None:
    key = keys.ve_placement(Uid("u1"))
    async with following(Put(key=key, value=b"?")) as it:
        assert list(it.view.quarantined) == [key]
        await it.write(placed("u2", "h1"), Delete(key=key))
        assert it.view.quarantined == {}


async def test_a_spec_below_another_uids_key_is_quarantined() -> None:
    async with following() as it:
        await it.write(Put(key=keys.ve_spec(Uid("u1")), value=values.encode_ve(make_ve("u2"))))
        assert it.view.ves == {}
        assert len(it.view.quarantined) == 1


async def test_keys_of_other_versions_are_left_alone() -> None:
    async with following(Put(key=keys.ROOT + "ve/replica/u1", value=b"?")) as it:
        assert it.view == View(revision=it.store.etcd.revision)


async def test_after_compaction_the_view_is_right_and_what_vanished_is_gone() -> None:
    async with following(spec("u1"), spec("u2"), placed("u1", "h1")) as it:
        it.store.cut_watches()
        await it.store.transact([], [Delete(key=keys.ve_spec(Uid("u1")))])
        await it.store.transact([], [Delete(key=keys.ve_placement(Uid("u1"))), spec("u3")])
        await it.store.transact([], [spec("u4")])
        it.store.etcd.compact(it.store.etcd.revision)
        it.store.heal_watches()
        await it.mirror.reached(it.store.etcd.revision)
        changed = await it.subscription.next()
        assert set(it.view.ves) == {"u2", "u3", "u4"}
        assert it.view.placed_on == {}
        assert changed.relisted
        assert changed.ves == {"u1", "u3", "u4"}
        assert changed.placed == {"h1"}
        assert it.mirror.relists == 1


async def test_after_a_restore_equal_revisions_are_not_trusted() -> None:
    async with following(spec("u1")) as it:
        backup = it.store.etcd.snapshot()
        await it.write(spec("u2", restart_seq=1))
        it.store.cut_watches()
        it.store.etcd.restore(backup)
        await it.store.transact([], [spec("u2", restart_seq=2)])
        it.store.heal_watches()
        await eventually(lambda: it.mirror.relists == 1, 2)
        assert it.view.ves[Uid("u2")].value.restart_seq == 2
        assert it.view == fresh_view(it.store)


async def test_the_mirror_waits_for_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(spec("u1")) as it:
        it.store.cut_watches()
        await it.store.transact([], [spec("u2")])
        await it.store.transact([], [spec("u3")])
        it.store.etcd.compact(it.store.etcd.revision)
        listing = it.store.list

        async def fail_once(prefix: str):
            monkeypatch.setattr(it.store, "list", listing)
            it.store.away = True
            return await listing(prefix)

        monkeypatch.setattr(it.store, "list", fail_once)
        it.store.heal_watches()
        await it.clock.settle()
        assert set(it.view.ves) == {"u1"}
        it.store.away = False
        await it.clock.advance(1)
        assert set(it.view.ves) == {"u1", "u2", "u3"}


async def test_waiting_for_a_revision_that_does_not_come_times_out_with_a_hint() -> None:
    async with following() as it:
        with pytest.raises(TimedOut) as late:
            await it.mirror.reached(10_000, timeout_s=0.01)
        assert late.value.hint


async def test_waiters_wake_in_any_order_of_their_revisions() -> None:
    async with following() as it:
        now = it.store.etcd.revision
        waits = [asyncio.create_task(it.mirror.reached(now + more)) for more in (3, 1, 2, 1)]
        await it.clock.settle()
        await it.write(spec("u1"))
        await it.clock.settle()
        assert [wait.done() for wait in waits] == [False, True, False, True]
        await it.write(spec("u2"))
        await it.write(spec("u3"))
        await asyncio.gather(*waits)


async def test_an_event_that_the_store_lost_is_found_and_repaired() -> None:
    async with following(spec("u1")) as it:
        it.store.etcd.items[keys.ve_spec(Uid("u9"))] = StoreItem(
            key=keys.ve_spec(Uid("u9")),
            value=values.encode_ve(make_ve("u9")),
            mod_revision=2,
            create_revision=2,
        )
        del it.store.etcd.items[keys.ve_spec(Uid("u1"))]
        await it.clock.advance(AUDIT_EVERY_S + 1)
        assert it.mirror.audit_differences == 2
        assert set(it.view.ves) == {"u9"}
        await it.clock.advance(AUDIT_EVERY_S + 1)
        assert it.mirror.audit_differences == 2


async def test_an_audit_during_writes_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(spec("u1")) as it:
        listing = it.store.list

        async def list_then_write(prefix: str):
            snapshot = await listing(prefix)
            done = await it.store.transact([], [Delete(key=keys.ve_spec(Uid("u1"))), spec("u2")])
            await it.mirror.reached(done.revision)
            return snapshot

        monkeypatch.setattr(it.store, "list", list_then_write)
        await it.clock.advance(AUDIT_EVERY_S + 1)
        assert it.mirror.audit_differences == 0
        assert set(it.view.ves) == {"u2"}


puts = st.one_of(
    st.builds(spec, st.sampled_from(UIDS), restart_seq=st.integers(0, 3)),
    st.builds(placed, st.sampled_from(UIDS), st.sampled_from(HOSTS)),
    st.builds(status, st.sampled_from(UIDS), st.sampled_from(VEState)),
    st.builds(
        lambda uid: Put(key=keys.ve_name("p", "n"), value=values.encode_ref(uid)),
        st.sampled_from(UIDS),
    ),
)
spoilt = st.builds(lambda put: Put(key=put.key, value=b"\xff"), puts)
deletes = st.builds(lambda put: Delete(key=put.key), puts)
transactions = st.lists(
    st.one_of(puts, puts, deletes, spoilt), min_size=1, max_size=4, unique_by=lambda w: w.key
)
mishaps = st.sampled_from(["cut", "heal", "compact"])


@given(st.lists(st.one_of(transactions, transactions, mishaps), max_size=25))
def test_the_view_is_always_what_a_fresh_list_would_show(story) -> None:
    async def live() -> None:
        async with following() as it:
            for step in story:
                await play(it, step)
            it.store.heal_watches()
            await it.mirror.reached(it.store.etcd.revision)
            assert it.view == fresh_view(it.store)

    asyncio.run(live())


async def play(it: Following, step) -> None:
    match step:
        case "cut":
            it.store.cut_watches()
        case "heal":
            it.store.heal_watches()
        case "compact":
            if it.store.etcd.compacted < it.store.etcd.revision:
                it.store.etcd.compact(it.store.etcd.revision)
        case writes:
            await it.store.transact([], writes)
    await it.clock.settle()
