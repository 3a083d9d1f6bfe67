"""The service of hosts."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

from veapi import validate
from veapi.model import HostName
from veapi.selector import selector
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vecontroller.api.describe import Describe
from vecontroller.api.lookup import find_host
from vecontroller.api.ports import ApiDeps
from vecontroller.calls import Context


class HostService(api_pb2_grpc.HostServiceServicer):
    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
        self._describe = Describe(deps)

    async def Get(self, request: api_pb2.HostRef, context: Context) -> types_pb2.Host:
        name = validate.name("name", request.name)
        return self._describe.host(HostName(name), find_host(self._deps.mirror.view, name))

    async def List(
        self, request: api_pb2.ListHostsRequest, context: Context
    ) -> api_pb2.ListHostsResponse:
        selected = selector(request.selector)
        hosts = sorted(self._deps.mirror.view.hosts.items())
        return api_pb2.ListHostsResponse(
            hosts=[
                self._describe.host(name, held)
                for name, held in hosts
                if selected(held.value.labels)
            ]
        )
