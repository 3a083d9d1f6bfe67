"""What somebody still needs is not removed: the source of a clone, the image of a VE that can come back."""

import asyncio

import pytest

from kit.apirig import NO_CONTEXT, ApiRig, api_rig
from kit.world import make_deleted, make_placement, make_ve, make_view
from veapi.errors import Conflict, NotFound
from veapi.model import HostName, RootWish, Uid, VEReport, VEState, VEStatus
from veapi.v1 import api_pb2, types_pb2
from vecontroller.observed import of_report
from vecontroller.purging import due

WEB = api_pb2.VERef(name="web")


@pytest.fixture
async def rig():
    async with api_rig() as found:
        yield found


async def clone(rig: ApiRig, name: str = "copy") -> types_pb2.VE:
    request = api_pb2.CloneVERequest(source=WEB, ve=types_pb2.VE(name=name))
    return await rig.ve.Clone(request, NO_CONTEXT)


async def delete(rig: ApiRig, *, purge: bool) -> types_pb2.VE:
    return await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB, purge=purge), NO_CONTEXT)


async def kept(rig: ApiRig, uid: str) -> None:
    """As its host says once it is down."""
    status = VEStatus(state=VEState.STOPPED, placement_generation=1, disk_used_bytes=1)
    report = VEReport(uid=Uid(uid), name="", project="", status=status, kept=True)
    change = of_report(rig.mirror.view, HostName("h1"), report, purge_at=rig.clock.wall())
    assert change is not None
    await rig.deps.writer.commit(change.guards, change.writes, confirm=None)


async def test_a_source_stays_until_its_clone_is_made(rig: ApiRig) -> None:
    await rig.running()
    copy = await clone(rig)
    await rig.place(copy.uid)
    await rig.report(copy.uid, VEState.CREATING)
    with pytest.raises(Conflict, match="cloned to copy"):
        await delete(rig, purge=True)
    await rig.report(copy.uid, VEState.RUNNING)
    await delete(rig, purge=True)


async def test_a_kept_source_stays_until_its_clone_is_made(rig: ApiRig) -> None:
    web = await rig.running()
    copy = await clone(rig)
    await delete(rig, purge=False)
    with pytest.raises(Conflict, match="cloned to copy"):
        await delete(rig, purge=True)
    with pytest.raises(Conflict, match="cloned to copy"):
        await rig.ve.Purge(WEB, NO_CONTEXT)
    await kept(rig, web.uid)
    with pytest.raises(Conflict, match="cloned to copy"):
        await rig.ve.Purge(WEB, NO_CONTEXT)
    await rig.place(copy.uid)
    await rig.report(copy.uid, VEState.STOPPED)
    await rig.ve.Purge(WEB, NO_CONTEXT)


async def test_a_clone_and_a_purge_at_once_are_not_both_done(rig: ApiRig) -> None:
    await rig.running()
    found = await asyncio.gather(clone(rig), delete(rig, purge=True), return_exceptions=True)
    assert [isinstance(each, Conflict) for each in found] in ([True, False], [False, True])


@pytest.mark.parametrize(
    ("state", "want"), [(None, []), (VEState.CREATING, []), (VEState.RUNNING, ["web"])]
)
def test_the_time_of_a_source_is_over_when_its_clone_is_made(state, want) -> None:
    copy = make_ve("copy", root=RootWish(from_uid=Uid("web")))
    view = make_view(
        ves=[copy],
        placements={"copy": make_placement("h1")},
        statuses={"copy": VEStatus(state=state, placement_generation=1)} if state else {},
        deleted=[make_deleted("web", purge_at=10.0)],
    )
    assert [held.value.ve.uid for held in due(view, 20.0)] == want


async def test_an_image_stays_while_a_deleted_ve_of_it_can_come_back(rig: ApiRig) -> None:
    web = await rig.running()
    await delete(rig, purge=False)
    await kept(rig, web.uid)
    image = api_pb2.ImageRef(name="debian")
    with pytest.raises(Conflict, match="1 deleted VEs that are kept: default/web") as refused:
        await rig.image.Delete(image, NO_CONTEXT)
    assert refused.value.hint is not None
    assert f"vectl purge {web.uid}" in refused.value.hint
    await rig.ve.Purge(WEB, NO_CONTEXT)
    await rig.image.Delete(image, NO_CONTEXT)
    with pytest.raises(NotFound):
        await rig.image.Get(image, NO_CONTEXT)
