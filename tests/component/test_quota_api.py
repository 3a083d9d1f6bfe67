"""Quotas of projects through the API: every way to have more is refused above them, and nothing else is."""

import asyncio
from contextlib import suppress

import pytest

from kit.apirig import GIB, NO_CONTEXT, ApiRig, api_rig, create_request
from veapi.errors import Conflict, InvalidInput, NotFound, TimedOut
from veapi.model import HostName, ProjectAmounts, Uid, VEReport, VEState, VEStatus
from veapi.v1 import api_pb2, types_pb2
from vecontroller.observed import of_report
from vecontroller.snapshotting import Snapshotting

WEB = api_pb2.VERef(name="web")


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        yield rig


async def quota(rig: ApiRig, **amounts: int) -> types_pb2.Project:
    request = api_pb2.SetProjectRequest(
        name="default", quota=types_pb2.ProjectAmounts(**amounts), fields=sorted(amounts)
    )
    return await rig.project.Set(request, NO_CONTEXT)


async def usage(rig: ApiRig) -> types_pb2.ProjectAmounts:
    return (await rig.project.Get(api_pb2.GetProjectRequest(name="default"), NO_CONTEXT)).usage


async def create(rig: ApiRig, name: str, memory_gib: int = 1) -> types_pb2.VE:
    request = create_request(name)
    request.ve.spec.memory_bytes = memory_gib * GIB
    return await rig.ve.Create(request, NO_CONTEXT)


async def test_a_create_above_the_quota_is_refused_naming_all_that_is_exceeded(rig):
    await create(rig, "web", 12)
    await quota(rig, ves=1, memory_bytes=16 * GIB, addresses=5)

    with pytest.raises(Conflict) as refused:
        await create(rig, "db", 6)

    message = refused.value.message
    assert "project default: VEs 1 of 1 used, 1 asked" in message
    assert "memory 12 GiB of 16 GiB used, 6 GiB asked" in message
    assert "addresses" not in message
    assert "project show default" in refused.value.hint
    assert "db" not in {held.value.name for held in rig.mirror.view.ves.values()}


async def test_creates_at_once_never_pass_a_quota_together(rig):
    await quota(rig, ves=3)

    done = await asyncio.gather(
        *(create(rig, f"web-{number}") for number in range(10)), return_exceptions=True
    )

    assert sum(isinstance(each, types_pb2.VE) for each in done) == 3
    assert sum(isinstance(each, Conflict) for each in done) == 7
    assert (await usage(rig)).ves == 3


async def test_what_is_on_its_way_counts_until_it_is_known_not_to_come(rig):
    await quota(rig, ves=1)
    on_its_way = rig.deps.reserved.asking("default", ProjectAmounts(ves=1))
    with on_its_way, pytest.raises(Conflict, match="VEs 1 of 1 used"):
        await create(rig, "web")
    await create(rig, "web")


async def test_a_create_of_unknown_outcome_counts_for_a_while(rig):
    await quota(rig, ves=1)
    with suppress(TimedOut), rig.deps.reserved.asking("default", ProjectAmounts(ves=1)):
        raise TimedOut("who knows", hint="")
    with pytest.raises(Conflict, match="VEs 1 of 1 used"):
        await create(rig, "web")


async def test_a_set_may_not_grow_above_the_quota_but_may_shrink_below_a_lowered_one(rig):
    await create(rig, "web", 4)
    lowered = await quota(rig, memory_bytes=2 * GIB)
    assert lowered.usage.memory_bytes == 4 * GIB

    grow = api_pb2.SetVERequest(ve=WEB, fields=["memory_bytes"])
    grow.spec.memory_bytes = 5 * GIB
    with pytest.raises(Conflict, match="memory 4 GiB of 2 GiB used, 1 GiB asked"):
        await rig.ve.Set(grow, NO_CONTEXT)

    grow.spec.memory_bytes = 3 * GIB
    await rig.ve.Set(grow, NO_CONTEXT)
    assert (await usage(rig)).memory_bytes == 3 * GIB


async def test_a_clone_counts_as_a_create(rig):
    await rig.running()
    await quota(rig, ves=1)
    request = api_pb2.CloneVERequest(source=WEB, ve=types_pb2.VE(name="copy"))
    with pytest.raises(Conflict, match="VEs 1 of 1 used"):
        await rig.ve.Clone(request, NO_CONTEXT)


async def test_snapshots_are_counted_until_they_are_to_go(rig):
    await rig.running()
    await quota(rig, snapshots=1)
    await rig.ve.TakeSnapshot(api_pb2.SnapshotRef(ve=WEB, tag="one"), NO_CONTEXT)

    with pytest.raises(Conflict, match="snapshots 1 of 1 used, 1 asked"):
        await rig.ve.TakeSnapshot(api_pb2.SnapshotRef(ve=WEB, tag="two"), NO_CONTEXT)

    await rig.ve.DeleteSnapshot(api_pb2.SnapshotRef(ve=WEB, tag="one"), NO_CONTEXT)
    assert (await usage(rig)).snapshots == 0


async def test_only_what_is_named_changes_and_zero_is_without_a_limit(rig):
    await quota(rig, ves=5, snapshots=2)
    project = await quota(rig, ves=0)
    assert (project.quota.ves, project.quota.snapshots) == (0, 2)
    await create(rig, "web")


async def test_quotas_that_make_no_sense_are_refused(rig):
    with pytest.raises(InvalidInput):
        await quota(rig)
    with pytest.raises(InvalidInput, match="below 0"):
        await quota(rig, ves=-1)
    request = api_pb2.SetProjectRequest(name="default", fields=["gpus"])
    with pytest.raises(InvalidInput, match="gpus"):
        await rig.project.Set(request, NO_CONTEXT)
    with pytest.raises(NotFound):
        await rig.project.Get(api_pb2.GetProjectRequest(name="nowhere"), NO_CONTEXT)


async def test_a_deleted_root_counts_as_far_as_it_is_used_and_coming_back_as_a_create(rig):
    ve = await rig.running()
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    status = VEStatus(state=VEState.STOPPED, placement_generation=1, disk_used_bytes=GIB // 2)
    report = VEReport(uid=Uid(ve.uid), name="", project="", status=status, kept=True)
    change = of_report(rig.mirror.view, HostName("h1"), report, purge_at=rig.clock.wall() + 86_400)
    assert change is not None
    await rig.deps.writer.commit(change.guards, change.writes, confirm=None)
    has = await usage(rig)
    assert (has.ves, has.memory_bytes, has.disk_bytes) == (0, 0, GIB // 2)

    await quota(rig, ves=1)
    await create(rig, "db")
    with pytest.raises(Conflict, match="VEs 1 of 1 used, 1 asked"):
        await rig.ve.Undelete(api_pb2.UndeleteVERequest(ve=WEB), NO_CONTEXT)
    await quota(rig, ves=2)
    await rig.ve.Undelete(api_pb2.UndeleteVERequest(ve=WEB), NO_CONTEXT)
    assert (await usage(rig)).ves == 2


async def test_a_schedule_takes_nothing_above_the_quota_and_goes_on_when_there_is_room(rig):
    ve = await rig.running()
    await quota(rig, snapshots=1)
    await rig.ve.TakeSnapshot(api_pb2.SnapshotRef(ve=WEB, tag="one"), NO_CONTEXT)
    request = api_pb2.SetVERequest(ve=WEB, fields=["snapshot_schedule"])
    request.spec.snapshot_schedule = "daily keep 2"
    await rig.ve.Set(request, NO_CONTEXT)
    loop = Snapshotting(
        *(rig.mirror, rig.deps.writer, rig.hosts, rig.topic, rig.clock),
        new_op_id=rig.deps.ids.new,
        reserved=rig.deps.reserved,
    )

    await loop.look_once()
    assert [wish.tag for wish in rig.mirror.view.ves[Uid(ve.uid)].value.snapshots] == ["one"]

    await quota(rig, snapshots=2)
    await loop.look_once()
    assert len(rig.mirror.view.ves[Uid(ve.uid)].value.snapshots) == 2


async def delete(rig: ApiRig, name: str) -> None:
    await rig.project.Delete(api_pb2.DeleteProjectRequest(name=name), NO_CONTEXT)


async def test_only_an_empty_project_goes_and_default_stays(rig):
    await rig.put_project("shop")
    request = create_request("web", project="shop")
    await rig.ve.Create(request, NO_CONTEXT)
    with pytest.raises(Conflict, match="project shop has 1 VEs"):
        await delete(rig, "shop")
    web = api_pb2.VERef(project="shop", name="web")
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=web), NO_CONTEXT)
    await delete(rig, "shop")
    with pytest.raises(NotFound):
        await rig.ve.Create(request, NO_CONTEXT)
    with pytest.raises(NotFound):
        await delete(rig, "shop")
    with pytest.raises(Conflict, match="default stays"):
        await delete(rig, "default")


async def test_a_project_is_not_deleted_under_what_is_being_made_in_it_nor_the_other_way(rig):
    await rig.put_project("shop")
    with (
        rig.deps.reserved.asking("shop", ProjectAmounts()),
        pytest.raises(Conflict, match="being made"),
    ):
        await delete(rig, "shop")
    with rig.deps.reserved.leaving("shop"), pytest.raises(Conflict, match="being deleted"):
        await rig.ve.Create(create_request("web", project="shop"), NO_CONTEXT)


async def test_deletes_and_creates_at_once_leave_no_ve_without_its_project(rig):
    await rig.put_project("shop")
    await asyncio.gather(
        *(
            delete(rig, "shop")
            if number % 2
            else rig.ve.Create(create_request(f"web-{number}", project="shop"), NO_CONTEXT)
            for number in range(8)
        ),
        return_exceptions=True,
    )
    view = rig.mirror.view
    assert {held.value.project for held in view.ves.values()} <= view.projects.keys()
