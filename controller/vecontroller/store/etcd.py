"""The store on etcd: a thin asyncio client of its public gRPC API, for exactly what `store.port` promises.

Every ready-made client loses watch events, hangs on compaction, or retries writes whose outcome is unknown
(docs/decisions). Here: reads are retried for a while, a write is sent once to a member that may have got it, and a watch
resumes from what it delivered. Watches are in `store.watch`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from itertools import chain, repeat

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from veapi.channel import Identity
from veapi.errors import InvalidInput, RemoteFailed, Unavailable
from veapi.etcd import kv_pb2, rpc_pb2
from vecontroller.store import limits
from vecontroller.store.endpoints import (
    METADATA,
    Endpoints,
    Outcome,
    RpcError,
    outcome_of,
    words_of,
)
from vecontroller.store.port import (
    Ambiguous,
    Batch,
    Compacted,
    Delete,
    Guard,
    Put,
    Snapshot,
    StoreItem,
    Transacted,
    Write,
)
from vecontroller.store.snapshot import snapshot
from vecontroller.store.watch import EtcdWatch, WatchTiming

TRY_TIMEOUT_S = 2.0
FIRST_READ_S = 1.0
"""The first try of a read is given up sooner: it may be at a member whose machine has vanished."""
READ_TIMEOUT_S = 10.0
"""How long a read is tried again before it is Unavailable."""
PAGE_KEYS = 2_000
LIST_ATTEMPTS = 3
"""Of a list that compaction overtook between two of its pages."""


class EtcdStore:
    """Implements `store.port.Store`. Make it inside a running loop; `aclose` releases the channels."""

    def __init__(
        self,
        targets: Sequence[str],
        identity: Identity,
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
        page_keys: int = PAGE_KEYS,
        watch_timing: WatchTiming | None = None,
    ) -> None:
        """`targets` are host:port of the members; `identity` is of etcd's own CA, for it and for us."""
        self._endpoints = Endpoints(targets, identity)
        self._read_timeout_s = read_timeout_s
        self._page_keys = page_keys
        self._watch_timing = watch_timing or WatchTiming()

    async def get(self, key: str) -> StoreItem | None:
        """Linearizable. Unavailable when no member answered for `read_timeout_s`."""
        answer = await self._read(rpc_pb2.RangeRequest(key=key.encode()))
        return item_of(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str) -> Snapshot:
        """All keys below `prefix` at one revision, page by page; begun again when it was compacted meanwhile."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(LIST_ATTEMPTS),
            retry=retry_if_exception_type(Compacted),
            reraise=True,
        )
        return await retrying(self._list_once, prefix)

    def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Batch]:
        """See the port. WrongCluster when another cluster answers; ends only by an error."""
        watch = EtcdWatch(self._endpoints, prefix, self.head, timing=self._watch_timing)
        return watch.batches(after_revision)

    async def transact(self, guards: Sequence[Guard], writes: Sequence[Write]) -> Transacted:
        """Sent to one member after the other only while it surely reached none of them."""
        limits.check(guards, writes)
        request = _transaction(guards, writes)
        for _ in range(len(self._endpoints) - 1):
            try:
                return await self._write_once(request)
            except Unavailable as error:
                if isinstance(error, Ambiguous):
                    raise
        return await self._write_once(request)

    async def head(self) -> int:
        """The store's revision now, by a linearizable read."""
        answer = await self._read(rpc_pb2.RangeRequest(key=b"\0", limit=1, keys_only=True))
        return answer.header.revision

    async def compact(self, revision: int) -> None:
        """Forgets history before `revision`: for tests and operators; the embedded etcd compacts by itself."""
        endpoint = self._endpoints.current
        await endpoint.kv.Compact(
            rpc_pb2.CompactionRequest(revision=revision, physical=True),
            timeout=TRY_TIMEOUT_S,
            metadata=METADATA,
        )

    def snapshot(self) -> AsyncGenerator[bytes, None]:
        """All of etcd as one member has it; see `store.snapshot`."""
        return snapshot(self._endpoints.current)

    async def aclose(self) -> None:
        await self._endpoints.aclose()

    async def _list_once(self, prefix: str) -> Snapshot:
        key, end = prefix.encode() or b"\0", prefix_end(prefix)
        items: list[StoreItem] = []
        revision = 0
        while True:
            answer = await self._read(
                rpc_pb2.RangeRequest(
                    key=key, range_end=end, revision=revision, limit=self._page_keys
                )
            )
            revision = revision or answer.header.revision
            items.extend(item_of(kv) for kv in answer.kvs)
            if not answer.more:
                return Snapshot(revision=revision, items=tuple(items))
            key = answer.kvs[-1].key + b"\0"

    async def _read(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        retrying = AsyncRetrying(
            stop=stop_after_delay(self._read_timeout_s),
            wait=wait_random_exponential(multiplier=0.05, max=0.5),
            retry=retry_if_exception_type(Unavailable),
            reraise=True,
        )
        timeouts = chain((FIRST_READ_S,), repeat(TRY_TIMEOUT_S))
        return await retrying(self._read_once, request, timeouts)

    async def _read_once(
        self, request: rpc_pb2.RangeRequest, timeouts: Iterator[float]
    ) -> rpc_pb2.RangeResponse:
        endpoint = self._endpoints.current
        try:
            answer = await endpoint.kv.Range(request, timeout=next(timeouts), metadata=METADATA)
        except RpcError as error:
            match outcome_of(error):
                case Outcome.COMPACTED:
                    raise Compacted(f"the store answers {words_of(error)}") from None
                case Outcome.REFUSED:
                    raise _refusal(error) from None
                case _:
                    self._endpoints.failed(endpoint)
                    raise _unavailable(endpoint.target, error) from None
        self._endpoints.check(answer.header)
        return answer

    async def _write_once(self, request: rpc_pb2.TxnRequest) -> Transacted:
        endpoint = self._endpoints.current
        try:
            answer = await endpoint.kv.Txn(request, timeout=TRY_TIMEOUT_S, metadata=METADATA)
        except RpcError as error:
            match outcome_of(error):
                case Outcome.REFUSED:
                    raise _refusal(error) from None
                case Outcome.NOT_APPLIED:
                    self._endpoints.failed(endpoint)
                    raise _unavailable(endpoint.target, error) from None
                case _:
                    self._endpoints.failed(endpoint)
                    raise Ambiguous(
                        f"etcd at {endpoint.target} did not say whether it wrote: {words_of(error)}",
                        hint="look whether it was done before you try again",
                    ) from None
        self._endpoints.check(answer.header)
        return _transacted(answer)


def prefix_end(prefix: str) -> bytes:
    """The first key that does not begin with `prefix` (UTF-8 never has the byte 255)."""
    data = prefix.encode()
    return data[:-1] + bytes([data[-1] + 1]) if data else b"\0"


def item_of(kv: kv_pb2.KeyValue) -> StoreItem:
    return StoreItem(
        key=kv.key.decode(errors="replace"),
        value=kv.value,
        mod_revision=kv.mod_revision,
        create_revision=kv.create_revision,
    )


def _transaction(guards: Sequence[Guard], writes: Sequence[Write]) -> rpc_pb2.TxnRequest:
    """On refusal it reads the guarded keys in the same transaction: what is found is what refused."""
    return rpc_pb2.TxnRequest(
        compare=[
            rpc_pb2.Compare(
                result=rpc_pb2.Compare.EQUAL,
                target=rpc_pb2.Compare.MOD,
                key=guard.key.encode(),
                mod_revision=guard.mod_revision,
            )
            for guard in guards
        ],
        success=[_operation(write) for write in writes],
        failure=[
            rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=guard.key.encode()))
            for guard in guards
        ],
    )


def _operation(write: Write) -> rpc_pb2.RequestOp:
    match write:
        case Put():
            put = rpc_pb2.PutRequest(key=write.key.encode(), value=write.value)
            return rpc_pb2.RequestOp(request_put=put)
        case Delete():
            delete = rpc_pb2.DeleteRangeRequest(key=write.key.encode())
            return rpc_pb2.RequestOp(request_delete_range=delete)


def _transacted(answer: rpc_pb2.TxnResponse) -> Transacted:
    found = () if answer.succeeded else _found(answer.responses)
    return Transacted(succeeded=answer.succeeded, revision=answer.header.revision, found=found)


def _found(responses: Sequence[rpc_pb2.ResponseOp]) -> tuple[StoreItem, ...]:
    return tuple(item_of(kv) for response in responses for kv in response.response_range.kvs)


def _unavailable(target: str, error: RpcError) -> Unavailable:
    words = words_of(error)
    if "database space exceeded" in words:
        hint = "etcd's disk quota is used up: compact, defragment, disarm the alarm (etcdctl)"
    else:
        hint = "check that etcd runs and can be reached; the controller's log says more"
    return Unavailable(f"etcd at {target} is not available: {words}", hint=hint)


def _refusal(error: RpcError) -> InvalidInput | RemoteFailed:
    words = words_of(error)
    if "too large" in words:
        return InvalidInput(f"etcd refused the request: {words}", hint="ask for less at once")
    return RemoteFailed(
        f"etcd refused the request: {words}", hint="check the controller's certificate for etcd"
    )
