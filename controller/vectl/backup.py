"""The client's end of a backup."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import grpc.aio

from veapi.errors import RemoteFailed
from veapi.v1 import cluster_pb2, cluster_pb2_grpc
from vectl.wire import failure

if TYPE_CHECKING:
    from vectl.client import Client


async def backup(
    client: "Client",
) -> AsyncGenerator[cluster_pb2.BackupStart | bytes | cluster_pb2.BackupEnd, None]:
    """What it is, its bytes, and its end. Raises when it breaks off before that."""
    call = cluster_pb2_grpc.ClusterServiceStub(client.channel).Backup(cluster_pb2.BackupRequest())
    try:
        async for frame in call:
            match frame.WhichOneof("frame"):
                case "start":
                    yield frame.start
                case "chunk":
                    yield frame.chunk
                case "end":
                    yield frame.end
                    return
    except grpc.aio.AioRpcError as error:
        raise failure(error, client.context) from None
    finally:
        call.cancel()
    raise RemoteFailed("the backup broke off", hint="take it again")
