"""Snapshots through the API: what is asked of the host, what people see, what is refused."""

import msgspec
import pytest

from kit.apirig import ALPINE, DEBIAN, NO_CONTEXT, ApiRig, api_rig, closable
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.model import SnapshotStatus, Uid, VEState
from veapi.v1 import api_pb2, types_pb2
from vecontroller.snapshotting import SNAPSHOTS_LIMIT

WEB = api_pb2.VERef(name="web")


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        yield rig


def ref(tag: str = "") -> api_pb2.SnapshotRef:
    return api_pb2.SnapshotRef(ve=WEB, tag=tag)


async def take(rig: ApiRig, tag: str = "") -> types_pb2.VE:
    return await rig.ve.TakeSnapshot(ref(tag), NO_CONTEXT)


async def told(rig: ApiRig, ve: types_pb2.VE, *snapshots: SnapshotStatus, **fields) -> None:
    """What the host says it has."""
    await rig.report(ve.uid, VEState.RUNNING, snapshots=snapshots, **fields)


def stored(rig: ApiRig, ve: types_pb2.VE):
    return rig.mirror.view.ves[Uid(ve.uid)].value


def there(tag: str, seq: int, error: str = "") -> SnapshotStatus:
    return SnapshotStatus(tag=tag, seq=seq, taken_at=1_700_000_000.0, size_bytes=7, error=error)


async def test_a_snapshot_is_creating_until_its_host_has_it(rig: ApiRig) -> None:
    ve = await rig.running()
    asked = await take(rig, "before")
    assert [(each.tag, each.seq, each.state) for each in asked.snapshots] == [
        ("before", 1, "Creating")
    ]
    assert asked.generation == ve.generation, "nothing of the VE itself changes"
    await told(rig, ve, there("before", 1))
    seen = await rig.ve.Get(WEB, NO_CONTEXT)
    assert [(each.state, each.size_bytes) for each in seen.snapshots] == [("Ready", 7)]


async def test_a_list_of_all_leaves_them_out_as_there_may_be_very_many(rig: ApiRig) -> None:
    ve = await rig.running()
    await take(rig, "before")
    await told(rig, ve, there("before", 1))
    (listed,) = (await rig.ve.List(api_pb2.ListVEsRequest(), NO_CONTEXT)).ves
    (named,) = (await rig.ve.List(api_pb2.ListVEsRequest(names=["web"]), NO_CONTEXT)).ves
    assert (len(listed.snapshots), len(named.snapshots)) == (0, 1)
    for names, count in (([], 0), (["web"], 1)):
        watch = closable(rig.ve.Watch(api_pb2.WatchVEsRequest(names=names), NO_CONTEXT))
        assert len((await anext(watch)).ve.snapshots) == count
        await watch.aclose()


async def test_a_failure_is_shown_with_its_reason(rig: ApiRig) -> None:
    ve = await rig.running()
    await take(rig, "before")
    await told(rig, ve, there("before", 1, "the disk limit is reached"))
    (seen,) = (await rig.ve.Get(WEB, NO_CONTEXT)).snapshots
    assert (seen.state, seen.message) == ("Failed", "the disk limit is reached")


async def test_a_tag_is_made_when_none_is_given_and_is_never_there_twice(rig: ApiRig) -> None:
    await rig.running()
    await take(rig)
    tags = [each.tag for each in (await take(rig)).snapshots]
    assert len(set(tags)) == 2
    assert all(tag.startswith("snap-2023") for tag in tags)


async def test_numbers_go_on_after_those_of_the_host(rig: ApiRig) -> None:
    """A store that was set back to an older one knows less than the host."""
    ve = await rig.running()
    await told(rig, ve, there("later", 8))
    asked = await take(rig, "new")
    assert [(each.tag, each.seq, each.state) for each in asked.snapshots] == [
        ("later", 8, "Ready"),
        ("new", 9, "Creating"),
    ]


@pytest.mark.parametrize("tag", ["A", "-a", "a/b", "..", "a" * 64, "a\n"])
async def test_a_tag_that_is_no_name_is_refused(rig: ApiRig, tag: str) -> None:
    await rig.running()
    for call in (rig.ve.TakeSnapshot, rig.ve.DeleteSnapshot, rig.ve.Restore):
        with pytest.raises(InvalidInput, match="tag"):
            await call(ref(tag), NO_CONTEXT)


async def test_a_tag_that_is_taken_is_a_conflict(rig: ApiRig) -> None:
    await rig.running()
    await take(rig, "before")
    with pytest.raises(Conflict, match="is there already"):
        await take(rig, "before")


async def test_a_ve_without_a_root_has_nothing_to_take(rig: ApiRig) -> None:
    ve = await rig.create()
    with pytest.raises(Conflict, match="Pending"):
        await take(rig)
    await rig.place(ve.uid)
    await rig.report(ve.uid, VEState.CREATING)
    with pytest.raises(Conflict, match="Creating"):
        await take(rig)


async def test_there_is_a_most_of_them(rig: ApiRig) -> None:
    await rig.running()
    for number in range(SNAPSHOTS_LIMIT):
        await take(rig, f"s{number}")
    with pytest.raises(Conflict, match="at most 100"):
        await take(rig, "more")


async def test_a_deleted_one_leaves_and_its_tag_stays_taken_until_then(rig: ApiRig) -> None:
    ve = await rig.running()
    await take(rig, "before")
    await told(rig, ve, there("before", 1))
    (leaving,) = (await rig.ve.DeleteSnapshot(ref("before"), NO_CONTEXT)).snapshots
    assert leaving.state == "Deleting"
    writes = rig.model.writes
    await rig.ve.DeleteSnapshot(ref("before"), NO_CONTEXT)
    assert rig.model.writes == writes, "once is enough"
    with pytest.raises(Conflict, match="is being deleted"):
        await take(rig, "before")
    with pytest.raises(Conflict, match="is being deleted"):
        await rig.ve.Restore(ref("before"), NO_CONTEXT)


async def test_one_that_only_the_host_knows_can_be_deleted(rig: ApiRig) -> None:
    ve = await rig.running()
    await told(rig, ve, there("forgotten", 4))
    await rig.ve.DeleteSnapshot(ref("forgotten"), NO_CONTEXT)
    (wish,) = stored(rig, ve).snapshots
    assert (wish.tag, wish.seq, wish.deleting) == ("forgotten", 4, True)


async def test_an_unknown_one_is_not_found_and_near_ones_are_named(rig: ApiRig) -> None:
    await rig.running()
    await take(rig, "before")
    for call in (rig.ve.DeleteSnapshot, rig.ve.Restore):
        with pytest.raises(NotFound) as refused:
            await call(ref("befor"), NO_CONTEXT)
        assert "before" in refused.value.hint


async def test_a_restore_asks_for_a_new_root_each_time(rig: ApiRig) -> None:
    ve = await rig.running()
    await take(rig, "before")
    await told(rig, ve, there("before", 1))
    for seq in (1, 2):
        restored = await rig.ve.Restore(ref("before"), NO_CONTEXT)
        assert (stored(rig, ve).root.seq, stored(rig, ve).root.snapshot) == (seq, "before")
        assert restored.generation == ve.generation + seq
    assert restored.spec.run == "running"


@pytest.mark.parametrize(
    ("has", "why"), [((), "not taken yet"), ((there("before", 1, "no room"),), "no room")]
)
async def test_what_was_not_taken_can_not_be_restored(
    rig: ApiRig, has: tuple[SnapshotStatus, ...], why: str
) -> None:
    ve = await rig.running()
    await take(rig, "before")
    await told(rig, ve, *has)
    with pytest.raises(Conflict, match=why):
        await rig.ve.Restore(ref("before"), NO_CONTEXT)


async def test_a_restore_takes_the_image_of_the_snapshot_along(rig: ApiRig) -> None:
    ve = await rig.running()
    await take(rig, "before")
    await rig.put_image("alpine", ALPINE)
    await rig.ve.Rebuild(api_pb2.RebuildVERequest(ve=WEB, image="alpine"), NO_CONTEXT)
    assert stored(rig, ve).image_digest == ALPINE
    await told(rig, ve, msgspec.structs.replace(there("before", 1), image_digest=DEBIAN))
    await rig.ve.Restore(ref("before"), NO_CONTEXT)
    after = stored(rig, ve)
    assert (after.image_digest, after.spec.image) == (DEBIAN, "debian")


async def test_a_restore_of_one_whose_image_nobody_noted_changes_no_image(rig: ApiRig) -> None:
    ve = await rig.running()
    await told(rig, ve, there("before", 1))
    await rig.ve.Restore(ref("before"), NO_CONTEXT)
    assert (stored(rig, ve).image_digest, stored(rig, ve).spec.image) == (DEBIAN, "debian")


async def test_an_image_without_a_tag_leaves_the_name_that_was_asked_for(rig: ApiRig) -> None:
    ve = await rig.running()
    await told(rig, ve, msgspec.structs.replace(there("before", 1), image_digest=ALPINE))
    await rig.ve.Restore(ref("before"), NO_CONTEXT)
    assert (stored(rig, ve).image_digest, stored(rig, ve).spec.image) == (ALPINE, "debian")


async def test_a_snapshot_stays_while_a_root_is_made_of_it(rig: ApiRig) -> None:
    ve = await rig.running()
    await take(rig, "before")
    await told(rig, ve, there("before", 1))
    await rig.ve.Restore(ref("before"), NO_CONTEXT)
    with pytest.raises(Conflict, match="being restored"):
        await rig.ve.DeleteSnapshot(ref("before"), NO_CONTEXT)
    await told(rig, ve, there("before", 1), observed_root_seq=1)
    await rig.ve.DeleteSnapshot(ref("before"), NO_CONTEXT)


async def test_a_snapshot_stays_while_a_clone_is_made_of_it(rig: ApiRig) -> None:
    ve = await rig.running()
    await take(rig, "before")
    await told(rig, ve, there("before", 1))
    request = api_pb2.CloneVERequest(source=WEB, snapshot="before")
    request.ve.name = "copy"
    copy = await rig.ve.Clone(request, NO_CONTEXT)
    await rig.place(copy.uid)
    for state, reason in ((VEState.CREATING, ""), (VEState.FAILED, "RootFailed")):
        await rig.report(copy.uid, state, reason=reason)
        with pytest.raises(Conflict, match="VE copy is being made of snapshot before"):
            await rig.ve.DeleteSnapshot(ref("before"), NO_CONTEXT)
    await rig.report(copy.uid, VEState.FAILED, reason="ExitedAtOnce")
    await rig.ve.DeleteSnapshot(ref("before"), NO_CONTEXT)


async def test_a_snapshot_stays_while_a_clone_of_its_ve_is_being_written(rig: ApiRig) -> None:
    ve = await rig.running()
    await take(rig, "before")
    await told(rig, ve, there("before", 1))
    with (
        rig.ve._in_flight.holding("", DEBIAN, Uid(ve.uid)),
        pytest.raises(Conflict, match="is being cloned"),
    ):
        await rig.ve.DeleteSnapshot(ref("before"), NO_CONTEXT)
    await rig.ve.DeleteSnapshot(ref("before"), NO_CONTEXT)


async def test_numbers_go_on_from_what_the_host_has_done_when_the_store_was_set_back(
    rig: ApiRig,
) -> None:
    """What was done under a number before would never be done again, though it would seem so."""
    ve = await rig.running()
    await told(rig, ve, there("old", 7), observed_root_seq=3, observed_snapshot_seq=9)
    await take(rig, "new")
    await rig.ve.Restore(ref("old"), NO_CONTEXT)
    assert (stored(rig, ve).snapshots[0].seq, stored(rig, ve).root.seq) == (10, 4)
    await rig.ve.Rebuild(api_pb2.RebuildVERequest(ve=WEB), NO_CONTEXT)
    assert stored(rig, ve).root.seq == 5


async def test_one_that_its_host_has_no_more_is_told_and_not_restored(rig: ApiRig) -> None:
    ve = await rig.running()
    await take(rig, "before")
    await told(rig, ve, observed_snapshot_seq=1)
    (seen,) = (await rig.ve.Get(WEB, NO_CONTEXT)).snapshots
    assert (seen.state, seen.message) == ("Failed", "its host has it no more")
    with pytest.raises(Conflict, match="has it no more"):
        await rig.ve.Restore(ref("before"), NO_CONTEXT)


async def test_a_ve_that_is_being_deleted_takes_and_restores_nothing(rig: ApiRig) -> None:
    ve = await rig.running()
    await told(rig, ve, there("before", 1))
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    for call in (rig.ve.TakeSnapshot, rig.ve.Restore):
        with pytest.raises(Conflict, match="being deleted"):
            await call(ref("before"), NO_CONTEXT)
