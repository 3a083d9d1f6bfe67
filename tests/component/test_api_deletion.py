"""Delete, undelete, purge: what is kept, how it comes back, and who loses which race."""

import asyncio
import dataclasses

import pytest

from kit.apirig import GIB, NO_CONTEXT, ApiRig, api_rig
from kit.modelstore import Fail
from veapi.errors import Conflict, InvalidInput, NoHostFits, NotFound
from veapi.model import Deleted, HostName, Uid, VEReport, VEState, VEStatus
from veapi.v1 import api_pb2, types_pb2
from vecontroller.api.describe import Describe
from vecontroller.observed import of_report
from vecontroller.store import keys, values

WEB = api_pb2.VERef(name="web")
H1 = HostName("h1")
USED = GIB // 2


@pytest.fixture
async def rig():
    async with api_rig() as found:
        yield found


async def delete(rig: ApiRig, *, purge=False, ref=WEB) -> types_pb2.VE:
    return await rig.ve.Delete(api_pb2.DeleteVERequest(ve=ref, purge=purge), NO_CONTEXT)


async def undelete(rig: ApiRig, *, ref=WEB, name="") -> types_pb2.VE:
    return await rig.ve.Undelete(api_pb2.UndeleteVERequest(ve=ref, name=name), NO_CONTEXT)


async def kept(rig: ApiRig, name="web") -> types_pb2.VE:
    """A VE that ran, was deleted, and is kept by h1 by now, as a report of h1 makes it."""
    ve = await rig.running(name)
    await delete(rig, ref=api_pb2.VERef(name=name))
    await told_kept(rig, ve.uid)
    return ve


async def told_kept(rig: ApiRig, uid: str) -> None:
    status = VEStatus(state=VEState.STOPPED, placement_generation=1, disk_used_bytes=USED)
    report = VEReport(uid=Uid(uid), name="", project="", status=status, kept=True)
    change = of_report(rig.mirror.view, H1, report, purge_at=rig.clock.wall() + 86_400)
    assert change is not None
    await rig.deps.writer.commit(change.guards, change.writes, confirm=None)


async def told_gone(rig: ApiRig, uid: str) -> None:
    status = VEStatus(state=VEState.STOPPED)
    report = VEReport(uid=Uid(uid), name="", project="", status=status, gone=True)
    change = of_report(rig.mirror.view, H1, report, purge_at=0)
    assert change is not None
    await rig.deps.writer.commit(change.guards, change.writes, confirm=None)


async def listed(rig: ApiRig, **fields) -> list[types_pb2.VE]:
    request = api_pb2.ListVEsRequest(deleted=True, **fields)
    return list((await rig.ve.List(request, NO_CONTEXT)).ves)


def deleted_of(rig: ApiRig, uid: str) -> Deleted:
    return rig.mirror.view.deleted[Uid(uid)].value


async def test_a_delete_asks_to_keep_and_a_purge_asks_for_all(rig: ApiRig) -> None:
    await rig.running()
    await rig.running("db")
    await delete(rig)
    await delete(rig, ref=api_pb2.VERef(name="db"), purge=True)
    purge = {held.value.name: held.value.purge for held in rig.mirror.view.ves.values()}
    assert purge == {"web": False, "db": True}


async def test_a_delete_may_become_a_purge_but_not_the_other_way(rig: ApiRig) -> None:
    ve = await rig.running()
    for purge, want in ((False, False), (True, True), (False, True)):
        await delete(rig, purge=purge)
        assert rig.mirror.view.ves[Uid(ve.uid)].value.purge is want


async def test_where_nothing_is_kept_every_delete_is_a_purge() -> None:
    async with api_rig() as rig:
        rig.ve._deps = dataclasses.replace(rig.deps, keep_deleted_s=0.0)
        ve = await rig.running()
        await delete(rig)
        assert rig.mirror.view.ves[Uid(ve.uid)].value.purge


async def test_what_is_kept_holds_neither_name_nor_address_but_its_disk(rig: ApiRig) -> None:
    ve = await kept(rig)
    view = rig.mirror.view
    assert (view.ves, view.names, view.addresses, view.placements, view.statuses) == ({},) * 5
    assert deleted_of(rig, ve.uid).disk_used_bytes == USED
    [host] = (await rig.host.List(api_pb2.ListHostsRequest(), NO_CONTEXT)).hosts
    assert host.committed.disk_bytes == USED + 15  # and the image
    [found] = await listed(rig)
    assert (found.name, found.uid, found.status.state) == ("web", ve.uid, "Deleted")
    assert found.status.disk_used_bytes == USED
    assert found.placement.host == "h1"
    assert found.purge_at.seconds - found.delete_requested_at.seconds == 86_400


async def test_deleted_ves_are_listed_by_project_selector_and_name(rig: ApiRig) -> None:
    await kept(rig)
    await kept(rig, "db")
    assert [ve.name for ve in await listed(rig)] == ["db", "web"]
    assert [ve.name for ve in await listed(rig, names=["web"])] == ["web"]
    assert await listed(rig, selector="tier=none") == []
    with pytest.raises(NotFound):
        await listed(rig, project="shop")


async def test_a_deleted_name_says_how_it_comes_back(rig: ApiRig) -> None:
    await kept(rig)
    with pytest.raises(NotFound) as refused:
        await rig.ve.Get(WEB, NO_CONTEXT)
    assert "vectl undelete web" in refused.value.hint


async def test_an_undelete_gives_all_back_in_one_step(rig: ApiRig) -> None:
    ve = await kept(rig)
    found = await undelete(rig)
    view, uid = rig.mirror.view, Uid(ve.uid)
    back, placement = view.ves[uid].value, view.placements[uid].value
    assert (found.uid, found.name, found.status.addresses) == (ve.uid, "web", ve.status.addresses)
    assert (back.generation, back.run_generation, back.delete_requested_at) == (2, 2, None)
    assert (placement.host, placement.generation) == ("h1", 2)
    assert view.names["default", "web"].value == uid
    assert view.addresses["default", back.ip].value == uid
    assert view.deleted == {}
    assert found.status.state == "Creating"


async def test_an_address_that_was_given_away_is_replaced(rig: ApiRig) -> None:
    ve = await kept(rig)
    other = await rig.create("db")
    assert other.status.addresses == ve.status.addresses
    found = await undelete(rig)
    assert found.status.addresses != ve.status.addresses


async def test_an_address_that_was_asked_for_and_given_away_is_asked_for_no_more(
    rig: ApiRig,
) -> None:
    ve = await rig.create(ip="10.66.0.77")
    await rig.place(ve.uid)
    await delete(rig)
    await told_kept(rig, ve.uid)
    await rig.create("db", ip="10.66.0.77")
    found = await undelete(rig)
    assert (found.spec.ip, list(found.status.addresses)) == ("", ["10.66.0.2"])


async def test_a_stop_by_force_of_earlier_is_no_reason_to_kill_what_is_kept(rig: ApiRig) -> None:
    ve = await rig.running()
    await rig.ve.SetRun(api_pb2.SetRunRequest(ve=WEB, run="stopped", force=True), NO_CONTEXT)
    await rig.ve.SetRun(api_pb2.SetRunRequest(ve=WEB, run="running"), NO_CONTEXT)
    await delete(rig)
    assert rig.mirror.view.ves[Uid(ve.uid)].value.stop_timeout_s == 30.0


async def test_a_name_that_was_given_away_wants_another(rig: ApiRig) -> None:
    ve = await kept(rig)
    await rig.create("web")
    with pytest.raises(Conflict) as refused:
        await undelete(rig)
    assert f"vectl undelete {ve.uid} --name" in refused.value.hint
    found = await undelete(rig, name="web-old")
    assert (found.name, found.uid) == ("web-old", ve.uid)
    with pytest.raises(InvalidInput):
        await undelete(rig, name="No Name")


async def test_of_several_of_one_name_the_uid_chooses(rig: ApiRig) -> None:
    first, second = await kept(rig), await kept(rig)
    with pytest.raises(Conflict) as refused:
        await undelete(rig)
    assert first.uid in refused.value.hint
    found = await undelete(rig, ref=api_pb2.VERef(uid=second.uid))
    assert found.uid == second.uid


async def test_what_was_never_deleted_or_is_not_kept_is_told_apart(rig: ApiRig) -> None:
    ve = await rig.running()
    with pytest.raises(NotFound, match="no deleted VE web"):
        await undelete(rig)
    with pytest.raises(Conflict, match="is not deleted"):
        await undelete(rig, ref=api_pb2.VERef(uid=ve.uid))
    await kept(rig, "database")
    with pytest.raises(NotFound) as refused:
        await undelete(rig, ref=api_pb2.VERef(name="databse"))
    assert "did you mean database?" in refused.value.hint
    with pytest.raises(InvalidInput):
        await undelete(rig, ref=api_pb2.VERef())
    with pytest.raises(NotFound):
        await undelete(rig, ref=api_pb2.VERef(uid="nobody"))


async def test_a_ve_without_room_for_it_stays_deleted(rig: ApiRig) -> None:
    ve = await kept(rig)
    await rig.put_host(disk_gib=3)
    with pytest.raises(NoHostFits, match="disk"):
        await undelete(rig)
    assert deleted_of(rig, ve.uid)
    await rig.put_host(disk_gib=4)  # 4G are asked for, of which half a gigabyte is counted already
    assert (await undelete(rig)).uid == ve.uid


async def test_a_delete_can_be_taken_back_before_the_host_has_kept_it(rig: ApiRig) -> None:
    ve = await rig.running()
    await delete(rig)
    with pytest.raises(Conflict, match="still has its name"):
        await undelete(rig, name="other")
    found = await undelete(rig)
    assert (found.generation, found.status.state) == (2, "Running")
    assert not found.HasField("delete_requested_at")
    assert rig.mirror.view.ves[Uid(ve.uid)].value.run_generation == 2


async def test_what_is_deleted_for_good_can_not_be_taken_back(rig: ApiRig) -> None:
    await rig.running()
    await delete(rig, purge=True)
    with pytest.raises(Conflict, match="for good"):
        await undelete(rig)


async def test_a_keep_that_was_taken_back_meanwhile_loses(rig: ApiRig) -> None:
    ve = await rig.running()
    await delete(rig)
    status = VEStatus(state=VEState.STOPPED, placement_generation=1, disk_used_bytes=1)
    report = VEReport(uid=Uid(ve.uid), name="", project="", status=status, kept=True)
    change = of_report(rig.mirror.view, H1, report, purge_at=1.0)
    assert change is not None
    await undelete(rig)
    with pytest.raises(Conflict):
        await rig.deps.writer.commit(change.guards, change.writes, confirm=None)
    assert rig.mirror.view.deleted == {}


async def test_a_purge_marks_once_and_the_host_ends_it(rig: ApiRig) -> None:
    ve = await kept(rig)
    found = await rig.ve.Purge(WEB, NO_CONTEXT)
    assert (found.status.state, found.status.reason) == ("Deleting", "Purging")
    writes = rig.model.writes
    await rig.ve.Purge(api_pb2.VERef(uid=ve.uid), NO_CONTEXT)
    assert rig.model.writes == writes
    with pytest.raises(Conflict, match="being purged"):
        await undelete(rig)
    await told_gone(rig, ve.uid)
    assert rig.mirror.view.deleted == {}
    with pytest.raises(NotFound):
        await rig.ve.Purge(WEB, NO_CONTEXT)


async def test_a_purge_of_a_ve_on_its_way_out_keeps_nothing(rig: ApiRig) -> None:
    ve = await rig.running()
    with pytest.raises(NotFound):
        await rig.ve.Purge(WEB, NO_CONTEXT)
    await delete(rig)
    await rig.ve.Purge(WEB, NO_CONTEXT)
    assert rig.mirror.view.ves[Uid(ve.uid)].value.purge


@pytest.mark.parametrize("fail", [Fail.APPLIED, Fail.LOST, Fail.LATE])
async def test_an_undelete_whose_answer_is_lost_is_made_once(rig: ApiRig, fail: Fail) -> None:
    ve = await kept(rig)
    rig.model.fail_writes(fail)
    assert (await undelete(rig)).uid == ve.uid
    rig.model.land_late_writes()
    assert rig.mirror.view.placements[Uid(ve.uid)].value.generation == 2


async def test_of_two_undeletes_one_brings_it_back(rig: ApiRig) -> None:
    await kept(rig)
    found = await asyncio.gather(undelete(rig), undelete(rig), return_exceptions=True)
    assert len([ve for ve in found if isinstance(ve, types_pb2.VE)]) == 1
    [other] = [error for error in found if isinstance(error, Exception)]
    assert isinstance(other, NotFound | Conflict)


async def test_a_value_of_a_newer_version_is_neither_brought_back_nor_purged(rig: ApiRig) -> None:
    ve = await kept(rig)
    value = values.encode_deleted(deleted_of(rig, ve.uid))
    await rig.put(keys.ve_deleted(Uid(ve.uid)), b"\x08\x63" + value[2:])
    with pytest.raises(NotFound):
        await undelete(rig)
    assert await listed(rig) == []


async def test_a_watch_tells_of_the_end_and_of_the_return(rig: ApiRig) -> None:
    ve = await rig.running()
    changes = rig.ve.Watch(api_pb2.WatchVEsRequest(names=["web"]), NO_CONTEXT)
    seen = [await anext(changes), await anext(changes)]
    await delete(rig)
    seen.append(await anext(changes))
    await told_kept(rig, ve.uid)
    seen.append(await anext(changes))
    await undelete(rig)
    seen.append(await anext(changes))
    kinds = [api_pb2.VEChange.Kind.Name(change.kind) for change in seen]
    assert kinds == ["KIND_ADDED", "KIND_SYNCED", "KIND_CHANGED", "KIND_DELETED", "KIND_ADDED"]
    assert Describe(rig.deps).ve(rig.mirror.view.ves[Uid(ve.uid)]).uid == seen[-1].ve.uid


async def test_what_came_back_remembers_that_it_was_away(rig: ApiRig) -> None:
    await kept(rig)
    back = await undelete(rig)
    (stay,) = back.placement.past
    assert (stay.host, stay.generation, stay.ended) == ("h1", 1, "it was deleted, and brought back")
    assert back.placement.generation == 2
