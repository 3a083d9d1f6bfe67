"""Creates that race on a real etcd, over real gRPC, never pass their project's quota together."""

import asyncio
from collections.abc import Iterator

import grpc
import pytest

from kit.etcds import lasting_etcd
from kit.eventually import eventually
from kit.leadingcontroller import Running, fresh_controller, make_identities
from kit.world import DIGEST
from veapi.channel import controller_name, open_channel
from veapi.model import Image
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vecontroller.store import keys, values
from vecontroller.store.port import Put


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with lasting_etcd(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory):
    return make_identities(tmp_path_factory.mktemp("pki"))


async def put_image(running: Running) -> None:
    image = Image(digest=DIGEST, blob_digest="sha256:b", size_bytes=1, blob_bytes=1, created_at=1.0)
    await running.core.store.transact(
        [],
        [
            Put(key=keys.image(DIGEST), value=values.encode_image(image)),
            Put(key=keys.image_tag("debian"), value=values.encode_ref(DIGEST)),
        ],
    )
    await eventually(lambda: "debian" in running.core.mirror.view.tags)


async def test_racing_creates_never_pass_a_quota_together(etcd, identities):
    async with (
        fresh_controller(etcd, identities) as running,
        open_channel(
            running.target, server=controller_name("rack"), identity=identities["ann"]
        ) as channel,
    ):
        await put_image(running)
        projects, ves = (
            api_pb2_grpc.ProjectServiceStub(channel),
            api_pb2_grpc.VEServiceStub(channel),
        )
        quota = types_pb2.ProjectAmounts(memory_bytes=5 << 30)
        request = api_pb2.SetProjectRequest(name="default", quota=quota, fields=["memory_bytes"])
        await projects.Set(request)

        async def create(number: int) -> bool:
            spec = types_pb2.VESpec(image="debian", memory_bytes=1 << 30)
            ve = types_pb2.VE(name=f"web-{number}", spec=spec)
            try:
                await ves.Create(api_pb2.CreateVERequest(ve=ve))
            except grpc.aio.AioRpcError as refused:
                assert "5 GiB used, 1 GiB asked" in (refused.details() or "")
                return False
            return True

        made = await asyncio.gather(*(create(number) for number in range(40)))

        assert sum(made) == 5
        project = await projects.Get(api_pb2.GetProjectRequest(name="default"))
        assert (project.usage.ves, project.usage.memory_bytes) == (5, 5 << 30)
        stored = (await running.core.store.list(keys.ROOT + "ve/spec/")).items
        assert len(stored) == 5
        request.quota.memory_bytes = 0
        await projects.Set(request)
