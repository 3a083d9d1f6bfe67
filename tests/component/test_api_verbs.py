"""Freeze and thaw, rename, rebuild, clone."""

import asyncio

import msgspec
import pytest

from kit.apirig import ALPINE, DEBIAN, GIB, NO_CONTEXT, ApiRig, api_rig
from kit.modelstore import Fail
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.model import SnapshotStatus, Uid, VEState
from veapi.v1 import api_pb2, types_pb2

WEB = api_pb2.VERef(name="web")
WOB = api_pb2.VERef(name="wob")


@pytest.fixture
async def rig():
    async with api_rig() as found:
        await found.put_image("alpine", ALPINE)
        yield found


def stored(rig: ApiRig, ve: types_pb2.VE):
    return rig.mirror.view.ves[Uid(ve.uid)].value


async def set_run(rig: ApiRig, run: str, **fields) -> types_pb2.VE:
    return await rig.ve.SetRun(api_pb2.SetRunRequest(ve=WEB, run=run, **fields), NO_CONTEXT)


async def rename(rig: ApiRig, name: str, ref=WEB) -> types_pb2.VE:
    return await rig.ve.Rename(api_pb2.RenameVERequest(ve=ref, name=name), NO_CONTEXT)


async def rebuild(rig: ApiRig, image: str = "", ref=WEB) -> types_pb2.VE:
    return await rig.ve.Rebuild(api_pb2.RebuildVERequest(ve=ref, image=image), NO_CONTEXT)


async def clone(rig: ApiRig, name="copy", *, beside=None, labels=None, **spec) -> types_pb2.VE:
    wanted = types_pb2.VE(name=name, labels=labels or {}, spec=types_pb2.VESpec(**spec))
    request = api_pb2.CloneVERequest(**{"source": WEB, "ve": wanted, **(beside or {})})
    return await rig.ve.Clone(request, NO_CONTEXT)


VERBS = {
    "freeze": lambda rig, ref: rig.ve.SetRun(
        api_pb2.SetRunRequest(ve=ref, run="frozen"), NO_CONTEXT
    ),
    "rename": lambda rig, ref: rename(rig, "other", ref),
    "rebuild": lambda rig, ref: rebuild(rig, "", ref),
    "clone": lambda rig, ref: clone(rig, beside={"source": ref}),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_ve_that_is_not_there_says_which_are_near(rig: ApiRig, verb: str) -> None:
    await rig.running()
    with pytest.raises(NotFound) as refused:
        await VERBS[verb](rig, WOB)
    assert "did you mean web?" in refused.value.hint


@pytest.mark.parametrize("verb", VERBS)
async def test_a_ve_that_is_being_deleted_is_left_alone(rig: ApiRig, verb: str) -> None:
    await rig.running()
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    before = dict(rig.mirror.view.ves)
    with pytest.raises(Conflict, match="being deleted") as refused:
        await VERBS[verb](rig, WEB)
    assert "vectl undelete web" in refused.value.hint
    assert rig.mirror.view.ves == before


@pytest.mark.parametrize("verb", ["freeze", "rename"])
async def test_asked_twice_is_done_once(rig: ApiRig, verb: str) -> None:
    ve = await rig.running()
    by_uid = api_pb2.VERef(uid=ve.uid)
    for _ in range(2):
        found = await VERBS[verb](rig, by_uid)
    assert found.generation == 2


@pytest.mark.parametrize("fail", [Fail.APPLIED, Fail.LOST, Fail.LATE])
@pytest.mark.parametrize("verb", ["rename", "rebuild"])
async def test_a_change_whose_answer_is_lost_is_made_once(
    rig: ApiRig, verb: str, fail: Fail
) -> None:
    ve = await rig.running()
    rig.model.fail_writes(fail)
    await VERBS[verb](rig, WEB)
    rig.model.land_late_writes()
    await rig.mirror.reached(rig.model.etcd.revision)
    assert stored(rig, ve).generation == 2


async def test_a_frozen_ve_is_thawed_by_a_start_and_stopped_by_a_stop(rig: ApiRig) -> None:
    ve = await rig.running()
    for run in ("frozen", "running", "frozen", "stopped"):
        assert (await set_run(rig, run)).spec.run == run
    assert stored(rig, ve).generation == 5


@pytest.mark.parametrize("down", ["stopped", "off"])
async def test_only_what_runs_can_be_frozen(rig: ApiRig, down: str) -> None:
    ve = await rig.running()
    if down == "stopped":
        await set_run(rig, "stopped")
    else:
        await rig.report(ve.uid, VEState.STOPPED, reason="PoweredOff")
    with pytest.raises(Conflict) as refused:
        await set_run(rig, "frozen")
    assert "vectl start web" in refused.value.hint


async def test_a_thaw_starts_nothing_that_is_stopped(rig: ApiRig) -> None:
    ve = await rig.running()
    assert (await set_run(rig, "running", only_from="frozen")).generation == 1
    await set_run(rig, "stopped")
    with pytest.raises(Conflict, match="stopped, not frozen"):
        await set_run(rig, "running", only_from="frozen")
    assert stored(rig, ve).spec.run == "stopped"
    with pytest.raises(InvalidInput, match="only_from"):
        await set_run(rig, "running", only_from="melted")


async def test_a_frozen_state_is_shown_as_the_host_reports_it(rig: ApiRig) -> None:
    ve = await rig.running()
    await set_run(rig, "frozen")
    await rig.report(ve.uid, VEState.FROZEN, observed_generation=2)
    found = await rig.ve.Get(WEB, NO_CONTEXT)
    assert found.status.state == "Frozen"
    assert {"Running": "False"}.items() <= {
        c.type: c.status for c in found.status.conditions
    }.items()


async def test_a_rename_moves_the_name_in_one_step(rig: ApiRig) -> None:
    ve = await rig.running()
    found = await rename(rig, "shop")
    view = rig.mirror.view
    assert (found.name, found.uid, found.generation) == ("shop", ve.uid, 2)
    assert set(view.names) == {("default", "shop")}
    assert view.names["default", "shop"].value == ve.uid
    assert (await rig.create("web")).uid != ve.uid


async def test_a_taken_name_is_refused_also_of_one_that_goes(rig: ApiRig) -> None:
    await rig.running()
    await rig.running("db")
    with pytest.raises(Conflict, match="name db is taken"):
        await rename(rig, "db")
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=api_pb2.VERef(name="db")), NO_CONTEXT)
    with pytest.raises(Conflict, match="being deleted"):
        await rename(rig, "db")


@pytest.mark.parametrize("name", ["", "-", "Web", "a b", "../x", "x" * 64, "ünï", "a\n"])
async def test_a_name_that_is_none_is_refused(rig: ApiRig, name: str) -> None:
    await rig.running()
    with pytest.raises(InvalidInput, match="name"):
        await rename(rig, name)
    with pytest.raises(InvalidInput, match="name"):
        await clone(rig, name)


async def test_of_two_renames_to_one_name_one_wins(rig: ApiRig) -> None:
    await rig.running()
    await rig.running("db")
    found = await asyncio.gather(
        rename(rig, "new"), rename(rig, "new", api_pb2.VERef(name="db")), return_exceptions=True
    )
    assert len([error for error in found if isinstance(error, Conflict)]) == 1
    assert len(rig.mirror.view.names) == 2


async def test_a_rebuild_wants_a_root_of_the_image_and_keeps_the_rest(rig: ApiRig) -> None:
    ve = await rig.running()
    before = stored(rig, ve)
    found = await rebuild(rig, "alpine")
    after = stored(rig, ve)
    assert (found.spec.image, after.image_digest, after.root.seq) == ("alpine", ALPINE, 1)
    assert (after.ip, after.name, after.generation) == (before.ip, "web", 2)
    await rebuild(rig)
    assert (stored(rig, ve).image_digest, stored(rig, ve).root.seq) == (ALPINE, 2)


async def test_a_rebuild_without_an_image_takes_what_the_tag_is_now(rig: ApiRig) -> None:
    ve = await rig.running()
    await rig.put_image("debian", ALPINE)
    await rebuild(rig)
    assert stored(rig, ve).image_digest == ALPINE


async def test_a_rebuild_of_an_unknown_image_changes_nothing(rig: ApiRig) -> None:
    ve = await rig.running()
    with pytest.raises(NotFound) as refused:
        await rebuild(rig, "alpin")
    assert "did you mean alpine?" in refused.value.hint
    with pytest.raises(InvalidInput, match="image"):
        await rebuild(rig, "No Image")
    assert stored(rig, ve).generation == 1


async def test_a_clone_is_a_new_ve_made_of_the_source_on_its_limits(rig: ApiRig) -> None:
    ve = await rig.running()
    found = await clone(rig, labels={"a": "b"}, run="stopped", swap_bytes=GIB)
    made = stored(rig, found)
    assert found.uid != ve.uid
    assert (made.root.seq, made.root.from_uid, made.root.snapshot) == (0, ve.uid, "")
    assert (made.image_digest, made.spec.image, made.spec.run) == (DEBIAN, "debian", "stopped")
    assert made.ip not in ("", stored(rig, ve).ip)
    assert (made.spec.swap_bytes, made.spec.memory_bytes) == (GIB, 256 << 20)
    assert (dict(made.labels), made.generation) == ({"a": "b"}, 1)


async def test_what_is_named_counts_also_when_it_is_nothing(rig: ApiRig) -> None:
    ve = await rig.running()
    request = api_pb2.SetVERequest(
        ve=WEB, spec=types_pb2.VESpec(net_in_bps=10**8), fields=["net_in_bps"]
    )
    await rig.ve.Set(request, NO_CONTEXT)
    assert stored(rig, await clone(rig)).spec.net_in_bps == 10**8
    named = await clone(rig, "other", beside={"fields": ["net_in_bps"]})
    assert stored(rig, named).spec.net_in_bps == 0
    assert stored(rig, ve).spec.net_in_bps == 10**8


async def test_a_clone_needs_neither_the_image_nor_its_tag(rig: ApiRig) -> None:
    await rig.running()
    await rig.put_image("debian", ALPINE)
    assert stored(rig, await clone(rig)).image_digest == DEBIAN


async def test_the_same_clone_again_gives_the_same_ve(rig: ApiRig) -> None:
    await rig.running()
    first = await clone(rig, beside={"request_id": "r1"})
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    assert (await clone(rig, beside={"request_id": "r1"})).uid == first.uid
    with pytest.raises(Conflict):
        await clone(rig, beside={"request_id": "r2"})


@pytest.mark.parametrize("state", [None, VEState.CREATING])
async def test_a_source_without_a_root_can_not_be_cloned(rig: ApiRig, state) -> None:
    ve = await rig.create()
    if state is not None:
        await rig.place(ve.uid)
        await rig.report(ve.uid, state)
    with pytest.raises(Conflict, match="no root yet"):
        await clone(rig)


async def test_a_clone_of_a_snapshot_needs_one_that_is_there(rig: ApiRig) -> None:
    ve = await rig.running()
    there = SnapshotStatus(tag="before", seq=1, taken_at=1.0)
    failed = SnapshotStatus(tag="broken", seq=2, taken_at=1.0, error="the disk is full")
    await rig.report(ve.uid, VEState.RUNNING, snapshots=(there, failed))
    made = stored(rig, await clone(rig, beside={"snapshot": "before"}))
    assert made.root.snapshot == "before"
    older = msgspec.structs.replace(there, image_digest=ALPINE)
    await rig.report(ve.uid, VEState.RUNNING, snapshots=(older, failed))
    of_older = stored(rig, await clone(rig, "older", beside={"snapshot": "before"}))
    assert (of_older.image_digest, of_older.spec.image) == (ALPINE, "alpine")
    with pytest.raises(NotFound) as refused:
        await clone(rig, "other", beside={"snapshot": "befor"})
    assert "did you mean before?" in refused.value.hint
    with pytest.raises(Conflict, match="the disk is full"):
        await clone(rig, "other", beside={"snapshot": "broken"})


async def test_a_clone_can_be_nowhere_else_and_of_no_other_image(rig: ApiRig) -> None:
    await rig.running()
    await rig.put_host("h2")
    with pytest.raises(Conflict, match="on h1"):
        await clone(rig, host="h2")
    with pytest.raises(NotFound, match="no host h9"):
        await clone(rig, host="h9")
    with pytest.raises(InvalidInput, match=r"spec\.image"):
        await clone(rig, image="alpine")
    with pytest.raises(InvalidInput, match=r"spec\.memory_bytes"):
        await clone(rig, memory_bytes=-1)
    with pytest.raises(Conflict, match="name web is taken"):
        await clone(rig, "web")


async def test_a_source_that_is_deleted_meanwhile_is_looked_at_again(rig: ApiRig) -> None:
    await rig.running()
    made, gone = await asyncio.gather(
        clone(rig),
        rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT),
        return_exceptions=True,
    )
    assert isinstance(gone, types_pb2.VE)
    assert isinstance(made, types_pb2.VE | Conflict)
