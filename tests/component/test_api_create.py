import asyncio

import pytest

from kit.apirig import ALPINE, DEBIAN, NO_CONTEXT, ApiRig, api_rig, create_request
from kit.modelstore import Fail
from veapi.errors import Conflict, InvalidInput, NotFound, Unavailable
from veapi.model import Uid
from veapi.v1 import api_pb2
from vecontroller.store import keys, values
from vecontroller.store.port import Put
from vecontroller.writer import FENCE_ATTEMPTS


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        yield rig


async def test_a_create_stores_spec_name_and_address_at_one_revision(rig: ApiRig) -> None:
    ve = await rig.create("web", cpu=2, memory_bytes=1 << 30)
    view = rig.mirror.view
    held = view.ves[Uid(ve.uid)]
    assert ve.status.state == "Pending"
    assert list(ve.status.addresses) == ["10.66.0.2"]
    assert held.value.mac == "02:76:0a:42:00:02"
    assert held.value.image_digest == DEBIAN
    assert (
        held.mod_revision
        == view.names["default", "web"].mod_revision
        == view.addresses["default", "10.66.0.2"].mod_revision
        == ve.resource_version
    )


async def test_what_is_left_out_gets_small_defaults(rig: ApiRig) -> None:
    spec = (await rig.create()).spec
    assert (spec.cpu, spec.memory_bytes, spec.disk_bytes, spec.pids) == (1, 256 << 20, 4 << 30, 512)
    assert (spec.run, spec.on_host_loss) == ("running", "stay")


async def test_a_taken_name_is_refused_and_names_the_ve_that_has_it(rig: ApiRig) -> None:
    first = await rig.create("web")
    with pytest.raises(Conflict, match=first.uid) as refused:
        await rig.create("web")
    assert "web" in refused.value.message
    assert refused.value.hint


async def test_the_same_name_in_another_project_is_free(rig: ApiRig) -> None:
    await rig.put_project("team")
    await rig.create("web")
    assert (await rig.ve.Create(create_request(project="team"), NO_CONTEXT)).project == "team"


async def test_the_same_request_again_gives_the_same_ve(rig: ApiRig) -> None:
    first = await rig.create("web", "r-1")
    assert (await rig.create("web", "r-1")).uid == first.uid
    with pytest.raises(Conflict):
        await rig.create("web", "r-2")


async def test_the_same_request_twice_at_once_creates_one_ve(rig: ApiRig) -> None:
    first, second = await asyncio.gather(rig.create("web", "r-1"), rig.create("web", "r-1"))
    assert first.uid == second.uid
    assert len(rig.mirror.view.ves) == len(rig.mirror.view.addresses) == 1


async def test_of_two_creates_of_one_name_exactly_one_wins(rig: ApiRig) -> None:
    results = await asyncio.gather(rig.create("web"), rig.create("web"), return_exceptions=True)
    assert sorted(isinstance(result, Conflict) for result in results) == [False, True]
    assert len(rig.mirror.view.ves) == len(rig.mirror.view.addresses) == 1


async def test_a_hundred_creates_at_once_get_a_hundred_addresses_without_a_lost_race(
    rig: ApiRig,
) -> None:
    before = rig.model.writes
    ves = await asyncio.gather(*(rig.create(f"ve-{n}") for n in range(100)))
    addresses = {ve.status.addresses[0] for ve in ves}
    assert addresses == {f"10.66.0.{n}" for n in range(2, 102)}
    assert rig.model.writes - before == 100


async def test_a_freed_address_is_the_next_one_given(rig: ApiRig) -> None:
    await rig.create("a")
    await rig.create("b")
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=api_pb2.VERef(name="a")), NO_CONTEXT)
    assert list((await rig.create("c")).status.addresses) == ["10.66.0.2"]


async def test_an_address_that_was_asked_for_is_given(rig: ApiRig) -> None:
    assert list((await rig.create(ip="10.66.0.77")).status.addresses) == ["10.66.0.77"]


@pytest.mark.parametrize("ip", ["10.66.0.0", "10.66.0.255", "10.66.0.1", "10.67.0.1", "x"])
async def test_addresses_that_can_not_be_had_are_refused(rig: ApiRig, ip: str) -> None:
    with pytest.raises(InvalidInput, match=r"^spec\.ip: ") as refused:
        await rig.create(ip=ip)
    assert refused.value.hint


async def test_a_taken_address_names_its_holder(rig: ApiRig) -> None:
    await rig.create("web", ip="10.66.0.9")
    with pytest.raises(Conflict, match="taken by VE default/web"):
        await rig.create("db", ip="10.66.0.9")


async def test_a_pool_without_free_addresses_is_a_conflict() -> None:
    async with api_rig(cidr="10.66.0.0/30") as rig:
        await rig.create("a")
        with pytest.raises(Conflict, match="all addresses") as refused:
            await rig.create("b")
        assert refused.value.hint


async def test_an_unknown_image_says_which_are_near(rig: ApiRig) -> None:
    with pytest.raises(NotFound, match="debain") as refused:
        await rig.create(image="debain")
    assert "debian" in refused.value.hint


async def test_an_image_that_is_like_none_says_what_there_is(rig: ApiRig) -> None:
    with pytest.raises(NotFound) as refused:
        await rig.create(image="zzz")
    assert refused.value.hint == "the images are: debian"


async def test_a_digest_is_an_image(rig: ApiRig) -> None:
    await rig.put_image("alpine", ALPINE)
    ve = await rig.create(image=ALPINE)
    assert rig.mirror.view.ves[Uid(ve.uid)].value.image_digest == ALPINE


async def test_an_unknown_project_says_how_to_make_it(rig: ApiRig) -> None:
    with pytest.raises(NotFound, match="no project team") as refused:
        await rig.ve.Create(create_request(project="team"), NO_CONTEXT)
    assert "vectl project create team" in refused.value.hint


async def test_an_unknown_host_says_which_there_are(rig: ApiRig) -> None:
    with pytest.raises(NotFound, match="no host zz") as refused:
        await rig.create(host="zz")
    assert refused.value.hint == "the hosts are: h1"


async def test_labels_that_make_the_spec_too_large_are_refused(rig: ApiRig) -> None:
    labels = {f"{'x' * 60}-{n}": "v" * 63 for n in range(64)}
    with pytest.raises(InvalidInput, match="at most 8192") as refused:
        await rig.ve.Create(create_request(labels=labels), NO_CONTEXT)
    assert refused.value.hint
    assert not rig.mirror.view.ves


@pytest.mark.parametrize("fail", [Fail.APPLIED, Fail.LOST])
async def test_a_write_whose_answer_is_lost_is_decided_by_its_operation(
    rig: ApiRig, fail: Fail
) -> None:
    rig.model.fail_writes(fail)
    ve = await rig.create("web")
    assert list(rig.mirror.view.ves) == [ve.uid]
    assert len(rig.mirror.view.addresses) == 1


async def test_what_an_unknown_outcome_would_have_taken_stays_reserved(rig: ApiRig) -> None:
    rig.model.fail_writes(*[Fail.LATE] * (1 + FENCE_ATTEMPTS))
    with pytest.raises(Unavailable):
        await rig.create("web")
    assert list((await rig.create("db")).status.addresses) == ["10.66.0.3"]
    rig.clock.now += 61
    assert list((await rig.create("mail")).status.addresses) == ["10.66.0.2"]


async def test_a_client_that_goes_away_half_way_leaves_its_address_reserved(rig: ApiRig) -> None:
    creating = asyncio.create_task(rig.create("web"))
    await asyncio.sleep(0)
    creating.cancel()
    await asyncio.gather(creating, return_exceptions=True)
    assert list((await rig.create("db")).status.addresses) == ["10.66.0.3"]


async def test_a_write_that_surely_failed_reserves_nothing(rig: ApiRig) -> None:
    rig.model.fail_writes(Fail.REFUSED)
    with pytest.raises(Unavailable):
        await rig.create("web")
    assert list((await rig.create("db")).status.addresses) == ["10.66.0.2"]


async def test_a_name_taken_behind_our_back_is_found_by_the_transaction(rig: ApiRig) -> None:
    rig.model.cut_watches()
    creating = asyncio.create_task(rig.create("web"))
    other = keys.ve_name("default", "web")
    rig.model.etcd.transact([], [Put(key=other, value=values.encode_ref("somebody"))])
    await asyncio.sleep(0)
    rig.model.heal_watches()
    with pytest.raises(Conflict, match="somebody"):
        await creating
    assert not rig.mirror.view.ves
