"""The service of VEs: each call is one line of what the other modules do."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

from collections.abc import AsyncIterator

from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vecontroller.api import change, events, streams
from vecontroller.api.apply import Applier
from vecontroller.api.create import Creator, wanted
from vecontroller.api.departed import Departed
from vecontroller.api.describe import Describe
from vecontroller.api.inflight import InFlight
from vecontroller.api.lookup import find_project, find_ve
from vecontroller.api.ports import ApiDeps
from vecontroller.api.selection import selection
from vecontroller.api.watch import watch
from vecontroller.calls import Context


class VEService(api_pb2_grpc.VEServiceServicer):
    def __init__(self, deps: ApiDeps, in_flight: InFlight, departed: Departed) -> None:
        self._deps = deps
        self._departed = departed
        self._describe = Describe(deps)
        self._creator = Creator(deps, in_flight)
        self._applier = Applier(deps, self._creator, self._describe)

    async def Create(self, request: api_pb2.CreateVERequest, context: Context) -> types_pb2.VE:
        asked = wanted(request.ve, request.request_id)
        return self._describe.ve(await self._creator.create(asked), events=True)

    async def Get(self, request: api_pb2.VERef, context: Context) -> types_pb2.VE:
        return self._describe.ve(find_ve(self._deps.mirror.view, request), events=True)

    async def List(
        self, request: api_pb2.ListVEsRequest, context: Context
    ) -> api_pb2.ListVEsResponse:
        view, selected = self._deps.mirror.view, selection(request)
        if selected.project:
            find_project(view, selected.project)
        return api_pb2.ListVEsResponse(
            ves=[self._describe.ve(held) for held in selected.of(view)], revision=view.revision
        )

    def Watch(
        self, request: api_pb2.WatchVEsRequest, context: Context
    ) -> AsyncIterator[api_pb2.VEChange]:
        return watch(self._deps, self._describe, self._departed, request)

    async def Apply(
        self, request: api_pb2.ApplyVERequest, context: Context
    ) -> api_pb2.ApplyVEResponse:
        return await self._applier.apply(request)

    async def SetRun(self, request: api_pb2.SetRunRequest, context: Context) -> types_pb2.VE:
        return self._describe.ve(await change.set_run(self._deps, request), events=True)

    async def Restart(self, request: api_pb2.RestartRequest, context: Context) -> types_pb2.VE:
        return self._describe.ve(await change.restart(self._deps, request), events=True)

    async def Delete(self, request: api_pb2.DeleteVERequest, context: Context) -> types_pb2.VE:
        return self._describe.ve(await change.delete(self._deps, request), events=True)

    def Exec(
        self, request_iterator: AsyncIterator[api_pb2.ExecRequest], context: Context
    ) -> AsyncIterator[api_pb2.ExecResponse]:
        return streams.execute(self._deps, self._describe, request_iterator)

    def Logs(
        self, request: api_pb2.LogsRequest, context: Context
    ) -> AsyncIterator[api_pb2.LogsResponse]:
        return streams.logs(self._deps, request)

    async def ListEvents(
        self, request: api_pb2.ListEventsRequest, context: Context
    ) -> api_pb2.ListEventsResponse:
        return api_pb2.ListEventsResponse(
            events=events.list_events(self._deps, self._describe, request)
        )

    def WatchEvents(
        self, request: api_pb2.ListEventsRequest, context: Context
    ) -> AsyncIterator[types_pb2.Event]:
        return events.watch_events(self._deps, self._describe, request)
