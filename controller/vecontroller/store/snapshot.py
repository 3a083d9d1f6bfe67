"""A snapshot of the whole of etcd, as one member has it: its database file, then the 32 bytes of that file's sha256."""

from collections.abc import AsyncGenerator

from veapi.errors import RemoteFailed, Unavailable
from veapi.etcd import rpc_pb2
from vecontroller.store.endpoints import METADATA, Endpoint, RpcError, words_of

LIMIT_S = 600.0


async def snapshot(endpoint: Endpoint) -> AsyncGenerator[bytes, None]:
    """Its bytes in pieces of some 32 KiB. Unavailable, RemoteFailed when it breaks off: what came before is of no use."""
    call = endpoint.maintenance.Snapshot(
        rpc_pb2.SnapshotRequest(), timeout=LIMIT_S, metadata=METADATA
    )
    left = -1
    try:
        async for answer in call:
            left = answer.remaining_bytes
            yield answer.blob
    except RpcError as error:
        raise Unavailable(
            f"etcd at {endpoint.target} gave no whole snapshot: {words_of(error)}",
            hint="try again; the controller's log and etcd's say more",
        ) from None
    finally:
        call.cancel()
    if left:
        raise RemoteFailed(f"etcd at {endpoint.target} ended its snapshot early", hint="try again")
