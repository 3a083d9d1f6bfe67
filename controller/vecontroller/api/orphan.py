"""The service of orphans: what hosts have and nobody's set names."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

from typing import NoReturn

from veapi.errors import Unavailable
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vecontroller.api.ports import ApiDeps
from vecontroller.calls import Context


class OrphanService(api_pb2_grpc.OrphanServiceServicer):
    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps

    async def List(
        self, request: api_pb2.ListOrphansRequest, context: Context
    ) -> api_pb2.ListOrphansResponse:
        _refuse()

    async def Adopt(self, request: api_pb2.AdoptOrphanRequest, context: Context) -> types_pb2.VE:
        _refuse()

    async def Purge(self, request: api_pb2.OrphanRef, context: Context) -> api_pb2.Orphan:
        _refuse()


def _refuse() -> NoReturn:
    raise Unavailable("orphans are not served yet", hint="use a newer controller")
