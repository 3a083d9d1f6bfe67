"""The API over real gRPC and mTLS on loopback; the store is a model."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from kit.apirig import NO_CONTEXT, create_request
from kit.apiserved import Served, make_identities, serving
from kit.eventually import eventually
from veapi.errors import Conflict, RemoteFailed, TimedOut
from veapi.rpc import from_rpc
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_identities(tmp_path_factory.mktemp("identity"))


@pytest.fixture
async def served(ca: Path) -> AsyncIterator[Served]:
    async with serving(ca) as served:
        yield served


async def test_a_bug_in_a_handler_tells_the_caller_a_number_and_the_log_the_rest(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    served.rig.relays.open = None  # type: ignore[assignment,method-assign]
    await served.rig.running("web")
    async with served.channel() as channel:
        stub = api_pb2_grpc.VEServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await anext(aiter(stub.Logs(api_pb2.LogsRequest(ve=api_pb2.VERef(name="web")))))
    error = from_rpc(failed.value)
    assert isinstance(error, RemoteFailed)
    assert error.message == "internal error"
    number = error.hint.partition("id ")[2].partition(",")[0]
    logged = "".join(capfd.readouterr())
    assert number
    assert number in logged
    assert "NoneType" in logged


async def test_an_unknown_method_is_unimplemented(served: Served) -> None:
    async with served.channel() as channel:
        explode: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/veapi.v1.VEService/Explode"
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await explode(b"", timeout=2)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_conflict_keeps_its_kind_and_hint_on_the_way(served: Served) -> None:
    async with served.channel() as channel:
        stub = api_pb2_grpc.VEServiceStub(channel)
        first = await stub.Create(create_request("web"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Create(create_request("web"))
    error = from_rpc(refused.value)
    assert isinstance(error, Conflict)
    assert first.uid in error.message
    assert error.hint


async def test_a_hundred_creates_over_one_channel_get_a_hundred_addresses(served: Served) -> None:
    async with served.channel() as channel:
        stub = api_pb2_grpc.VEServiceStub(channel)
        ves = await asyncio.gather(*(stub.Create(create_request(f"ve-{n}")) for n in range(100)))
    assert len({ve.status.addresses[0] for ve in ves}) == 100
    assert len({ve.uid for ve in ves}) == 100


async def next_change(watch) -> api_pb2.VEChange:
    change = await watch.read()
    assert isinstance(change, api_pb2.VEChange)
    return change


async def test_a_watch_follows_and_leaves_nothing_behind_when_its_client_goes(
    served: Served,
) -> None:
    subscriptions = served.rig.topic._subscriptions
    before = len(subscriptions)
    async with served.channel() as channel:
        stub = api_pb2_grpc.VEServiceStub(channel)
        watch = stub.Watch(api_pb2.WatchVEsRequest(names=["web"]))
        assert (await next_change(watch)).kind == api_pb2.VEChange.KIND_SYNCED
        await stub.Create(create_request("web"))
        assert (await next_change(watch)).ve.name == "web"
        assert len(subscriptions) == before + 1
        watch.cancel()
        await eventually(lambda: len(subscriptions) == before)


async def test_a_reader_that_stalls_is_cut_off_with_a_reason(ca: Path) -> None:
    async with serving(ca, stall_s=0.3) as served:
        subscriptions = served.rig.topic._subscriptions
        before = len(subscriptions)
        labels = {f"k{n}": "v" * 60 for n in range(60)}
        for n in range(100):
            await served.rig.ve.Create(create_request(f"ve-{n}", labels=labels), NO_CONTEXT)
        async with served.narrow_channel() as channel:
            watch = api_pb2_grpc.VEServiceStub(channel).Watch(api_pb2.WatchVEsRequest())
            await watch.read()
            await eventually(lambda: len(subscriptions) == before + 1)
            await eventually(lambda: len(subscriptions) == before)
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                while await watch.read() is not grpc.aio.EOF:
                    pass
        error = from_rpc(ended.value)
        assert isinstance(error, TimedOut)
        assert error.hint


async def test_other_calls_go_on_while_a_reader_stalls(served: Served) -> None:
    labels = {f"k{n}": "v" * 60 for n in range(60)}
    async with served.channel() as channel:
        stub = api_pb2_grpc.VEServiceStub(channel)
        for n in range(100):
            await served.rig.ve.Create(create_request(f"ve-{n}", labels=labels), NO_CONTEXT)
        watch = stub.Watch(api_pb2.WatchVEsRequest())
        await watch.read()
        ve: types_pb2.VE = await asyncio.wait_for(stub.Create(create_request("web")), 5)
        assert ve.uid
        watch.cancel()
