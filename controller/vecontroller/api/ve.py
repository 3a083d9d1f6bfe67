"""The service of VEs: each call is one line of what the other modules do."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

from collections.abc import AsyncIterator

from veapi.model import VE, Deleted
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vecontroller.api import (
    change,
    clone,
    deletion,
    events,
    files,
    rebuild,
    setspec,
    snapshots,
    streams,
)
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
from vecontroller.view import Held


class VEService(api_pb2_grpc.VEServiceServicer):
    def __init__(self, deps: ApiDeps, in_flight: InFlight, departed: Departed) -> None:
        self._deps = deps
        self._in_flight = in_flight
        self._departed = departed
        self._describe = Describe(deps)
        self._creator = Creator(deps, in_flight)
        self._applier = Applier(deps, self._creator, self._describe, in_flight)

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
        if request.deleted:
            kept = [self._describe.deleted(held) for held in selected.deleted(view)]
            return api_pb2.ListVEsResponse(ves=kept, revision=view.revision)
        return api_pb2.ListVEsResponse(
            ves=[
                self._describe.ve(held, snapshots=bool(request.names)) for held in selected.of(view)
            ],
            revision=view.revision,
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
        return self._shown(await change.set_run(self._deps, request))

    async def Restart(self, request: api_pb2.RestartRequest, context: Context) -> types_pb2.VE:
        return self._shown(await change.restart(self._deps, request))

    async def Set(self, request: api_pb2.SetVERequest, context: Context) -> types_pb2.VE:
        return self._shown(await setspec.set_spec(self._deps, self._in_flight, request))

    async def Rename(self, request: api_pb2.RenameVERequest, context: Context) -> types_pb2.VE:
        return self._shown(await change.rename(self._deps, request))

    async def Clone(self, request: api_pb2.CloneVERequest, context: Context) -> types_pb2.VE:
        return self._shown(await clone.clone(self._deps, self._creator, request))

    async def Rebuild(self, request: api_pb2.RebuildVERequest, context: Context) -> types_pb2.VE:
        return self._shown(await rebuild.rebuild(self._deps, self._in_flight, request))

    async def Delete(self, request: api_pb2.DeleteVERequest, context: Context) -> types_pb2.VE:
        return self._shown(await deletion.delete(self._deps, self._in_flight, request))

    async def Undelete(self, request: api_pb2.UndeleteVERequest, context: Context) -> types_pb2.VE:
        return self._shown(await deletion.undelete(self._deps, self._in_flight, request))

    async def Purge(self, request: api_pb2.VERef, context: Context) -> types_pb2.VE:
        found = await deletion.purge(self._deps, self._in_flight, request)
        if isinstance(found.value, Deleted):
            return self._describe.deleted(Held(found.value, found.mod_revision, 0))
        return self._shown(Held(found.value, found.mod_revision, found.create_revision))

    async def TakeSnapshot(self, request: api_pb2.SnapshotRef, context: Context) -> types_pb2.VE:
        return self._shown(await snapshots.take(self._deps, request))

    async def DeleteSnapshot(self, request: api_pb2.SnapshotRef, context: Context) -> types_pb2.VE:
        return self._shown(await snapshots.delete(self._deps, self._in_flight, request))

    async def Restore(self, request: api_pb2.SnapshotRef, context: Context) -> types_pb2.VE:
        return self._shown(await snapshots.restore(self._deps, request))

    def Exec(
        self, request_iterator: AsyncIterator[api_pb2.ExecRequest], context: Context
    ) -> AsyncIterator[api_pb2.ExecResponse]:
        return streams.execute(self._deps, self._describe, request_iterator)

    def Logs(
        self, request: api_pb2.LogsRequest, context: Context
    ) -> AsyncIterator[api_pb2.LogsResponse]:
        return streams.logs(self._deps, request)

    def Push(
        self, request_iterator: AsyncIterator[api_pb2.PushRequest], context: Context
    ) -> AsyncIterator[api_pb2.PushResponse]:
        return files.push(self._deps, request_iterator)

    def Pull(
        self, request: api_pb2.PullRequest, context: Context
    ) -> AsyncIterator[api_pb2.PullResponse]:
        return files.pull(self._deps, request)

    def Export(
        self, request: api_pb2.ExportRequest, context: Context
    ) -> AsyncIterator[api_pb2.ExportResponse]:
        return files.export(self._deps, self._describe, request)

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

    def _shown(self, held: Held[VE]) -> types_pb2.VE:
        return self._describe.ve(held, events=True)
