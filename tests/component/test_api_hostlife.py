"""What operators do with hosts and switches."""

import pytest

from kit.apirig import NO_CONTEXT, ApiRig, api_rig
from veapi.channel import Caller, Role
from veapi.errors import Conflict, Denied, InvalidInput, NotFound
from veapi.model import HostName, HostState, Uid, VEState
from veapi.v1 import api_pb2, hostlife_pb2
from vecontroller.api import hostlife, switches
from vecontroller.api.authz import authorize
from vecontroller.api.hostlife import HostLifeService
from vecontroller.api.switches import SwitchService
from vecontroller.view import View

H1 = HostName("h1")


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch):
    for module in (hostlife, switches):
        monkeypatch.setattr(module, "caller", lambda *_: Caller(Role.USER, "ann", "rack"))
    async with api_rig() as rig:
        yield rig


def spec(rig: ApiRig):
    return rig.mirror.view.host_specs[H1].value


async def cordon(rig: ApiRig, *, on: bool, reason: str = ""):
    request = hostlife_pb2.CordonHostRequest(host="h1", cordoned=on, reason=reason)
    return await HostLifeService(rig.deps).Cordon(request, NO_CONTEXT)


async def fence(rig: ApiRig, *, off: bool = True):
    request = hostlife_pb2.FenceHostRequest(host="h1", powered_off=off)
    return await HostLifeService(rig.deps).Fence(request, NO_CONTEXT)


async def remove(rig: ApiRig, *, forget: bool = False) -> int:
    request = hostlife_pb2.RemoveHostRequest(host="h1", forget_ves=forget)
    return (await HostLifeService(rig.deps).Remove(request, NO_CONTEXT)).ves


async def add(rig: ApiRig) -> None:
    await HostLifeService(rig.deps).Add(hostlife_pb2.AddHostRequest(host="h1"), NO_CONTEXT)


async def replace(rig: ApiRig):
    request = hostlife_pb2.ReplaceHostRequest(host="h1")
    return await HostLifeService(rig.deps).Replace(request, NO_CONTEXT)


def silence(rig: ApiRig) -> None:
    rig.hosts.states["h1"] = HostState.SILENT


async def test_a_cordoned_host_is_shown_so_and_takes_nothing_with_the_reason(rig: ApiRig) -> None:
    shown = await cordon(rig, on=True, reason="new disk")
    assert (shown.cordoned, shown.cordon_reason) == (True, "new disk")
    assert not rig.scheduler.board().able.any()
    assert rig.scheduler.board().hosts[0].refuses == "cordoned: new disk"
    assert not (await cordon(rig, on=False)).cordoned
    assert rig.scheduler.board().able.all()


async def test_a_reason_is_one_short_line(rig: ApiRig) -> None:
    with pytest.raises(InvalidInput, match="reason"):
        await cordon(rig, on=True, reason="a\nb")


async def test_a_host_that_is_heard_is_neither_fenced_nor_removed_nor_replaced(rig: ApiRig) -> None:
    for verb in (fence, remove, replace):
        with pytest.raises(Conflict, match="was heard"):
            await verb(rig)
    assert H1 not in rig.mirror.view.host_specs


async def test_who_vouches_that_a_host_is_off_is_kept_until_it_is_taken_back(rig: ApiRig) -> None:
    silence(rig)
    shown = await fence(rig)
    assert shown.powered_off_by == "ann"
    assert shown.powered_off_at.seconds == int(rig.clock.wall())
    assert spec(rig).powered_off_at is not None
    await fence(rig, off=False)
    assert (spec(rig).powered_off_at, spec(rig).powered_off_by) == (None, "")


async def test_a_host_with_ves_is_not_removed_and_they_are_counted(rig: ApiRig) -> None:
    await rig.running()
    silence(rig)
    with pytest.raises(Conflict, match=r"has 1 VE$"):
        await remove(rig)
    assert H1 in rig.mirror.view.hosts


@pytest.mark.parametrize(
    ("moved", "says"), [(1, "1 root of a moved VE"), (2, "2 roots of moved VEs"), (0, "")]
)
def test_what_a_host_has_is_said_in_words(moved: int, says: str) -> None:
    view = View()
    view.left_on[H1] = {Uid(f"u{number}") for number in range(moved)}
    assert hostlife.held_by(view, H1) == says


async def test_an_empty_silent_host_is_removed_until_it_is_added(rig: ApiRig) -> None:
    silence(rig)
    assert await remove(rig) == 0
    assert H1 not in rig.mirror.view.hosts
    assert spec(rig).removed_at is not None
    await add(rig)
    assert spec(rig).removed_at is None
    with pytest.raises(NotFound, match="no host h1 was removed"):
        await add(rig)


async def test_ves_are_forgotten_only_of_a_host_that_is_vouched_to_be_off(rig: ApiRig) -> None:
    for number in range(10):
        await rig.running(f"web{number}")
    silence(rig)
    with pytest.raises(Conflict, match="may be running"):
        await remove(rig, forget=True)
    assert len(rig.mirror.view.ves) == 10
    await fence(rig)
    assert await remove(rig, forget=True) == 10
    view = rig.mirror.view
    assert not (view.ves or view.names or view.addresses or view.placements or view.statuses)
    with pytest.raises(NotFound):
        await rig.ve.Get(api_pb2.VERef(name="web1"), NO_CONTEXT)


async def test_no_more_is_forgotten_once_the_word_that_the_host_is_off_is_taken_back(
    rig: ApiRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(hostlife.BATCH + 2):
        await rig.place((await rig.create(f"ve-{number}")).uid)
    silence(rig)
    await fence(rig)
    commit, forgotten = rig.deps.writer.commit, list[str]()

    async def then_taken_back(guards, writes, **how) -> int:
        done = await commit(guards, writes, **how)
        if not forgotten:
            forgotten.append(writes[0].key)
            await fence(rig, off=False)
        return done

    monkeypatch.setattr(rig.deps.writer, "commit", then_taken_back)
    with pytest.raises(Conflict, match="it may be running there"):
        await remove(rig, forget=True)
    assert len(rig.mirror.view.ves) == 2


async def test_a_host_with_ves_is_replaced_only_when_it_is_vouched_to_be_off(rig: ApiRig) -> None:
    ve = await rig.create()
    await rig.place(ve.uid)
    await rig.report(ve.uid, VEState.RUNNING)
    silence(rig)
    with pytest.raises(Conflict, match="has 1 VE"):
        await replace(rig)
    await fence(rig)
    await replace(rig)
    assert spec(rig).replaced


async def test_the_cluster_is_disarmed_for_a_time_and_armed_again(rig: ApiRig) -> None:
    service = SwitchService(rig.deps)
    found = await service.Disarm(hostlife_pb2.DisarmRequest(for_s=60), NO_CONTEXT)
    assert found.disarmed_until.seconds == int(rig.clock.wall() + 60)
    assert [each.host for each in found.unconfirmed] == ["h1"]
    armed = await service.Arm(hostlife_pb2.ArmRequest(), NO_CONTEXT)
    assert (armed.HasField("disarmed_until"), armed.arming) == (False, found.arming + 1)
    with pytest.raises(InvalidInput, match="for"):
        await service.Disarm(hostlife_pb2.DisarmRequest(for_s=8 * 86400), NO_CONTEXT)


@pytest.mark.parametrize("service", ["HostLifeService/Fence", "SwitchService/Disarm"])
@pytest.mark.parametrize("role", [Role.HOST, Role.CONTROLLER])
def test_only_users_may(service: str, role: Role) -> None:
    with pytest.raises(Denied):
        authorize(Caller(role, "x", "rack"), f"/veapi.v1.{service}")
