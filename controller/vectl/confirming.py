"""The client's end of the word that a restored store counts."""

from typing import TYPE_CHECKING

from veapi.v1 import cluster_pb2, cluster_pb2_grpc
from vectl import wire

if TYPE_CHECKING:
    from vectl.client import Client


async def confirm(
    client: "Client", *, incarnation: int, without: tuple[str, ...], dry_run: bool
) -> cluster_pb2.ConfirmResponse:
    """What is done, or would be with `dry_run`."""
    stub = cluster_pb2_grpc.ClusterServiceStub(client.channel)
    request = cluster_pb2.ConfirmRequest(dry_run=dry_run, incarnation=incarnation, without=without)
    return await wire.unary(stub.Confirm, request, context=client.context)
