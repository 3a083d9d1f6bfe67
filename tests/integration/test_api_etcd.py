"""The API over a real etcd: what the model store promises holds there too."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.apirig import NO_CONTEXT, ApiRig, api_rig, create_request
from kit.etcds import real_etcd, store_of
from veapi.errors import Conflict
from veapi.v1 import api_pb2


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ApiRig]:
    async with (
        real_etcd(tmp_path) as etcd,
        store_of(etcd) as store,
        api_rig(store=store) as rig,
    ):
        yield rig


async def test_a_hundred_creates_at_once_get_a_hundred_addresses(rig: ApiRig) -> None:
    ves = await asyncio.gather(*(rig.create(f"ve-{n}") for n in range(100)))
    assert len({ve.status.addresses[0] for ve in ves}) == 100
    assert len(rig.mirror.view.addresses) == len(rig.mirror.view.ves) == 100


async def test_of_many_creates_of_one_name_exactly_one_wins(rig: ApiRig) -> None:
    results = await asyncio.gather(*(rig.create("web") for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in results) == 7
    assert len(rig.mirror.view.ves) == len(rig.mirror.view.addresses) == 1


async def test_one_request_sent_many_times_at_once_creates_one_ve(rig: ApiRig) -> None:
    ves = await asyncio.gather(*(rig.create("web", "r-1") for _ in range(8)))
    assert len({ve.uid for ve in ves}) == 1


async def test_restarts_at_the_same_time_are_all_counted(rig: ApiRig) -> None:
    await rig.running()
    request = api_pb2.RestartRequest(ve=api_pb2.VERef(name="web"))
    await asyncio.gather(*(rig.ve.Restart(request, NO_CONTEXT) for _ in range(4)))
    (held,) = rig.mirror.view.ves.values()
    assert held.value.restart_seq == 4


async def test_names_and_addresses_come_back_after_a_delete(rig: ApiRig) -> None:
    for _ in range(3):
        ve = (await rig.ve.Create(create_request("web"), NO_CONTEXT)).status
        assert list(ve.addresses) == ["10.66.0.2"]
        await rig.ve.Delete(api_pb2.DeleteVERequest(ve=api_pb2.VERef(name="web")), NO_CONTEXT)
    assert not rig.mirror.view.ves
