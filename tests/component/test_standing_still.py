"""Loops that act on their own do nothing for a restored store before it is confirmed, and go on afterwards."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from kit.apirig import NO_CONTEXT, ApiRig, api_rig
from veapi.model import VEState
from veapi.v1 import api_pb2, group_pb2, types_pb2
from vecontroller.api.create import Creator
from vecontroller.api.group import GroupService
from vecontroller.groups.keeper import Keeper
from vecontroller.snapshotting import Snapshotting
from vecontroller.store import keys, values

HOUR = 3600.0


@pytest.fixture
async def rig() -> AsyncIterator[ApiRig]:
    async with api_rig() as rig:
        yield rig


async def restored(rig: ApiRig, *, confirmed: bool) -> None:
    held = rig.mirror.view.cluster
    assert held is not None
    record = msgspec.structs.replace(
        held.value, incarnation=9, confirmed_incarnation=9 if confirmed else 1
    )
    await rig.put(keys.CLUSTER, values.encode_cluster(record))


async def test_no_group_is_kept(rig: ApiRig) -> None:
    keeper = Keeper(rig.deps, rig.in_flight, Creator(rig.deps, rig.in_flight))
    template = group_pb2.GroupTemplate(spec=types_pb2.VESpec(image="debian"))
    spec = group_pb2.GroupSpec(replicas=2, template=template)
    request = group_pb2.ApplyGroupRequest(group=group_pb2.Group(name="web", spec=spec))
    await GroupService(rig.deps, keeper).Apply(request, NO_CONTEXT)
    await restored(rig, confirmed=False)
    await keeper.look(("default", "web"))
    assert rig.mirror.view.ves == {}
    await restored(rig, confirmed=True)
    await keeper.look(("default", "web"))
    assert len(rig.mirror.view.ves) == 2


async def test_no_snapshot_is_taken_by_a_schedule(rig: ApiRig) -> None:
    loop = Snapshotting(
        *(rig.mirror, rig.deps.writer, rig.hosts, rig.topic, rig.clock),
        new_op_id=rig.deps.ids.new,
        reserved=rig.deps.reserved,
    )
    made = await rig.running()
    request = api_pb2.SetVERequest(
        ve=api_pb2.VERef(name="web"),
        spec=types_pb2.VESpec(snapshot_schedule="hourly keep 2"),
        fields=["snapshot_schedule"],
    )
    await rig.ve.Set(request, NO_CONTEXT)
    await rig.report(made.uid, VEState.RUNNING)
    rig.clock.now += 2 * HOUR
    await restored(rig, confirmed=False)
    await loop.look_once()
    (held,) = rig.mirror.view.ves.values()
    assert held.value.snapshots == ()
    await restored(rig, confirmed=True)
    await loop.look_once()
    (held,) = rig.mirror.view.ves.values()
    assert len(held.value.snapshots) == 1
