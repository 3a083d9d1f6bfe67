import asyncio

import pytest

from kit.apirig import NO_CONTEXT, ApiRig, api_rig
from kit.modelstore import Fail
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.model import HostState, Uid, VEState
from veapi.v1 import api_pb2, types_pb2
from vecontroller.store import keys

WEB = api_pb2.VERef(name="web")


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        yield rig


def stop(ref: api_pb2.VERef = WEB, **fields) -> api_pb2.SetRunRequest:
    return api_pb2.SetRunRequest(ve=ref, run="stopped", **fields)


def stored(rig: ApiRig, ve: types_pb2.VE):
    return rig.mirror.view.ves[Uid(ve.uid)].value


async def test_a_stop_changes_what_is_wanted_and_counts_a_generation(rig: ApiRig) -> None:
    ve = await rig.running()
    stopped = await rig.ve.SetRun(stop(), NO_CONTEXT)
    assert (stopped.spec.run, stopped.generation) == ("stopped", 2)
    assert stopped.resource_version > ve.resource_version
    assert stored(rig, ve).stop_timeout_s == 30


async def test_starting_what_is_to_run_already_writes_nothing(rig: ApiRig) -> None:
    ve = await rig.running()
    writes = rig.model.writes
    same = await rig.ve.SetRun(api_pb2.SetRunRequest(ve=WEB, run="running"), NO_CONTEXT)
    assert same == ve
    assert rig.model.writes == writes


@pytest.mark.parametrize(
    ("state", "reason", "generation"),
    [
        (VEState.STOPPED, "PoweredOff", 2),
        (VEState.STOPPED, "LimitsRefused", 2),
        (VEState.FAILED, "StartFailed", 2),
        (VEState.FAILED, "ExitedAtOnce", 2),
        (VEState.RUNNING, "LimitsRefused", 1),
        (VEState.CREATING, "ImageFetching", 1),
        (VEState.STOPPED, "", 1),
    ],
)
async def test_a_start_is_a_new_wish_only_for_what_waits_for_its_user(
    rig: ApiRig, state: VEState, reason: str, generation: int
) -> None:
    ve = await rig.running()
    await rig.report(ve.uid, state, reason=reason)
    started = await rig.ve.SetRun(api_pb2.SetRunRequest(ve=WEB, run="running"), NO_CONTEXT)
    assert started.generation == generation
    assert stored(rig, ve).restart_seq == 0


async def test_a_start_of_what_its_guest_switched_off_and_its_user_stopped_counts_once(
    rig: ApiRig,
) -> None:
    ve = await rig.running()
    await rig.ve.SetRun(stop(), NO_CONTEXT)
    await rig.report(ve.uid, VEState.STOPPED, reason="PoweredOff")
    again = await rig.ve.SetRun(stop(), NO_CONTEXT)
    assert again.generation == 2
    started = await rig.ve.SetRun(api_pb2.SetRunRequest(ve=WEB, run="running"), NO_CONTEXT)
    assert started.generation == 3


async def test_a_forced_stop_of_a_ve_that_is_stopping_kills_it(rig: ApiRig) -> None:
    ve = await rig.running()
    await rig.ve.SetRun(stop(stop_timeout_s=300), NO_CONTEXT)
    assert stored(rig, ve).stop_timeout_s == 300
    forced = await rig.ve.SetRun(stop(force=True), NO_CONTEXT)
    assert stored(rig, ve).stop_timeout_s == 0
    assert forced.generation == 2


async def test_a_restart_counts_up_and_makes_a_stopped_ve_run(rig: ApiRig) -> None:
    ve = await rig.running()
    await rig.ve.SetRun(stop(), NO_CONTEXT)
    restarted = await rig.ve.Restart(api_pb2.RestartRequest(ve=WEB, stop_timeout_s=5), NO_CONTEXT)
    assert restarted.spec.run == "running"
    assert (stored(rig, ve).restart_seq, stored(rig, ve).stop_timeout_s) == (1, 5)


async def test_changes_at_the_same_time_are_all_made(rig: ApiRig) -> None:
    ve = await rig.running()
    request = api_pb2.RestartRequest(ve=WEB)
    await asyncio.gather(*(rig.ve.Restart(request, NO_CONTEXT) for _ in range(4)))
    assert stored(rig, ve).restart_seq == 4


async def test_a_change_for_another_revision_is_refused(rig: ApiRig) -> None:
    ve = await rig.running()
    old = api_pb2.VERef(name="web", resource_version=ve.resource_version)
    await rig.ve.SetRun(stop(old), NO_CONTEXT)
    with pytest.raises(Conflict, match="resource_version") as refused:
        await rig.ve.Restart(api_pb2.RestartRequest(ve=old), NO_CONTEXT)
    assert refused.value.hint


async def test_of_two_changes_of_one_revision_one_is_refused(rig: ApiRig) -> None:
    ve = await rig.running()
    ref = api_pb2.VERef(name="web", resource_version=ve.resource_version)
    request = api_pb2.RestartRequest(ve=ref)
    calls = (rig.ve.Restart(request, NO_CONTEXT), rig.ve.Restart(request, NO_CONTEXT))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(isinstance(result, Conflict) for result in results) == [False, True]
    assert stored(rig, ve).restart_seq == 1


async def test_another_ve_of_the_same_name_is_not_touched(rig: ApiRig) -> None:
    await rig.running()
    with pytest.raises(Conflict, match="another one"):
        await rig.ve.Delete(
            api_pb2.DeleteVERequest(ve=api_pb2.VERef(name="web", uid="old")), NO_CONTEXT
        )


async def test_a_ve_can_be_named_by_its_uid(rig: ApiRig) -> None:
    ve = await rig.running()
    assert (await rig.ve.Get(api_pb2.VERef(uid=ve.uid), NO_CONTEXT)).name == "web"


@pytest.mark.parametrize("fail", [Fail.APPLIED, Fail.LOST])
async def test_a_change_whose_answer_is_lost_is_made_once(rig: ApiRig, fail: Fail) -> None:
    ve = await rig.running()
    rig.model.fail_writes(fail)
    await rig.ve.Restart(api_pb2.RestartRequest(ve=WEB), NO_CONTEXT)
    assert stored(rig, ve).restart_seq == 1


async def test_deleting_a_placed_ve_asks_its_host_and_keeps_name_and_address(rig: ApiRig) -> None:
    ve = await rig.running()
    deleting = await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    assert deleting.status.state == "Deleting"
    assert deleting.HasField("delete_requested_at")
    assert ("default", "web") in rig.mirror.view.names
    with pytest.raises(Conflict, match="being deleted"):
        await rig.create("web")
    assert stored(rig, ve).delete_requested_at is not None


async def test_deleting_again_changes_nothing(rig: ApiRig) -> None:
    await rig.running()
    first = await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    writes = rig.model.writes
    assert await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT) == first
    assert rig.model.writes == writes


async def test_deleting_a_ve_without_a_host_removes_all_of_it_at_once(rig: ApiRig) -> None:
    ve = await rig.create("web")
    gone = await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    assert (gone.uid, gone.status.state) == (ve.uid, "Deleting")
    view = rig.mirror.view
    assert not view.ves
    assert not view.names
    assert not view.addresses
    with pytest.raises(NotFound):
        await rig.ve.Get(WEB, NO_CONTEXT)


async def test_a_ve_that_gets_a_host_while_it_is_deleted_is_left_to_the_host(rig: ApiRig) -> None:
    ve = await rig.create("web")
    rig.model.cut_watches()
    placing = asyncio.create_task(rig.place(ve.uid))
    deleting = asyncio.create_task(rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT))
    await asyncio.sleep(0)
    rig.model.heal_watches()
    await placing
    assert (await deleting).placement.host == "h1"
    assert stored(rig, ve).delete_requested_at is not None


@pytest.mark.parametrize("fail", [Fail.APPLIED, Fail.LOST])
async def test_a_delete_whose_answer_is_lost_is_decided_by_reading(rig: ApiRig, fail: Fail) -> None:
    await rig.create("web")
    rig.model.fail_writes(fail)
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    assert not rig.mirror.view.ves


async def test_a_ve_that_is_being_deleted_can_not_be_started(rig: ApiRig) -> None:
    await rig.running()
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    with pytest.raises(Conflict, match="being deleted") as refused:
        await rig.ve.SetRun(api_pb2.SetRunRequest(ve=WEB, run="running"), NO_CONTEXT)
    assert refused.value.hint


@pytest.mark.parametrize(
    "request_",
    [stop(stop_timeout_s=-1), stop(stop_timeout_s=2**62), api_pb2.SetRunRequest(run="x")],
)
async def test_bad_changes_are_refused_with_a_hint(rig: ApiRig, request_) -> None:
    with pytest.raises(InvalidInput) as refused:
        await rig.ve.SetRun(request_, NO_CONTEXT)
    assert refused.value.hint


async def test_an_unknown_name_says_which_are_near(rig: ApiRig) -> None:
    await rig.create("web-1")
    with pytest.raises(NotFound, match="no VE web in project default") as refused:
        await rig.ve.Get(WEB, NO_CONTEXT)
    assert "web-1" in refused.value.hint


async def test_a_value_of_a_newer_version_is_never_rewritten(rig: ApiRig) -> None:
    ve = await rig.running()
    newer = b"\x08\x63"
    await rig.put(keys.ve_spec(Uid(ve.uid)), newer)
    with pytest.raises(Conflict, match="can't be read") as refused:
        await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    assert refused.value.hint
    assert rig.model.etcd.items[keys.ve_spec(Uid(ve.uid))].value == newer


async def test_a_show_has_events_and_conditions_and_a_list_has_no_events(rig: ApiRig) -> None:
    ve = await rig.running()
    assert [event.reason for event in ve.status.events] == ["Created", "Placed"]
    assert {each.type for each in ve.status.conditions} == {"Placed", "HostReady", "Running"}
    listed = await rig.ve.List(api_pb2.ListVEsRequest(), NO_CONTEXT)
    assert not listed.ves[0].status.events
    assert listed.revision == rig.mirror.view.revision


async def test_a_list_selects_and_orders(rig: ApiRig) -> None:
    await rig.put_project("team")
    for name in ("b", "a", "c"):
        await rig.create(name)
    names = [ve.name for ve in (await rig.ve.List(api_pb2.ListVEsRequest(), NO_CONTEXT)).ves]
    assert names == ["a", "b", "c"]
    some = api_pb2.ListVEsRequest(names=["c", "zz", "a"])
    assert [ve.name for ve in (await rig.ve.List(some, NO_CONTEXT)).ves] == ["a", "c"]
    assert not (await rig.ve.List(api_pb2.ListVEsRequest(project="team"), NO_CONTEXT)).ves
    assert not (await rig.ve.List(api_pb2.ListVEsRequest(selector="tier=web"), NO_CONTEXT)).ves
    with pytest.raises(NotFound):
        await rig.ve.List(api_pb2.ListVEsRequest(project="temp"), NO_CONTEXT)


async def test_a_host_shows_what_is_promised_there(rig: ApiRig) -> None:
    await rig.running()
    host = await rig.host.Get(api_pb2.HostRef(name="h1"), NO_CONTEXT)
    assert (host.state, host.ves, host.committed.cpu, host.capacity.cpu) == ("Ready", 1, 1, 8)
    listed = await rig.host.List(api_pb2.ListHostsRequest(selector="rack=r2"), NO_CONTEXT)
    assert not listed.hosts
    with pytest.raises(NotFound, match="no host h2") as refused:
        await rig.host.Get(api_pb2.HostRef(name="h2"), NO_CONTEXT)
    assert refused.value.hint


async def test_projects_are_made_once_and_listed(rig: ApiRig) -> None:
    await rig.project.Create(api_pb2.CreateProjectRequest(name="team"), NO_CONTEXT)
    with pytest.raises(Conflict) as refused:
        await rig.project.Create(api_pb2.CreateProjectRequest(name="team"), NO_CONTEXT)
    assert refused.value.hint
    await rig.running()
    projects = (await rig.project.List(api_pb2.ListProjectsRequest(), NO_CONTEXT)).projects
    assert [(each.name, each.ves) for each in projects] == [("default", 1), ("team", 0)]


async def test_the_version_says_who_leads(rig: ApiRig) -> None:
    version = await rig.system.Version(api_pb2.VersionRequest(), NO_CONTEXT)
    assert (version.cluster, version.leader, version.epoch) == ("rack", "c1", 7)


async def test_a_ve_on_a_silent_host_is_unknown_but_can_be_changed(rig: ApiRig) -> None:
    await rig.running()
    rig.hosts.states["h1"] = HostState.SILENT
    assert (await rig.ve.SetRun(stop(), NO_CONTEXT)).status.state == VEState.UNKNOWN


async def test_a_restart_counts_on_from_what_its_host_has_done_when_the_store_was_set_back(
    rig: ApiRig,
) -> None:
    """Under a number that was carried out before it would do nothing."""
    ve = await rig.running()
    await rig.report(ve.uid, VEState.RUNNING, observed_restart_seq=7)
    await rig.ve.Restart(api_pb2.RestartRequest(ve=WEB), NO_CONTEXT)
    assert stored(rig, ve).restart_seq == 8
    request = api_pb2.SetVERequest(ve=WEB, restart=True, fields=["env"])
    request.spec.env["A"] = "b"
    await rig.report(ve.uid, VEState.RUNNING, observed_restart_seq=9)
    await rig.ve.Set(request, NO_CONTEXT)
    assert stored(rig, ve).restart_seq == 10


@pytest.mark.parametrize("stopped_first", [False, True])
async def test_a_start_is_newer_than_all_its_host_has_seen_when_the_store_was_set_back(
    rig: ApiRig, *, stopped_first: bool
) -> None:
    """Its guest switched it off in generation 7: a user's word of generation 2 would be of before that."""
    ve = await rig.running()
    if stopped_first:
        await rig.ve.SetRun(stop(), NO_CONTEXT)
    off = {"reason": "PoweredOff", "observed_generation": 7}
    await rig.report(ve.uid, VEState.STOPPED, **off)
    started = await rig.ve.SetRun(api_pb2.SetRunRequest(ve=WEB, run="running"), NO_CONTEXT)
    assert (started.generation, stored(rig, ve).run_generation) == (8, 8)
