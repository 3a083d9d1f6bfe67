"""A keeper that is deposed in the middle of its steps."""

import asyncio

import pytest

from kit.apirig import NO_CONTEXT, api_rig
from veapi.v1 import group_pb2, types_pb2
from vecontroller.api.create import Creator, Wanted
from vecontroller.api.group import GroupService
from vecontroller.groups.keeper import Keeper
from vecontroller.leader import NotLeader


async def test_no_step_goes_on_when_one_finds_that_another_leads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    under_way = list[str]()

    async def create_as(_creator: Creator, make) -> None:
        asked: Wanted = make()
        if asked.name == "web-1":
            raise NotLeader("another leads", hint="ask it")
        under_way.append(asked.name)
        try:
            await asyncio.Event().wait()
        finally:
            under_way.remove(asked.name)

    async with api_rig() as rig:
        keeper = Keeper(rig.deps, rig.in_flight, Creator(rig.deps, rig.in_flight))
        template = group_pb2.GroupTemplate(spec=types_pb2.VESpec(image="debian"))
        group = group_pb2.Group(name="web", spec=group_pb2.GroupSpec(replicas=3, template=template))
        await GroupService(rig.deps, keeper).Apply(
            group_pb2.ApplyGroupRequest(group=group), NO_CONTEXT
        )
        monkeypatch.setattr(Creator, "create_as", create_as)
        with pytest.raises(BaseExceptionGroup) as ended:
            await keeper.look(("default", "web"))
        assert ended.group_contains(NotLeader)
        assert not under_way
