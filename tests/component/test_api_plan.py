"""Plans: what an apply would do, and doing exactly that or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.apirig import ALPINE, GIB, NO_CONTEXT, ApiRig, api_rig, create_request
from veapi.errors import Conflict, InvalidInput
from veapi.model import HostName, Uid
from veapi.v1 import api_pb2, plan_pb2, types_pb2
from vecontroller.api.planning import PlanService
from vecontroller.placement import explain, plan, request
from vecontroller.store import keys
from vecontroller.store.port import Delete


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        await rig.put_host("h2")
        yield rig


def service(rig: ApiRig) -> PlanService:
    return PlanService(rig.deps, rig.in_flight)


def manifest(name: str, **fields) -> api_pb2.ApplyVERequest:
    return api_pb2.ApplyVERequest(ve=create_request(name, **fields).ve)


async def planned(rig: ApiRig, *asked: api_pb2.ApplyVERequest) -> plan_pb2.Plan:
    return await service(rig).Make(plan_pb2.MakePlanRequest(apply=asked), NO_CONTEXT)


async def applied(rig: ApiRig, made: plan_pb2.Plan) -> plan_pb2.ApplyPlanResponse:
    return await service(rig).Apply(plan_pb2.ApplyPlanRequest(plan=made), NO_CONTEXT)


async def placed(rig: ApiRig, name: str, host: str, **fields) -> types_pb2.VE:
    ve = await rig.create(name, **fields)
    await rig.place(ve.uid, host)
    return ve


async def schedule(rig: ApiRig) -> dict[str, str]:
    """As the scheduler does: hosts of all VEs by name, and the reasons of those without."""
    view = rig.mirror.view
    missing = [held for uid, held in view.ves.items() if uid not in view.placements]
    made = plan(rig.scheduler.board().hosts, [request(view, held) for held in missing])
    for each in made.assignments:
        await rig.place(each.uid, each.host)
    found = {held.value.name: view.placements[uid].value.host
             for uid, held in view.ves.items() if uid in view.placements}  # fmt: skip
    return {**found, **{view.ves[each.uid].value.name: each.message for each in made.refusals}}


def actions(made: plan_pb2.Plan) -> list[tuple[str, str, str]]:
    return [(each.name, each.action, each.host) for each in made.ves]


async def test_a_plan_tells_what_becomes_of_each_and_where_and_writes_nothing(rig: ApiRig) -> None:
    await placed(rig, "same", "h1")
    await placed(rig, "grows", "h1", memory_bytes=GIB)
    await placed(rig, "stops", "h2")
    before = rig.mirror.view.revision
    made = await planned(
        rig,
        manifest("same"),
        manifest("grows", memory_bytes=2 * GIB),
        manifest("stops", run="stopped"),
        manifest("new"),
        manifest("fat", memory_bytes=20 * GIB),
        manifest("other", image="nix"),
    )
    assert actions(made) == [
        ("same", "unchanged", "h1"),
        ("grows", "change", "h1"),
        ("stops", "stop", "h2"),
        ("new", "create", "h2"),
        ("fat", "create", ""),
        ("other", "refused", ""),
    ]
    assert [each.field for each in made.ves[1].changes] == ["spec.memory_bytes"]
    assert "no host fits: 2 hosts: 2 too little memory" in made.ves[4].message
    assert [each.exit_code for each in made.ves] == [0, 0, 0, 0, 5, 3]
    assert rig.mirror.view.revision == before


async def test_what_grows_together_is_refused_together(rig: ApiRig) -> None:
    for name in ("a", "b"):
        await placed(rig, name, "h1", memory_bytes=4 * GIB)
    made = await planned(rig, *(manifest(name, memory_bytes=11 * GIB) for name in ("a", "b")))
    assert [each.action for each in made.ves] == ["change", "refused"]
    assert "too little memory (free 1G, wanted 7G)" in made.ves[1].message


sizes = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(old=sizes, new=sizes, later=sizes)
async def test_an_applied_plan_comes_out_as_it_says_or_does_nothing(old, new, later) -> None:
    async with api_rig() as rig:
        await rig.put_host("h2")
        for index, gib in enumerate(old):
            await rig.create(f"old-{index}", memory_bytes=gib * GIB)
        await schedule(rig)
        made = await planned(
            rig, *(manifest(f"new-{index}", memory_bytes=gib * GIB) for index, gib in enumerate(new))
        )  # fmt: skip
        if any(not each.host for each in made.ves):
            with pytest.raises(InvalidInput, match="fits nowhere"):
                await applied(rig, made)
            return
        for index, gib in enumerate(later):
            await rig.create(f"later-{index}", memory_bytes=gib * GIB)
        await schedule(rig)
        names = set(rig.mirror.view.names)
        try:
            await applied(rig, made)
        except Conflict as error:
            assert "does not fit on" in error.message
            assert set(rig.mirror.view.names) == names
            return
        places = await schedule(rig)
        assert {each.name: places[each.name] for each in made.ves} == {
            each.name: each.host for each in made.ves
        }


async def test_new_ves_go_where_the_plan_says_though_another_host_is_better_by_now(
    rig: ApiRig,
) -> None:
    made = await planned(rig, manifest("new"))
    assert actions(made) == [("new", "create", "h1")]
    for index in range(3):
        await placed(rig, f"other-{index}", "h1")
    answer = await applied(rig, made)
    assert answer.done[0].outcome == api_pb2.ApplyVEResponse.OUTCOME_CREATED
    assert (await schedule(rig))["new"] == "h1"
    explained = request(rig.mirror.view, rig.mirror.view.ves[Uid(answer.done[0].ve.uid)])
    assert explained.host == "", "once it is placed the plan binds it no more"


async def test_a_planned_ve_whose_room_was_taken_says_why_it_waits_and_what_would_help(
    rig: ApiRig,
) -> None:
    made = await planned(rig, manifest("new", memory_bytes=9 * GIB))
    answer = await applied(rig, made)
    await placed(rig, "faster", "h1", memory_bytes=9 * GIB)
    assert (await schedule(rig))["new"] == (
        "host h1, which the plan chose, has too little memory (free 7G)"
    )
    held = rig.mirror.view.ves[Uid(answer.done[0].ve.uid)]
    found = explain(rig.scheduler.board(), request(rig.mirror.view, held))
    assert "delete it and make a new plan" in found.changes[1]


async def test_what_changed_since_is_named_and_nothing_is_done(rig: ApiRig) -> None:
    one = await placed(rig, "one", "h1")
    await placed(rig, "two", "h1")
    await rig.put_image("alpine", ALPINE)
    made = await planned(
        rig,
        manifest("fine"),
        manifest("taken"),
        manifest("one", memory_bytes=GIB),
        manifest("two", memory_bytes=GIB),
        manifest("drawn", image="alpine"),
    )
    await rig.create("taken")
    await rig.ve.SetRun(
        api_pb2.SetRunRequest(ve=api_pb2.VERef(name="one"), run="stopped"), NO_CONTEXT
    )
    await rig.place(rig.mirror.view.names["default", "two"].value, "h2")
    await rig.put_image("alpine")
    with pytest.raises(Conflict) as raised:
        await applied(rig, made)
    assert raised.value.exit_code == 4
    said = raised.value.message
    assert "taken is there by now; one was changed; two is on h2 by now; image alpine" in said
    assert ("default", "fine") not in rig.mirror.view.names
    await rig.remove(one.uid)
    with pytest.raises(Conflict, match="one is gone"):
        await applied(rig, made)


async def test_room_that_is_gone_stops_the_plan_before_anything_is_done(rig: ApiRig) -> None:
    made = await planned(rig, manifest("a"), manifest("b", memory_bytes=12 * GIB))
    assert [each.host for each in made.ves] == ["h1", "h1"]
    await placed(rig, "other", "h1", memory_bytes=10 * GIB)
    with pytest.raises(Conflict, match=r"b does not fit on h1 any more: .* too little memory"):
        await applied(rig, made)
    assert ("default", "a") not in rig.mirror.view.names


async def test_a_host_that_is_gone_stops_the_plan(rig: ApiRig) -> None:
    made = await planned(rig, manifest("a"))
    await rig.outside.transact([], [Delete(key=keys.host_status(HostName(made.ves[0].host)))])
    await rig.mirror.reached(rig.mirror.view.revision + 1)
    with pytest.raises(Conflict, match="host h1 is not known"):
        await applied(rig, made)


async def test_what_fails_half_way_is_told_with_what_was_done(rig: ApiRig) -> None:
    made = await planned(rig, manifest("a", ip="10.66.0.9"), manifest("b", ip="10.66.0.9"))
    answer = await applied(rig, made)
    assert [each.ve.name for each in answer.done] == ["a"]
    assert (answer.failed[:2], answer.kind) == ("b:", "conflict")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda made: setattr(made, "version", 2),
        lambda made: setattr(made, "cluster", "other"),
        lambda made: setattr(made.ves[0], "action", "refused"),
        lambda made: setattr(made.ves[0], "host", ""),
        lambda made: setattr(made.ves[0], "name", "b"),
        lambda made: made.ves[0].ClearField("apply"),
    ],
)
async def test_a_plan_that_is_not_whole_is_refused(rig: ApiRig, spoil) -> None:
    made = await planned(rig, manifest("a"))
    spoil(made)
    with pytest.raises(InvalidInput, match="plan"):
        await applied(rig, made)
