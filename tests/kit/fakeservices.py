# ruff: noqa: N802  # methods are named as the RPCs are
"""Hosts, images, projects and the system of the fake controller."""

from typing import Any

from kit.fakecluster import CLUSTER, FakeCluster
from veapi.channel import caller
from veapi.errors import Conflict, Denied, InvalidInput, NotFound
from veapi.rpc import abort
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2


class Hosts(api_pb2_grpc.HostServiceServicer):
    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster

    async def Get(self, request: Any, context: Any) -> Any:
        for host in self.cluster.hosts:
            if host.name == request.name:
                return host
        await abort(context, NotFound(f"there is no host {request.name}", hint="`vectl host list`"))
        return None

    async def List(self, request: Any, context: Any) -> Any:
        self.cluster.calls.append("ListHosts")
        return api_pb2.ListHostsResponse(hosts=self.cluster.hosts)


class Images(api_pb2_grpc.ImageServiceServicer):
    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster

    async def Import(self, request_iterator: Any, context: Any) -> Any:
        self.cluster.calls.append("Import")
        requests = aiter(request_iterator)
        start = (await anext(requests)).start
        content = b""
        async for request in requests:
            assert len(request.chunk) <= 1 << 20
            content += request.chunk
            yield _progress("uploading", received_bytes=len(content))
        if content.startswith(b"hello"):
            await abort(context, InvalidInput("this is no image", hint="give a tar"))
        self.cluster.uploads[start.name] = content
        yield _progress("replicating", hosts_done=1, hosts_wanted=2)
        image = types_pb2.Image(
            digest="sha256:" + "ab" * 32,
            tags=[start.name],
            size_bytes=len(content),
            hosts=["h1", "h2"],
        )
        self.cluster.images[start.name] = image
        yield api_pb2.ImportImageResponse(image=image)

    async def Get(self, request: Any, context: Any) -> Any:
        return await self._found(request, context)

    async def _found(self, request: Any, context: Any) -> types_pb2.Image:
        image = self.cluster.images.get(request.name)
        if image is None:
            await abort(context, NotFound(f"there is no image {request.name}", hint="import it"))
        return image

    async def List(self, request: Any, context: Any) -> Any:
        return api_pb2.ListImagesResponse(images=list(self.cluster.images.values()))

    async def Delete(self, request: Any, context: Any) -> Any:
        image = await self._found(request, context)
        del self.cluster.images[request.name]
        return image


def _progress(step: str, **fields: int) -> api_pb2.ImportImageResponse:
    return api_pb2.ImportImageResponse(progress=api_pb2.ImportProgress(step=step, **fields))


class Projects(api_pb2_grpc.ProjectServiceServicer):
    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster

    async def Create(self, request: Any, context: Any) -> Any:
        if request.name in self.cluster.projects:
            await abort(context, Conflict(f"project {request.name} is there", hint="use it"))
        self.cluster.projects.append(request.name)
        return types_pb2.Project(name=request.name)

    async def List(self, request: Any, context: Any) -> Any:
        return api_pb2.ListProjectsResponse(
            projects=[types_pb2.Project(name=name) for name in self.cluster.projects]
        )


class System(api_pb2_grpc.SystemServiceServicer):
    async def Version(self, request: Any, context: Any) -> Any:
        try:
            found = caller(context, CLUSTER)
        except Denied as error:
            await abort(context, error)
        if found.role != "user":
            await abort(context, Denied("only for users", hint="use a user's certificate"))
        return api_pb2.VersionResponse(version="9.9", cluster=CLUSTER, leader="c1", epoch=7)
