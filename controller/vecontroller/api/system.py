"""The service that tells which cluster this is, and who leads it."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

from veapi.v1 import api_pb2, api_pb2_grpc
from vecontroller.api.ports import ApiDeps
from vecontroller.calls import Context


class SystemService(api_pb2_grpc.SystemServiceServicer):
    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps

    async def Version(
        self, request: api_pb2.VersionRequest, context: Context
    ) -> api_pb2.VersionResponse:
        deps = self._deps
        return api_pb2.VersionResponse(
            version=deps.version,
            cluster=deps.cluster,
            leader=deps.controller,
            epoch=deps.leader.epoch,
            incarnation=deps.leader.incarnation,
        )
