"""Groups on a real etcd, over real gRPC, with agents that do what they are told."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from kit.etcds import lasting_etcd
from kit.eventually import eventually
from kit.leadingcontroller import Running, controller, fresh_controller, make_identities, wipe
from kit.world import DIGEST, make_facts
from veapi.channel import controller_name, open_channel
from veapi.model import HeldImage, Image, VEState
from veapi.v1 import group_pb2, group_pb2_grpc, types_pb2
from vecontroller.store import keys, values
from vecontroller.store.port import Put

REF = group_pb2.GroupRef(project="default", name="web")
KEY = ("default", "web")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with lasting_etcd(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory):
    return make_identities(tmp_path_factory.mktemp("pki"))


@asynccontextmanager
async def calls(running: Running) -> AsyncIterator["group_pb2_grpc.GroupServiceAsyncStub"]:
    async with open_channel(
        running.target, server=controller_name("rack"), identity=running.identities["ann"]
    ) as channel:
        yield group_pb2_grpc.GroupServiceStub(channel)


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


def request(replicas: int, **fields) -> group_pb2.ApplyGroupRequest:
    spec = types_pb2.VESpec(image="debian", cpu=0.1, memory_bytes=32 << 20, disk_bytes=64 << 20)
    spec.MergeFrom(types_pb2.VESpec(**fields))
    template = group_pb2.GroupTemplate(labels={"app": "web"}, spec=spec)
    asked = group_pb2.GroupSpec(
        replicas=replicas, template=template, min_ready=0.0, progress_deadline=30.0
    )
    return group_pb2.ApplyGroupRequest(
        group=group_pb2.Group(project="default", name="web", spec=asked)
    )


def facts():
    held = HeldImage(digest=DIGEST, blob_digest="sha256:b", size_bytes=1, blob_bytes=1)
    return make_facts(images=(held,))


def members(running: Running) -> dict[str, int]:
    """Revisions by name."""
    view = running.core.mirror.view
    found = [view.ves[uid].value for uid in view.members.get(KEY, ())]
    return {ve.name: ve.group_revision for ve in found}


async def test_a_group_is_made_rolled_out_and_goes_and_a_watch_tells_it_all(etcd, identities):
    async with fresh_controller(etcd, identities) as running, calls(running) as groups:
        await put_image(running)
        async with running.agent(obedient=True, facts=facts()):
            await groups.Apply(request(3))
            states, gone = [], False
            async for change in groups.Watch(REF):
                states.append((change.group.status.state, change.group.status.revision))
                if states[-1] == ("Ready", 1):
                    await groups.Apply(request(3, pids=99))
                if states[-1] == ("Ready", 2):
                    await groups.Delete(group_pb2.DeleteGroupRequest(group=REF, purge=True))
                gone = change.gone
            assert gone, "and then the stream ends"
            assert {("Ready", 1), ("Progressing", 2), ("Ready", 2)} <= set(states)
            assert members(running) == {}
            assert KEY not in running.core.mirror.view.groups


async def test_the_next_leader_goes_on_with_a_rollout_and_makes_nothing_twice(etcd, identities):
    async with controller(etcd, identities) as first:
        await eventually(lambda: first.core.standing.serving)
        await put_image(first)
        async with calls(first) as groups, first.agent(obedient=True, facts=facts()):
            await groups.Apply(request(4))
            await eventually(lambda: set(members(first).values()) == {1})
            shown = await groups.Get(REF)
            uids = {each.name: each.uid for each in shown.status.members}
        async with calls(first) as groups:
            await groups.Apply(request(5, pids=99))
            await eventually(lambda: members(first).get("web-4") == 2)
    async with fresh_controller(etcd, identities) as second, calls(second) as groups:
        assert 1 in members(second).values(), "the first one was not done"
        async with second.agent(obedient=True, facts=facts()):
            await eventually(lambda: list(members(second).values()) == [2] * 5, timeout_s=20)
            await eventually(
                lambda: all(
                    second.state(uid) is VEState.RUNNING for uid in second.core.mirror.view.ves
                )
            )
            after = {each.name: each.uid for each in (await groups.Get(REF)).status.members}
    assert {name: after[name] for name in uids} == uids
    assert len(after) == 5


async def test_ves_are_made_again_when_they_are_deleted_and_no_address_is_lost(etcd, identities):
    async with fresh_controller(etcd, identities) as running, calls(running) as groups:
        await put_image(running)
        async with running.agent(obedient=True, facts=facts()):
            await groups.Apply(request(2))
            await eventually(lambda: len(members(running)) == 2)
            for replicas in (6, 1, 3, 0, 4):
                await groups.Scale(group_pb2.ScaleGroupRequest(group=REF, replicas=replicas))
            want = {f"web-{ordinal}": 1 for ordinal in range(4)}
            await eventually(lambda: members(running) == want, timeout_s=20)
            view = running.core.mirror.view
            await eventually(lambda: len(view.addresses) == len(view.ves))
        await wipe(running.core)
