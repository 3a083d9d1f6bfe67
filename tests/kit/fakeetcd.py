"""A gRPC server that speaks etcd's watch by a script: for what a healthy etcd never does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from kit.certs import issue, make_ca
from veapi.channel import SERVER_OPTIONS, server_credentials
from veapi.etcd import kv_pb2, rpc_pb2, rpc_pb2_grpc
from vecontroller.store.etcd import EtcdStore
from vecontroller.store.watch import WatchTiming

CLUSTER = 7


class Stream:
    """One watch, as the script sees it."""

    def __init__(self, context, create: rpc_pb2.WatchCreateRequest) -> None:
        self.create = create
        self.progress_asked = asyncio.Event()
        self._context = context

    async def say(self, *, head: int = 1, **fields) -> None:
        """Sends a response; `head` is the revision in its header."""
        header = rpc_pb2.ResponseHeader(cluster_id=CLUSTER, revision=head)
        await self._context.write(rpc_pb2.WatchResponse(header=header, **fields))

    async def events(self, *revisions: int) -> None:
        """One response with a put of key `k` at each revision."""
        puts = [
            kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"/verack/k", mod_revision=revision))
            for revision in revisions
        ]
        await self.say(head=max(revisions), events=puts)


Script = Callable[[Stream], Awaitable[None]]


class FakeEtcd(rpc_pb2_grpc.WatchServicer, rpc_pb2_grpc.KVServicer):
    """Plays one script for each watch that is opened; the last one again and again. `head` answers reads."""

    def __init__(self, *scripts: Script) -> None:
        self.head = 1
        self.streams: list[Stream] = []
        self._scripts = scripts

    async def Watch(self, request_iterator, context) -> None:  # type: ignore[override]  # noqa: N802
        create = await context.read()
        stream = Stream(context, create.create_request)
        self.streams.append(stream)
        listening = asyncio.create_task(self._listen(context, stream))
        try:
            await self._scripts[min(len(self.streams), len(self._scripts)) - 1](stream)
        finally:
            listening.cancel()

    async def Range(self, request, context) -> rpc_pb2.RangeResponse:  # noqa: N802
        header = rpc_pb2.ResponseHeader(cluster_id=CLUSTER, revision=self.head)
        return rpc_pb2.RangeResponse(header=header)

    async def Txn(self, request, context) -> rpc_pb2.TxnResponse:  # noqa: N802
        raise NotImplementedError

    async def Compact(self, request, context) -> rpc_pb2.CompactionResponse:  # noqa: N802
        raise NotImplementedError

    @staticmethod
    async def _listen(context, stream: Stream) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            if request.HasField("progress_request"):
                stream.progress_asked.set()


@asynccontextmanager
async def fake_etcd(folder: Path, fake: FakeEtcd, timing: WatchTiming) -> AsyncIterator[EtcdStore]:
    """A client of the fake."""
    identity = issue(make_ca(folder, "etcd"), "localhost")
    server = grpc.aio.server(options=SERVER_OPTIONS)
    rpc_pb2_grpc.add_WatchServicer_to_server(fake, server)
    rpc_pb2_grpc.add_KVServicer_to_server(fake, server)
    port = server.add_secure_port("localhost:0", server_credentials(identity))
    await server.start()
    store = EtcdStore([f"localhost:{port}"], identity, watch_timing=timing, read_timeout_s=0.5)
    try:
        yield store
    finally:
        await store.aclose()
        await server.stop(None)
