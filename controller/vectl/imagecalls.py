"""Calls about images beside those of the client: pulls, and where an image is asked for."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from veapi.errors import RemoteFailed
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vectl import wire
from vectl.streams import late

if TYPE_CHECKING:
    from vectl.client import Client

OnProgress = Callable[[api_pb2.ImportProgress], None]


async def pull_image(
    client: "Client",
    name: str,
    source: str,
    on_progress: OnProgress,
    *,
    insecure: bool,
    timeout_s: float,
) -> types_pb2.Image:
    """A host fetches it from a registry. Leaving ends the pull."""
    request = api_pb2.PullImageRequest(name=name, source=source, insecure=insecure)
    call = api_pb2_grpc.ImageServiceStub(client.channel).Pull(request, timeout=timeout_s)
    try:
        async for response in call:
            if response.WhichOneof("frame") == "image":
                return response.image
            on_progress(response.progress)
    except grpc.aio.AioRpcError as error:
        raise late(name, wire.failure(error, client.context), error) from None
    finally:
        call.cancel()
    raise RemoteFailed("the controller ended the pull without an image", hint="pull it again")


async def set_prefetch(
    client: "Client", name: str, *, selector: str, hosts: Sequence[str]
) -> types_pb2.Image:
    """Neither selector nor hosts: the image is prefetched no more."""
    prefetch = types_pb2.Prefetch(selector=selector, hosts=hosts)
    request = api_pb2.SetPrefetchRequest(name=name, prefetch=prefetch)
    stub = api_pb2_grpc.ImageServiceStub(client.channel)
    return await wire.unary(stub.SetPrefetch, request, context=client.context)
