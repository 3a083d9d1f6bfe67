"""What the API tells of the scheduler: by the same code that places."""

import pytest

from kit.apirig import GIB, NO_CONTEXT, ApiRig, api_rig, create_request
from veapi.errors import InvalidInput, NotFound
from veapi.model import Resources
from veapi.v1 import api_pb2, scheduler_pb2, types_pb2


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        yield rig


def of(name: str) -> scheduler_pb2.ExplainRequest:
    return scheduler_pb2.ExplainRequest(ve=api_pb2.VERef(name=name))


def of_new(**fields) -> scheduler_pb2.ExplainRequest:
    return scheduler_pb2.ExplainRequest(spec=create_request("new", **fields).ve)


async def explain(rig: ApiRig, request) -> scheduler_pb2.Explanation:
    return await rig.scheduling.Explain(request, NO_CONTEXT)


async def test_every_host_is_told_with_all_that_it_lacks(rig: ApiRig) -> None:
    await rig.put_host("h2", disk_gib=1)
    found = await explain(rig, of_new(memory_bytes=20 * GIB, disk_bytes=2 * GIB))
    assert [verdict.host for verdict in found.verdicts] == ["h1", "h2"]
    assert [[each.check for each in verdict.failing] for verdict in found.verdicts] == [
        ["memory"],
        ["memory", "disk"],
    ]
    assert found.verdicts[0].failing[0].why == "free 16G of 16G, wanted 20G: 4G too little"
    assert "2 too little memory (largest free 16G)" in found.refusal
    assert found.hint


async def test_a_ve_that_has_a_host_is_looked_at_as_if_it_had_none(rig: ApiRig) -> None:
    ve = await rig.create("web", memory_bytes=16 * GIB)
    await rig.place(ve.uid)
    found = await explain(rig, of("web"))
    assert (found.placement.host, found.verdicts[0].rank) == ("h1", 1)
    assert found.refusal == ""
    other = await explain(rig, of_new(memory_bytes=GIB))
    assert other.verdicts[0].failing[0].why == "free 0 of 16G, wanted 1G: 1G too little"
    assert list(other.changes) == ["free 1G of memory on h1"]


async def test_what_is_on_its_way_to_a_host_counts(rig: ApiRig) -> None:
    rig.scheduler.given["h1"] = [Resources(memory_bytes=16 * GIB)]
    assert "too little memory" in (await explain(rig, of_new())).refusal


async def test_what_could_not_be_created_can_not_be_explained(rig: ApiRig) -> None:
    with pytest.raises(NotFound, match="no image"):
        await explain(rig, of_new(image="nix"))
    with pytest.raises(NotFound, match="no VE"):
        await explain(rig, of("nobody"))
    with pytest.raises(NotFound, match="no host h9"):
        await explain(rig, of_new(host="h9"))
    with pytest.raises(InvalidInput, match="pids"):
        await explain(rig, of_new(pids=1))
    with pytest.raises(InvalidInput, match="either"):
        await explain(rig, scheduler_pb2.ExplainRequest())


async def capacity(rig: ApiRig, *flavors: types_pb2.Resources) -> scheduler_pb2.CapacityResponse:
    request = scheduler_pb2.CapacityRequest(flavors=flavors)
    return await rig.scheduling.Capacity(request, NO_CONTEXT)


async def test_capacity_counts_what_fits_and_names_what_runs_out(rig: ApiRig) -> None:
    await rig.put_host("h2", disk_gib=10)
    found = await capacity(rig, types_pb2.Resources(memory_bytes=2 * GIB))
    (flavor,) = found.flavors
    assert (found.hosts, found.hosts_able, flavor.now) == (2, 2, 10)
    assert (flavor.after_host.name, flavor.after_host.more) == ("h1", 2)
    assert (flavor.after_rack.name, flavor.after_rack.more) == ("r1", 0)
    assert [(stop.resource, stop.hosts) for stop in flavor.stopped_by] == [("cpu", 1), ("disk", 1)]
    assert flavor.resources.disk_bytes == 4 * GIB


async def test_capacity_names_the_ves_that_a_loss_would_strand(rig: ApiRig) -> None:
    ve = await rig.create("web", memory_bytes=9 * GIB)
    await rig.place(ve.uid)
    found = await capacity(rig)
    assert [(loss.kind, loss.name, loss.ves) for loss in found.losses] == [
        ("host", "h1", 1),
        ("rack", "r1", 1),
    ]
    (stranded,) = found.losses[0].stranded
    assert (stranded.name, stranded.project, stranded.why) == ("web", "default", "1 host: 1 lost")
    await rig.put_host("h2")
    assert [loss.kind for loss in (await capacity(rig)).losses] == ["rack"]


async def test_a_flavor_that_no_ve_may_have_is_refused(rig: ApiRig) -> None:
    with pytest.raises(InvalidInput, match=r"spec\.pids"):
        await capacity(rig, types_pb2.Resources(pids=1))


async def taint(rig: ApiRig, host: str = "h1", *, add=(), remove=()) -> types_pb2.Host:
    request = scheduler_pb2.TaintHostRequest(host=host, add=add, remove=remove)
    return await rig.scheduling.TaintHost(request, NO_CONTEXT)


async def test_a_tainted_host_is_shown_so_and_takes_only_who_tolerates_it(rig: ApiRig) -> None:
    host = await taint(rig, add=["gpu=a100", "old:prefer"])
    assert list(host.taints) == ["gpu=a100", "old:prefer"]
    assert "1 tainted `gpu=a100`" in (await explain(rig, of_new())).refusal
    assert (await explain(rig, of_new(tolerate=["gpu"]))).verdicts[0].rank == 1
    assert (await capacity(rig)).flavors[0].now == 0


async def test_a_host_has_one_taint_of_a_key_and_loses_it_by_its_key(rig: ApiRig) -> None:
    await taint(rig, add=["gpu=a100", "b"])
    before = rig.model.etcd.revision
    await taint(rig, add=["b"])
    assert rig.model.etcd.revision == before
    assert list((await taint(rig, add=["gpu=h100"], remove=["b"])).taints) == ["gpu=h100"]
    assert list((await taint(rig, remove=["gpu", "never"])).taints) == []


@pytest.mark.parametrize("bad", [{"add": ["a="]}, {"remove": ["a b"]}, {"host": "A"}])
async def test_what_can_not_be_a_taint_changes_nothing(rig: ApiRig, bad) -> None:
    before = rig.model.etcd.revision
    with pytest.raises(InvalidInput):
        await taint(rig, **bad)
    with pytest.raises(NotFound, match="no host h9"):
        await taint(rig, "h9", add=["a"])
    assert rig.model.etcd.revision == before


async def test_wishes_are_kept_with_the_ve_in_their_canonical_form(rig: ApiRig) -> None:
    ve = await rig.create("web", apart=["app=web over rack max 1"], require=["a in (c, b)"])
    assert list(ve.spec.apart) == ["app=web over rack"]
    assert list(ve.spec.require) == ["a in (b,c)"]
    change = api_pb2.SetVERequest(ve=api_pb2.VERef(name="web"), fields=["apart"])
    assert list((await rig.ve.Set(change, NO_CONTEXT)).spec.apart) == []
    with pytest.raises(InvalidInput, match=r"spec\.spread"):
        await rig.create("db", spread=["app=web over rack skew 0"])


async def test_company_is_explained_with_what_lives_there(rig: ApiRig) -> None:
    await rig.put_host("h2")
    ve = await rig.ve.Create(create_request("web", labels={"app": "web"}), NO_CONTEXT)
    await rig.place(ve.uid)
    found = await explain(rig, of_new(apart=["app=web"]))
    assert [(each.host, each.rank) for each in found.verdicts] == [("h2", 1), ("h1", 0)]
    assert found.verdicts[1].failing[0].why == "1 of app=web in host h1, at most 1"
