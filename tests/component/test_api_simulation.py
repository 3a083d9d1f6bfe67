"""Simulations by the API: of the cluster as it is, and of a view that was carried away."""

import asyncio
from typing import Any

import pytest

from kit.apirig import ALPINE, GIB, NO_CONTEXT, ApiRig, api_rig, create_request
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.v1 import api_pb2, simulate_pb2
from vecontroller.api import savedview
from vecontroller.api.simulation import AT_ONCE, SimulationService
from vecontroller.placement import plan, request
from vecontroller.whatif import world_of


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        yield rig


def manifest(name: str, *given: str, **fields) -> api_pb2.ApplyVERequest:
    return api_pb2.ApplyVERequest(ve=create_request(name, **fields).ve, fields=given)


async def simulated(rig: ApiRig, **what) -> simulate_pb2.Simulation:
    asked = simulate_pb2.SimulateRequest(**what)
    return await SimulationService(rig.deps).Simulate(asked, NO_CONTEXT)


async def saved(rig: ApiRig) -> simulate_pb2.SavedView:
    return await SimulationService(rig.deps).SaveView(simulate_pb2.SaveViewRequest(), NO_CONTEXT)


async def filled(rig: ApiRig) -> None:
    """Two hosts with a VE each, and one VE that waits."""
    await rig.put_host("h2")
    for name, host in (("a", "h1"), ("b", "h2")):
        ve = await rig.create(name, memory_bytes=10 * GIB, labels={"app": "web"})
        await rig.place(ve.uid, host)
    await rig.create("waits", memory_bytes=12 * GIB)


async def test_a_simulated_apply_is_what_becomes_of_a_real_one(rig: ApiRig) -> None:
    await filled(rig)
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("new-1", {"memory_bytes": 5 * GIB}),
        ("new-2", {}),
        ("huge", {"pids": 32_000}),
    ]
    found = await simulated(rig, apply=[manifest(name, **fields) for name, fields in wanted])
    for name, fields in wanted:
        await rig.create(name, **fields)
    view = rig.mirror.view
    missing = [held for uid, held in view.ves.items() if uid not in view.placements]
    made = plan(rig.scheduler.board().hosts, [request(view, held) for held in missing])
    names = {uid: held.value.name for uid, held in view.ves.items()}
    assert [(ve.name, ve.to_host, ve.message) for ve in found.ves] == [
        *((names[each.uid], each.host, each.message) for each in made.assignments),
        *((names[each.uid], "", each.message) for each in made.refusals),
    ]
    assert {ve.name: ve.why for ve in found.ves} == {
        "waits": "waiting", "new-1": "new", "new-2": "new", "huge": "new",
    }  # fmt: skip


async def test_a_simulation_writes_nothing_and_leaves_the_board_alone(rig: ApiRig) -> None:
    await filled(rig)
    before = rig.mirror.view.revision
    one = await simulated(rig, remove_hosts=["h1"], apply=[manifest("new")])
    assert await simulated(rig, remove_hosts=["h1"], apply=[manifest("new")]) == one
    assert rig.mirror.view.revision == before


async def test_a_saved_view_gives_the_same_answers_when_the_cluster_has_moved_on(
    rig: ApiRig,
) -> None:
    await filled(rig)
    what = {
        "remove_hosts": ["h1"],
        "add": [simulate_pb2.AddedHosts(count=2, like="h2", rack="r7")],
        "apply": [manifest("new"), manifest("b", memory_bytes=11 * GIB)],
    }
    live, view = await simulated(rig, **what), await saved(rig)
    assert (view.cluster, view.version) == ("rack", savedview.VERSION)
    await rig.create("later", memory_bytes=GIB)
    assert await simulated(rig, view=view, **what) == live


async def test_a_view_carries_all_that_a_placement_sees(rig: ApiRig) -> None:
    await filled(rig)
    wishes: dict[str, Any] = {
        "prefer": ["disk=ssd weight 7"],
        "near": ["app=web over rack"],
        "tolerate": ["gpu"],
    }
    await rig.create(
        "odd", labels={"x": "y"}, priority=7, apart=["x=y"], on_host_loss="recreate", **wishes
    )
    world = world_of(rig.mirror.view, rig.scheduler.board().hosts, rig.deps.rules)
    view = simulate_pb2.SavedView.FromString(savedview.saved(world).SerializeToString())
    assert savedview.world_in(view) == world
    assert [each.fenced for each in world.waiting] == [False, True]


async def test_a_simulated_apply_of_a_fenced_ve_needs_a_host_whose_vefence_runs(
    rig: ApiRig,
) -> None:
    await filled(rig)
    wanted = manifest("fenced", on_host_loss="recreate")
    found = await simulated(rig, apply=[wanted])
    assert {ve.name: ve.to_host != "" for ve in found.ves}["fenced"] is False
    assert "vefence does not run" in found.ves[-1].message
    grown = manifest("fenced", memory_bytes=2 * GIB)
    await rig.create("fenced", on_host_loss="recreate")
    assert "vefence does not run" in (await simulated(rig, apply=[grown])).ves[-1].message


async def test_what_a_manifest_leaves_out_of_a_ve_that_is_there_stays(rig: ApiRig) -> None:
    await filled(rig)
    found = await simulated(rig, apply=[manifest("a"), manifest("b", memory_bytes=11 * GIB)])
    assert [(ve.name, ve.why, ve.to_host) for ve in found.ves if ve.name != "waits"] == [
        ("b", "changed", "h2")
    ]
    changed = {host.name: host.committed_after.memory_bytes for host in found.hosts}
    assert changed == {"h1": 10 * GIB, "h2": 11 * GIB}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda view: setattr(view, "version", 9), "version 9"),
        (lambda view: setattr(view.ves[0], "placed_on", "h9"), "h9"),
        (lambda view: setattr(view.hosts[0], "state", "Fine"), "Fine"),
        (lambda view: view.hosts.add(name="h2", state="Ready"), "twice"),
        (lambda view: setattr(view.hosts[0].room, "memory_bytes", 1 << 62), "amount"),
        (lambda view: view.ves[0].apart.append("???"), "apart"),
    ],
)
async def test_a_view_that_is_not_whole_is_refused(rig: ApiRig, spoil, says: str) -> None:
    await filled(rig)
    view = await saved(rig)
    spoil(view)
    with pytest.raises(InvalidInput, match=says):
        await simulated(rig, view=view)


async def test_what_could_not_be_applied_can_not_be_simulated(rig: ApiRig) -> None:
    with pytest.raises(NotFound, match="no image nix"):
        await simulated(rig, apply=[manifest("a", image="nix")])
    with pytest.raises(InvalidInput, match="twice"):
        await simulated(rig, apply=[manifest("a"), manifest("a")])
    with pytest.raises(InvalidInput, match="pids"):
        await simulated(rig, apply=[manifest("a", pids=1)])
    await rig.put_image("alpine", ALPINE)
    assert (await simulated(rig, apply=[manifest("a", image=ALPINE)])).ves[0].to_host == "h1"


async def test_only_a_few_are_under_way_at_once(rig: ApiRig) -> None:
    service = SimulationService(rig.deps)
    request = simulate_pb2.SimulateRequest(remove_hosts=["h1"])
    calls = [service.Simulate(request, NO_CONTEXT) for _ in range(AT_ONCE + 1)]
    *served, refused = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, simulate_pb2.Simulation) for each in served)
    assert isinstance(refused, Conflict)
    assert refused.message == f"{AT_ONCE} simulations are under way"
    with pytest.raises(NotFound):
        await service.Simulate(simulate_pb2.SimulateRequest(remove_hosts=["h9"]), NO_CONTEXT)
