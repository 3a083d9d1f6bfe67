"""The policy of VEs, and what moved ones left, as users see them."""

import dataclasses

import msgspec
import pytest

from kit.apirig import NO_CONTEXT, ApiRig, api_rig
from veapi.errors import InvalidInput
from veapi.model import Deleted, HostName, HostState, OnHostLoss, Uid
from veapi.v1 import api_pb2, types_pb2
from vecontroller.api.describe import Describe
from vecontroller.failover.judge import Waits, Why
from vecontroller.stays import moved
from vecontroller.store import keys, values
from vecontroller.store.port import Put

WEB = api_pb2.VERef(name="web")
H1, H2 = HostName("h1"), HostName("h2")


@pytest.fixture
async def rig():
    async with api_rig() as found:
        yield found


async def move_away(rig: ApiRig, uid: str) -> None:
    """As failover does: from h1, which is lost, to h2."""
    view = rig.mirror.view
    before, ve = view.placements[Uid(uid)].value, view.ves[Uid(uid)].value
    after = moved(before, host=H2, at=1.0, message="moved", left="host h1 was lost", new_root=True)
    left = Deleted(
        ve=ve,
        placement=before,
        deleted_at=1.0,
        purge_at=rig.clock.wall() + 100,
        left="host h1 was lost",
        unconfirmed=True,
    )
    writes = [
        Put(key=keys.ve_placement(Uid(uid)), value=values.encode_placement(after)),
        Put(key=keys.ve_left(H1, Uid(uid)), value=values.encode_deleted(left)),
    ]
    await rig.deps.writer.commit([], writes, confirm=None)


async def set_policy(rig: ApiRig, policy: str) -> types_pb2.VE:
    request = api_pb2.SetVERequest(
        ve=WEB, spec=types_pb2.VESpec(on_host_loss=policy), fields=["on_host_loss"]
    )
    return await rig.ve.Set(request, NO_CONTEXT)


def stored(rig: ApiRig, uid: str):
    return rig.mirror.view.ves[Uid(uid)].value


async def test_a_changed_policy_counts_from_its_own_generation(rig: ApiRig) -> None:
    ve = await rig.running()
    assert stored(rig, ve.uid).policy_generation == 1
    changed = await set_policy(rig, "recreate")
    assert changed.spec.on_host_loss == "recreate"
    now = stored(rig, ve.uid)
    assert now.spec.on_host_loss is OnHostLoss.RECREATE
    assert now.policy_generation == now.generation == 2
    await rig.ve.Rename(api_pb2.RenameVERequest(ve=WEB, name="www"), NO_CONTEXT)
    assert stored(rig, ve.uid).policy_generation == 2


async def test_replica_is_refused_with_what_there_is_instead(rig: ApiRig) -> None:
    await rig.running()
    with pytest.raises(InvalidInput, match="not replicated") as refused:
        await set_policy(rig, "replica")
    assert "recreate" in refused.value.hint


async def test_the_left_root_is_listed_and_purged_while_the_ve_lives(rig: ApiRig) -> None:
    ve = await rig.running()
    await move_away(rig, ve.uid)
    listed = await rig.ve.List(api_pb2.ListVEsRequest(deleted=True), NO_CONTEXT)
    (left,) = listed.ves
    assert (left.name, left.placement.host, left.status.reason) == ("web", "h1", "Left")
    purged = await rig.ve.Purge(WEB, NO_CONTEXT)
    assert purged.placement.host == "h1"
    assert rig.mirror.view.left[H1, Uid(ve.uid)].value.purging
    assert stored(rig, ve.uid).delete_requested_at is None
    again = await rig.ve.Purge(api_pb2.VERef(uid=ve.uid), NO_CONTEXT)
    assert again.uid == ve.uid


async def test_a_ve_that_is_being_deleted_is_what_a_purge_means(rig: ApiRig) -> None:
    ve = await rig.running()
    await move_away(rig, ve.uid)
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    await rig.ve.Purge(WEB, NO_CONTEXT)
    assert stored(rig, ve.uid).purge


async def test_a_move_is_among_its_events(rig: ApiRig) -> None:
    ve = await rig.running()
    await move_away(rig, ve.uid)
    shown = await rig.ve.Get(WEB, NO_CONTEXT)
    (event,) = [event for event in shown.status.events if event.reason == "Moved"]
    assert event.message == "from host h1 to h2: host h1 was lost"


async def test_who_waits_on_a_silent_host_is_shown_with_why_it_is_not_moved(rig: ApiRig) -> None:
    ve = await rig.running()
    rig.hosts.states["h1"] = HostState.SILENT
    waits = {Uid(ve.uid): Waits(Why.NOT_ARMED, "it was never armed", at=5.0)}
    deps = dataclasses.replace(rig.deps, waits=lambda: waits)
    shown = Describe(deps).ve(rig.mirror.view.ves[Uid(ve.uid)], events=True)
    assert shown.status.state == "Unknown"
    assert shown.status.message.endswith("; it was never armed")
    assert "NotMoved" in [event.reason for event in shown.status.events]
    waits[Uid(ve.uid)] = msgspec.structs.replace(waits[Uid(ve.uid)], why=Why.SILENCE)
    shown = Describe(deps).ve(rig.mirror.view.ves[Uid(ve.uid)], events=True)
    assert "NotMoved" not in [event.reason for event in shown.status.events]
