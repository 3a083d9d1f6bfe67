"""A typed asyncio client of the controller's API.

    async with Client.connect(context) as client:
        ve = await client.create(Wanted(name="web", image="debian"))
        async with client.watch(names=["web"]) as watch:
            async for change in watch: ...

Every call has a deadline; every failure is one of veapi.errors. Writes are never repeated: when the outcome of one is
unknown, Unavailable says so.
"""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # failed handshakes are told in our words

from veapi.v1 import (
    api_pb2,
    api_pb2_grpc,
    plan_pb2_grpc,
    scheduler_pb2_grpc,
    simulate_pb2_grpc,
    types_pb2,
)
from vectl import filestreams, wire
from vectl.context import Context
from vectl.hostlife import HostLife
from vectl.reach import Reach
from vectl.scheduling import Scheduling
from vectl.simulations import Simulations
from vectl.snapshots import Snapshots
from vectl.streams import Command, ExecStream, log_chunks, upload, watched_events
from vectl.wanted import Wanted, wire_names
from vectl.watch import Watch

VE = types_pb2.VE
IMPORT_S = 3600.0


class Client(Scheduling, Simulations, Snapshots):
    """Calls to the controller that leads. `project` arguments default to the context's."""

    def __init__(self, reach: Reach, context: Context) -> None:
        self.context = context
        self.channel = channel = reach.channel
        self.ves = api_pb2_grpc.VEServiceStub(channel)
        self.orphan_stub = api_pb2_grpc.OrphanServiceStub(channel)
        self.scheduler_stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        self.plan_stub = plan_pb2_grpc.PlanServiceStub(channel)
        self.simulation_stub = simulate_pb2_grpc.SimulationServiceStub(channel)
        self.host_life = HostLife(self)
        self._hosts = api_pb2_grpc.HostServiceStub(channel)
        self._images = api_pb2_grpc.ImageServiceStub(channel)
        self._projects = api_pb2_grpc.ProjectServiceStub(channel)
        self._system = api_pb2_grpc.SystemServiceStub(channel)

    @classmethod
    @asynccontextmanager
    async def connect(cls, context: Context) -> AsyncIterator[Self]:
        """A client connected with the leader. Unavailable or Denied, after seconds, when that is not possible."""
        reach = Reach(context)
        try:
            client = cls(reach, context)
            await client.ready()
            yield client
        finally:
            await reach.aclose()

    async def ready(self) -> None:
        """Returns once the controller that leads is connected: another one than before, perhaps."""
        await self.channel.find("")

    async def create(self, wanted: Wanted, *, request_id: str = "") -> VE:
        """Asks for a VE. Conflict when the name is taken."""
        request = api_pb2.CreateVERequest(
            ve=self._message(wanted), request_id=request_id or new_request_id()
        )
        return await wire.unary(self.ves.Create, request, context=self.context)

    async def create_ve(self, ve: VE) -> VE:
        """As `create`, of a whole message."""
        request = api_pb2.CreateVERequest(ve=ve, request_id=new_request_id())
        return await wire.unary(self.ves.Create, request, context=self.context)

    async def apply(
        self, wanted: Wanted, *, dry_run: bool = False, request_id: str = ""
    ) -> api_pb2.ApplyVEResponse:
        """Makes the VE as it is given, or only says what would change."""
        request = api_pb2.ApplyVERequest(
            ve=self._message(wanted),
            dry_run=dry_run,
            request_id=request_id or new_request_id(),
            fields=wire_names(wanted.given),
        )
        return await wire.unary(self.ves.Apply, request, context=self.context)

    async def get(self, name: str, *, project: str = "") -> VE:
        """NotFound when there is none."""
        return await wire.unary(self.ves.Get, self.ref(name, project=project), context=self.context)

    async def list_ves(
        self, *, selector: str = "", all_projects: bool = False, names: Sequence[str] = ()
    ) -> tuple[list[VE], int]:
        """The VEs, and the store's revision at which they were so."""
        request = api_pb2.ListVEsRequest(
            project=self.context.project,
            all_projects=all_projects,
            selector=selector,
            names=names,
        )
        response = await wire.unary(self.ves.List, request, context=self.context)
        return list(response.ves), response.revision

    def watch(
        self,
        *,
        names: Sequence[str] = (),
        selector: str = "",
        project: str = "",
        all_projects: bool = False,
    ) -> Watch:
        """A watch that is opened at once, and opened again when the controller was lost."""
        request = api_pb2.WatchVEsRequest(
            project=project or self.context.project,
            all_projects=all_projects,
            selector=selector,
            names=names,
        )
        return Watch(self.ves, request, self.context, reconnect=self.ready)

    async def exec(self, name: str, command: Command) -> ExecStream:
        """Begins a command; its output and end come from the stream."""
        return await ExecStream.begin(self.ves, command.start(self.ref(name)), self.context)

    def logs(
        self, name: str, *, follow: bool, tail: int, since: float = 0.0
    ) -> AsyncIterator[bytes]:
        """The console's bytes; `tail` lines, or all when 0, of what is kept and was written `since` (Unix seconds)."""
        request = api_pb2.LogsRequest(ve=self.ref(name), follow=follow, tail=tail)
        if since:
            request.since.FromNanoseconds(int(since * 1e9))
        return log_chunks(self.ves, request, self.context)

    async def push(
        self,
        name: str,
        start: api_pb2.PushStart,
        chunks: AsyncIterator[bytes],
        on_received: Callable[[int], None],
    ) -> api_pb2.Transferred:
        """A tar, or one file, in chunks of at most 1 MiB; `start` says where to."""
        start.ve.CopyFrom(self.ref(name))
        return await filestreams.push(self.ves, start, chunks, on_received, self.context)

    def pull(
        self, name: str, request: api_pb2.PullRequest
    ) -> AsyncIterator[bytes | api_pb2.Transferred]:
        """Pieces of a tar that is not to be trusted; last, what is in it."""
        request.ve.CopyFrom(self.ref(name))
        return filestreams.pull(self.ves, request, self.context)

    def export(self, name: str, *, snapshot: str = "") -> AsyncIterator[VE | bytes]:
        """The VE, then its root as a tar packed by zstd. Ends only when all of it came."""
        request = api_pb2.ExportRequest(ve=self.ref(name), snapshot=snapshot)
        return filestreams.export(self.ves, request, self.context)

    async def events(self, *, ve: str = "", all_projects: bool = False) -> list[types_pb2.Event]:
        """Oldest first."""
        response = await wire.unary(
            self.ves.ListEvents, self._events(ve, all_projects), context=self.context
        )
        return list(response.events)

    def watch_events(
        self, *, ve: str = "", all_projects: bool = False
    ) -> AsyncIterator[types_pb2.Event]:
        """Earlier events, then new ones as they come."""
        return watched_events(self.ves, self._events(ve, all_projects), self.context)

    async def hosts(self, *, selector: str = "") -> list[types_pb2.Host]:
        request = api_pb2.ListHostsRequest(selector=selector)
        response = await wire.unary(self._hosts.List, request, context=self.context)
        return list(response.hosts)

    async def host(self, name: str) -> types_pb2.Host:
        return await wire.unary(self._hosts.Get, api_pb2.HostRef(name=name), context=self.context)

    async def import_image(
        self,
        name: str,
        chunks: AsyncIterator[bytes],
        on_progress: Callable[[api_pb2.ImportProgress], None],
        *,
        size_bytes: int = 0,
        timeout_s: float = IMPORT_S,
    ) -> types_pb2.Image:
        """Uploads chunks of at most 1 MiB. An error of `chunks` ends the upload, and is raised."""
        start = api_pb2.ImportImageStart(name=name, size_bytes=size_bytes)
        call = self._images.Import(timeout=timeout_s)
        return await upload(call, start, chunks, on_progress, self.context)

    async def images(self) -> list[types_pb2.Image]:
        request = api_pb2.ListImagesRequest()
        response = await wire.unary(self._images.List, request, context=self.context)
        return list(response.images)

    async def image(self, name: str) -> types_pb2.Image:
        return await wire.unary(self._images.Get, api_pb2.ImageRef(name=name), context=self.context)

    async def delete_image(self, name: str) -> types_pb2.Image:
        return await wire.unary(
            self._images.Delete, api_pb2.ImageRef(name=name), context=self.context
        )

    async def create_project(self, name: str) -> types_pb2.Project:
        request = api_pb2.CreateProjectRequest(name=name)
        return await wire.unary(self._projects.Create, request, context=self.context)

    async def project(self, name: str) -> types_pb2.Project:
        """NotFound when there is none."""
        request = api_pb2.GetProjectRequest(name=name)
        return await wire.unary(self._projects.Get, request, context=self.context)

    async def set_quota(self, name: str, amounts: Mapping[str, int]) -> types_pb2.Project:
        """Those that are named; 0 is without a limit."""
        request = api_pb2.SetProjectRequest(
            name=name, quota=types_pb2.ProjectAmounts(**amounts), fields=sorted(amounts)
        )
        return await wire.unary(self._projects.Set, request, context=self.context)

    async def delete_project(self, name: str) -> None:
        """Conflict unless it is empty."""
        request = api_pb2.DeleteProjectRequest(name=name)
        await wire.unary(self._projects.Delete, request, context=self.context)

    async def projects(self) -> list[types_pb2.Project]:
        request = api_pb2.ListProjectsRequest()
        response = await wire.unary(self._projects.List, request, context=self.context)
        return list(response.projects)

    async def version(self) -> api_pb2.VersionResponse:
        return await wire.unary(
            self._system.Version, api_pb2.VersionRequest(), context=self.context
        )

    def _events(self, ve: str, all_projects: bool) -> api_pb2.ListEventsRequest:  # noqa: FBT001
        return api_pb2.ListEventsRequest(
            project=self.context.project, all_projects=all_projects, ve=ve
        )


def new_request_id() -> str:
    return os.urandom(16).hex()
