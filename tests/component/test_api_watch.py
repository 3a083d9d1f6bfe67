import asyncio
from contextlib import aclosing

import pytest

from kit.apirig import NO_CONTEXT, ApiRig, api_rig, closable, create_request
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.model import Event, EventType, HostName, HostState, VEState
from veapi.v1 import api_pb2
from vecontroller.view import Changed

Kind = api_pb2.VEChange
ADDED, CHANGED, DELETED, SYNCED = (
    Kind.KIND_ADDED,
    Kind.KIND_CHANGED,
    Kind.KIND_DELETED,
    Kind.KIND_SYNCED,
)


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        yield rig


def watching(rig: ApiRig, **fields):
    return aclosing(closable(rig.ve.Watch(api_pb2.WatchVEsRequest(**fields), NO_CONTEXT)))


async def take(watch, count: int) -> list[tuple[int, str]]:
    """The next changes as kind and name."""
    async with asyncio.timeout(5):
        changes = [await anext(watch) for _ in range(count)]
    return [(change.kind, change.ve.name) for change in changes]


async def nothing_more(rig: ApiRig, watch) -> None:
    """What the next change of another VE brings comes first, so nothing was before it."""
    await rig.create("marker")
    assert await take(watch, 1) == [(ADDED, "marker")]


async def test_a_watch_tells_what_is_there_then_that_this_was_all_then_changes(rig: ApiRig) -> None:
    await rig.create("b")
    await rig.create("a")
    async with watching(rig) as watch:
        assert await take(watch, 3) == [(ADDED, "a"), (ADDED, "b"), (SYNCED, "")]
        await rig.create("c")
        assert await take(watch, 1) == [(ADDED, "c")]
        await rig.ve.Restart(api_pb2.RestartRequest(ve=api_pb2.VERef(name="c")), NO_CONTEXT)
        assert await take(watch, 1) == [(CHANGED, "c")]
        await rig.ve.Delete(api_pb2.DeleteVERequest(ve=api_pb2.VERef(name="a")), NO_CONTEXT)
        assert await take(watch, 1) == [(DELETED, "a")]


async def test_the_last_known_ve_comes_with_its_deletion(rig: ApiRig) -> None:
    ve = await rig.create("a")
    async with watching(rig) as watch:
        await take(watch, 2)
        await rig.ve.Delete(api_pb2.DeleteVERequest(ve=api_pb2.VERef(name="a")), NO_CONTEXT)
        change = await anext(watch)
        assert change.ve.uid == ve.uid
        assert change.revision == rig.mirror.view.revision


async def test_a_change_between_snapshot_and_reading_is_not_lost(rig: ApiRig) -> None:
    await rig.create("a")
    async with watching(rig) as watch:
        assert await take(watch, 1) == [(ADDED, "a")]
        await rig.create("b")
        assert await take(watch, 2) == [(SYNCED, ""), (ADDED, "b")]


async def test_being_woken_for_nothing_sends_nothing(rig: ApiRig) -> None:
    ve = await rig.running("a")
    async with watching(rig) as watch:
        await take(watch, 2)
        rig.publish(ve.uid)
        rig.topic.publish(Changed(revision=1, hosts=frozenset([HostName("h1")])))
        rig.topic.publish(Changed(revision=1, relisted=True))
        await nothing_more(rig, watch)


async def test_a_host_that_goes_silent_changes_its_ves(rig: ApiRig) -> None:
    await rig.running("a")
    async with watching(rig) as watch:
        await take(watch, 2)
        rig.hosts.states["h1"] = HostState.SILENT
        rig.topic.publish(Changed(revision=1, hosts=frozenset([HostName("h1")])))
        change = await anext(watch)
        assert (change.kind, change.ve.status.state) == (CHANGED, "Unknown")


async def test_a_refusal_of_the_scheduler_is_a_change(rig: ApiRig) -> None:
    ve = await rig.create("a")
    async with watching(rig) as watch:
        await take(watch, 2)
        rig.refuse(ve.uid, "no host has room")
        rig.publish(ve.uid)
        change = await anext(watch)
        assert (change.ve.status.reason, change.ve.status.message) == (
            "NoHostFits",
            "no host has room",
        )


async def test_a_name_that_does_not_exist_yet_is_waited_for(rig: ApiRig) -> None:
    async with watching(rig, names=["web"]) as watch:
        assert await take(watch, 1) == [(SYNCED, "")]
        await rig.create("other")
        await rig.create("web")
        assert await take(watch, 1) == [(ADDED, "web")]


async def test_a_ve_that_is_not_selected_any_more_leaves_the_watch(rig: ApiRig) -> None:
    await rig.ve.Create(create_request("a", labels={"tier": "web"}), NO_CONTEXT)
    async with watching(rig, selector="tier=web") as watch:
        assert await take(watch, 2) == [(ADDED, "a"), (SYNCED, "")]
        manifest = create_request("a", labels={"tier": "db"}).ve
        await rig.ve.Apply(api_pb2.ApplyVERequest(ve=manifest), NO_CONTEXT)
        assert await take(watch, 1) == [(DELETED, "a")]


async def test_a_slow_reader_gets_the_newest_state_once(rig: ApiRig) -> None:
    await rig.create("a")
    async with watching(rig) as watch:
        await take(watch, 2)
        for _ in range(5):
            await rig.ve.Restart(api_pb2.RestartRequest(ve=api_pb2.VERef(name="a")), NO_CONTEXT)
        assert await take(watch, 1) == [(CHANGED, "a")]
        await nothing_more(rig, watch)


async def test_a_watch_from_a_list_tells_exactly_what_is_later(rig: ApiRig) -> None:
    for name in ("kept", "changed", "deleted"):
        await rig.create(name)
    revision = (await rig.ve.List(api_pb2.ListVEsRequest(), NO_CONTEXT)).revision
    await rig.ve.Restart(api_pb2.RestartRequest(ve=api_pb2.VERef(name="changed")), NO_CONTEXT)
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=api_pb2.VERef(name="deleted")), NO_CONTEXT)
    await rig.create("added")
    await rig.create("short-lived")
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=api_pb2.VERef(name="short-lived")), NO_CONTEXT)
    async with watching(rig, revision=revision) as watch:
        found = await take(watch, 3)
        assert sorted(found) == sorted(
            [(DELETED, "deleted"), (ADDED, "added"), (CHANGED, "changed")]
        )
        await nothing_more(rig, watch)


async def test_a_report_after_the_list_is_later_too(rig: ApiRig) -> None:
    ve = await rig.create("a")
    await rig.place(ve.uid)
    revision = (await rig.ve.List(api_pb2.ListVEsRequest(), NO_CONTEXT)).revision
    await rig.report(ve.uid, VEState.RUNNING)
    async with watching(rig, revision=revision) as watch:
        assert (await anext(watch)).ve.status.state == "Running"


async def test_a_watch_from_a_revision_to_come_waits_for_it(rig: ApiRig) -> None:
    async with watching(rig, revision=rig.mirror.view.revision + 1) as watch:
        first = asyncio.create_task(take(watch, 1))
        await rig.create("a")
        await rig.create("b")
        assert await first == [(ADDED, "b")]


async def test_what_is_too_long_ago_is_refused_rather_than_left_out(rig: ApiRig) -> None:
    await rig.create("a")
    async with watching(rig, revision=1) as watch:
        with pytest.raises(Conflict, match="not known any more") as refused:
            await anext(watch)
        assert refused.value.hint


async def test_a_bad_selector_is_refused_by_watch_and_list(rig: ApiRig) -> None:
    with pytest.raises(InvalidInput):
        await rig.ve.List(api_pb2.ListVEsRequest(selector="=x"), NO_CONTEXT)
    with pytest.raises(InvalidInput):
        async with watching(rig, selector="=x") as watch:
            await anext(watch)


async def test_a_watch_that_ends_leaves_no_subscription(rig: ApiRig) -> None:
    before = len(rig.topic._subscriptions)
    async with watching(rig) as watch:
        await take(watch, 1)
        assert len(rig.topic._subscriptions) == before + 1
    assert len(rig.topic._subscriptions) == before


def restarted(at: float) -> Event:
    return Event(at=at, type=EventType.WARNING, reason="Restarted", message="init died", host="h1")


async def test_events_of_many_ves_are_merged_by_time(rig: ApiRig) -> None:
    first, second = await rig.running("a"), await rig.running("b")
    at = rig.clock.wall()
    await rig.report(first.uid, VEState.RUNNING, events=(restarted(at + 9),))
    await rig.report(second.uid, VEState.RUNNING, events=(restarted(at + 8),))
    events = (await rig.ve.ListEvents(api_pb2.ListEventsRequest(), NO_CONTEXT)).events
    assert [event.ve for event in events][-2:] == ["b", "a"]
    times = [event.time.ToNanoseconds() for event in events]
    assert times == sorted(times)
    one = await rig.ve.ListEvents(api_pb2.ListEventsRequest(ve="a"), NO_CONTEXT)
    assert {(event.ve, event.uid, event.project) for event in one.events} == {
        ("a", first.uid, "default")
    }


async def test_events_of_an_unknown_ve_are_not_found(rig: ApiRig) -> None:
    with pytest.raises(NotFound):
        await rig.ve.ListEvents(api_pb2.ListEventsRequest(ve="zz"), NO_CONTEXT)


async def test_followed_events_come_once_each(rig: ApiRig) -> None:
    ve = await rig.running("a")
    at = rig.clock.wall() + 5
    following = rig.ve.WatchEvents(api_pb2.ListEventsRequest(), NO_CONTEXT)
    async with aclosing(closable(following)) as events:
        assert [(await anext(events)).reason for _ in range(2)] == ["Created", "Placed"]
        await rig.report(ve.uid, VEState.RUNNING, events=(restarted(at),))
        assert (await anext(events)).reason == "Restarted"
        await rig.report(ve.uid, VEState.RUNNING, events=(restarted(at), restarted(at + 1)))
        assert (await anext(events)).time.seconds == int(at + 1)
        await rig.create("b")
        assert (await anext(events)).ve == "b"
