# ruff: noqa: N802  # methods are named as the RPCs are
"""The controller's API over a dict, for tests of its clients: real gRPC and mTLS on loopback, no store and no hosts.

What a VE does is told by its image:
    ok       runs (the image that is there)
    slow     stays Creating until `release()`
    huge     no host fits it
    broken   fails on its host
Commands that exec knows are in `_Command`.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from kit.certs import issue, make_ca
from veapi import selector
from veapi.channel import SERVER_OPTIONS, Identity, caller, server_credentials
from veapi.errors import Conflict, Denied, InvalidInput, NotFound, VerackError
from veapi.rpc import abort
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2

CLUSTER = "rack"
IMAGES = ("ok", "slow", "huge", "broken")
ADDED = api_pb2.VEChange.KIND_ADDED
CHANGED = api_pb2.VEChange.KIND_CHANGED
DELETED = api_pb2.VEChange.KIND_DELETED
SYNCED = api_pb2.VEChange.KIND_SYNCED


def stamp() -> Any:
    found = types_pb2.Event().time
    found.GetCurrentTime()
    return found


def told(kind: Any, ve: types_pb2.VE, revision: int) -> api_pb2.VEChange:
    """As a watch tells it: without events."""
    change = api_pb2.VEChange(kind=kind, ve=ve, revision=revision)
    del change.ve.status.events[:]
    return change


@dataclass
class FakeCluster:
    """All state, and what a test may set. `calls` are the names of methods in the order in which they came."""

    ves: dict[str, types_pb2.VE] = field(default_factory=dict)
    images: dict[str, types_pb2.Image] = field(default_factory=dict)
    projects: list[str] = field(default_factory=lambda: ["default"])
    hosts: list[types_pb2.Host] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    requests: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    signals: list[int] = field(default_factory=list)
    logs: bytes = b"one\ntwo\nthree\n"
    revision: int = 10
    released: asyncio.Event = field(default_factory=asyncio.Event)
    watchers: dict[int, "asyncio.Queue[api_pb2.VEChange]"] = field(default_factory=dict)
    set_runs: list[api_pb2.SetRunRequest] = field(default_factory=list)
    serials: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        for name in IMAGES:
            self.images[name] = types_pb2.Image(
                digest="sha256:" + name.encode().hex().ljust(64, "0"),
                tags=[name],
                size_bytes=3 << 20,
                blob_bytes=1 << 20,
                hosts=["h1", "h2"],
                created_at=stamp(),
            )
        for name, rack in (("h1", "r1"), ("h2", "r2")):
            self.hosts.append(
                types_pb2.Host(
                    name=name,
                    labels={"rack": rack},
                    state="Ready",
                    capacity=types_pb2.Resources(cpu=8, memory_bytes=16 << 30, pids=32768),
                    address="10.88.0.11",
                )
            )

    def release(self) -> None:
        self.released.set()

    def find(self, project: str, name: str) -> types_pb2.VE:
        for ve in self.ves.values():
            if (ve.project, ve.name) == (project, name):
                return ve
        raise NotFound(f"there is no VE {name} in project {project}", hint="see `vectl list`")

    def tell(self, kind: Any, ve: types_pb2.VE) -> None:
        self.revision += 1
        for queue in self.watchers.values():
            queue.put_nowait(told(kind, ve, self.revision))

    def state(self, ve: types_pb2.VE, state: str, **fields: Any) -> None:
        """Moves a VE to a state, with an event of it."""
        ve.status.state = state
        ve.status.reason = fields.pop("reason", "")
        ve.status.message = fields.pop("message", "")
        for key, value in fields.items():
            setattr(ve.status, key, value)
        event = types_pb2.Event(time=stamp(), type="Normal", reason=state, ve=ve.name)
        event.project, event.host, event.message = ve.project, ve.status.host, f"{ve.name} {state}"
        ve.status.events.append(event)
        self.tell(CHANGED, ve)


class VEs(api_pb2_grpc.VEServiceServicer):
    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.tasks: set[asyncio.Task[None]] = set()

    async def Create(self, request: Any, context: Any) -> Any:
        self.cluster.calls.append("Create")
        known = self.cluster.requests.get(request.request_id)
        if known:
            return self.cluster.ves[known]
        try:
            ve = self._make(request.ve)
        except VerackError as error:
            await abort(context, error)
        self.cluster.requests[request.request_id] = ve.uid
        return ve

    def _make(self, asked: types_pb2.VE) -> types_pb2.VE:
        if not asked.name.replace("-", "").isalnum() or asked.name != asked.name.lower():
            raise InvalidInput(f"name: {asked.name!r} is not a name", hint="use a-z, 0-9 and '-'")
        if asked.project not in self.cluster.projects:
            raise NotFound(f"there is no project {asked.project}", hint="`vectl project create`")
        if asked.spec.image not in self.cluster.images:
            raise NotFound(f"there is no image {asked.spec.image}", hint="`vectl image list`")
        if any(
            (ve.project, ve.name) == (asked.project, asked.name) for ve in self.cluster.ves.values()
        ):
            raise Conflict(f"the name {asked.name} is taken", hint="choose another name")
        ve = types_pb2.VE()
        ve.CopyFrom(asked)
        number = len(self.cluster.requests) + len(self.cluster.ves) + 1
        ve.uid, ve.generation, ve.resource_version = f"uid-{number}", 1, number
        ve.spec.cpu = ve.spec.cpu or 1
        ve.spec.memory_bytes = ve.spec.memory_bytes or 1 << 30
        ve.spec.disk_bytes = ve.spec.disk_bytes or 10 << 30
        ve.spec.pids = ve.spec.pids or 512
        ve.created_at.CopyFrom(stamp())
        ve.status.state, ve.status.reason = "Pending", "Scheduling"
        self.cluster.ves[ve.uid] = ve
        self.cluster.tell(ADDED, ve)
        self._live(ve)
        answer = types_pb2.VE()
        answer.CopyFrom(ve)
        return answer

    def _live(self, ve: types_pb2.VE) -> None:
        task = asyncio.create_task(self._run(ve))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, ve: types_pb2.VE) -> None:
        await asyncio.sleep(0)
        cluster = self.cluster
        if ve.spec.image == "huge":
            cluster.state(ve, "Pending", reason="NoHostFits", message="no host has 900G of memory")
            return
        host = ve.spec.host or "h1"
        cluster.state(ve, "Creating", host=host)
        if ve.spec.image == "slow":
            await cluster.released.wait()
        if ve.spec.image == "broken":
            cluster.state(ve, "Failed", reason="ExitedAtOnce", message="init ended with 1")
            return
        self._settle(ve)

    def _settle(self, ve: types_pb2.VE) -> None:
        ve.status.observed_generation = ve.generation
        if ve.spec.run == "stopped":
            self.cluster.state(ve, "Stopped")
            return
        ve.status.started_at.CopyFrom(stamp())
        self.cluster.serials[ve.uid] += 1
        del ve.status.addresses[:]
        ve.status.addresses.append(ve.spec.ip or "10.66.0.2")
        self.cluster.state(ve, "Running", init_pid=self.cluster.serials[ve.uid])

    async def _found(self, ref: Any, context: Any) -> types_pb2.VE:
        try:
            return self.cluster.find(ref.project, ref.name)
        except NotFound as error:
            await abort(context, error)

    async def Get(self, request: Any, context: Any) -> Any:
        self.cluster.calls.append("Get")
        return await self._found(request, context)

    def _chosen(self, request: Any) -> list[types_pb2.VE]:
        chosen = selector.selector(request.selector)
        return [
            ve
            for ve in self.cluster.ves.values()
            if (request.all_projects or ve.project == request.project)
            and (not request.names or ve.name in request.names)
            and chosen(ve.labels)
        ]

    async def List(self, request: Any, context: Any) -> Any:
        self.cluster.calls.append("List")
        try:
            ves = self._chosen(request)
        except InvalidInput as error:
            await abort(context, error)
        return api_pb2.ListVEsResponse(ves=ves, revision=self.cluster.revision)

    async def Watch(  # type: ignore[override]  # writes by its context
        self, request: Any, context: Any
    ) -> None:
        self.cluster.calls.append("Watch")
        queue: asyncio.Queue[api_pb2.VEChange] = asyncio.Queue()
        self.cluster.watchers[id(queue)] = queue
        try:
            for ve in self._chosen(request):
                await context.write(told(ADDED, ve, self.cluster.revision))
            await context.write(api_pb2.VEChange(kind=SYNCED, revision=self.cluster.revision))
            while True:
                change = await queue.get()
                in_project = request.all_projects or change.ve.project == request.project
                if in_project and (not request.names or change.ve.name in request.names):
                    await context.write(change)
        finally:
            del self.cluster.watchers[id(queue)]

    async def Apply(self, request: Any, context: Any) -> Any:
        self.cluster.calls.append("Apply")
        asked = request.ve
        try:
            ve = self.cluster.find(asked.project, asked.name)
        except NotFound:
            return await self._apply_new(request, context)
        before = ve.spec.memory_bytes
        if not asked.spec.memory_bytes or before == asked.spec.memory_bytes:
            return api_pb2.ApplyVEResponse(outcome=api_pb2.ApplyVEResponse.OUTCOME_UNCHANGED, ve=ve)
        change = api_pb2.FieldChange(
            field="spec.memory_bytes", before=str(before), after=str(asked.spec.memory_bytes)
        )
        if not request.dry_run:
            ve.spec.memory_bytes = asked.spec.memory_bytes
            ve.generation += 1
            self._live(ve)
        return api_pb2.ApplyVEResponse(
            outcome=api_pb2.ApplyVEResponse.OUTCOME_CHANGED, ve=ve, changes=[change]
        )

    async def _apply_new(self, request: Any, context: Any) -> Any:
        try:
            ve = request.ve if request.dry_run else self._make(request.ve)
        except VerackError as error:
            await abort(context, error)
        return api_pb2.ApplyVEResponse(
            outcome=api_pb2.ApplyVEResponse.OUTCOME_CREATED,
            ve=ve,
            changes=[api_pb2.FieldChange(field="spec.image", after=request.ve.spec.image)],
        )

    async def SetRun(self, request: Any, context: Any) -> Any:
        self.cluster.calls.append("SetRun")
        self.cluster.set_runs.append(request)
        ve = await self._found(request.ve, context)
        if ve.spec.run != request.run:
            ve.spec.run = request.run
            ve.generation += 1
            self._live(ve)
        answer = types_pb2.VE()
        answer.CopyFrom(ve)
        return answer

    async def Restart(self, request: Any, context: Any) -> Any:
        self.cluster.calls.append("Restart")
        ve = await self._found(request.ve, context)
        answer = types_pb2.VE()
        answer.CopyFrom(ve)
        self._live(ve)
        return answer

    async def Delete(self, request: Any, context: Any) -> Any:
        self.cluster.calls.append("Delete")
        ve = await self._found(request.ve, context)
        self.cluster.state(ve, "Deleting")
        asyncio.get_running_loop().call_soon(self._remove, ve)
        return ve

    def _remove(self, ve: types_pb2.VE) -> None:
        if self.cluster.ves.pop(ve.uid, None) is not None:
            self.cluster.tell(DELETED, ve)

    async def Exec(  # type: ignore[override]  # writes by its context
        self, request_iterator: Any, context: Any
    ) -> None:
        self.cluster.calls.append("Exec")
        first = await anext(aiter(request_iterator))
        ve = await self._found(first.start.ve, context)
        if ve.status.state != "Running":
            await abort(context, Conflict(f"{ve.name} does not run", hint=f"vectl start {ve.name}"))
        await _Command(self.cluster, first.start, request_iterator, context).run()

    async def Logs(self, request: Any, context: Any) -> Any:
        self.cluster.calls.append("Logs")
        await self._found(request.ve, context)
        lines = self.cluster.logs.splitlines(keepends=True)
        yield api_pb2.LogsResponse(data=b"".join(lines[-request.tail :]))
        if request.follow:
            await self.cluster.released.wait()
            yield api_pb2.LogsResponse(data=b"later\n")

    async def ListEvents(self, request: Any, context: Any) -> Any:
        self.cluster.calls.append("ListEvents")
        return api_pb2.ListEventsResponse(events=self._events(request))

    async def WatchEvents(self, request: Any, context: Any) -> Any:
        self.cluster.calls.append("WatchEvents")
        for event in self._events(request):
            yield event
        await self.cluster.released.wait()
        yield types_pb2.Event(time=stamp(), type="Warning", reason="Released", ve="any")

    def _events(self, request: Any) -> list[types_pb2.Event]:
        return [
            event
            for ve in self.cluster.ves.values()
            if request.all_projects or ve.project == request.project
            for event in ve.status.events
            if not request.ve or ve.name == request.ve
        ]


@dataclass
class _Command:
    """`exit N`, `cat`, `both` (a word on each output), `size` (window sizes until `q`), `env`, `gone`, `signals`."""

    cluster: FakeCluster
    start: Any
    requests: Any
    context: Any

    async def run(self) -> None:
        await getattr(self, f"_{self.start.command[0].strip('/')}", self._unknown)()

    async def _write(self, **frame: Any) -> None:
        await self.context.write(api_pb2.ExecResponse(**frame))

    async def _unknown(self) -> None:
        await self._write(
            failure=api_pb2.Failure(kind="remote_failed", message="can't run it", hint="try sh")
        )

    async def _exit(self) -> None:
        await self._write(exit_code=int(self.start.command[1]))

    async def _both(self) -> None:
        await self._write(stdout=b"out\n")
        await self._write(stderr=b"err\n")
        await self._write(exit_code=0)

    async def _args(self) -> None:
        await self._write(stdout=" ".join(self.start.command).encode())
        await self._write(exit_code=0)

    async def _gone(self) -> None:
        """The stream ends, and no code comes."""

    async def _cat(self) -> None:
        async for frame in self.requests:
            if frame.stdin_closed:
                break
            await self._write(stdout=frame.stdin)
        await self._write(exit_code=0)

    async def _signals(self) -> None:
        await self._write(stdout=b"ready\n")
        async for frame in self.requests:
            if frame.WhichOneof("frame") == "signal":
                self.cluster.signals.append(frame.signal)
                await self._write(exit_code=128 + frame.signal)
                return

    async def _size(self) -> None:
        window = self.start.window
        first = f"{self.start.term} {self.start.tty} {window.columns}x{window.rows}\r\n"
        await self._write(stdout=first.encode())
        async for frame in self.requests:
            if frame.WhichOneof("frame") == "resize":
                text = f"now {frame.resize.columns}x{frame.resize.rows}\r\n"
                await self._write(stdout=text.encode())
            elif frame.stdin:
                await self._write(stdout=b"got " + frame.stdin.hex().encode() + b"\r\n")
                if b"q" in frame.stdin:
                    break
        await self._write(exit_code=42)


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


@dataclass
class FakeApi:
    """A running fake controller. `endpoint` is host:port."""

    cluster: FakeCluster
    endpoint: str
    ca: Path
    server: Any
    identity: Identity

    def issue(self, dns_name: str) -> Identity:
        return issue(self.ca, dns_name)


@asynccontextmanager
async def serve(folder: Path, listen: str = "127.0.0.1:0") -> AsyncIterator[FakeApi]:
    """Serves until the block ends; certificates are made in `folder`."""
    ca = make_ca(folder / "ca", CLUSTER)
    cluster = FakeCluster()
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add(server, cluster)
    port = server.add_secure_port(listen, server_credentials(issue(ca, f"controller.{CLUSTER}")))
    await server.start()
    endpoint = listen if listen.startswith("unix:") else f"127.0.0.1:{port}"
    try:
        yield FakeApi(cluster, endpoint, ca, server, issue(ca, f"ann.user.{CLUSTER}"))
    finally:
        cluster.release()
        await server.stop(0)


def add(server: Any, cluster: FakeCluster) -> None:
    """All services on a server that is not started yet."""
    api_pb2_grpc.add_VEServiceServicer_to_server(VEs(cluster), server)
    api_pb2_grpc.add_HostServiceServicer_to_server(Hosts(cluster), server)
    api_pb2_grpc.add_ImageServiceServicer_to_server(Images(cluster), server)
    api_pb2_grpc.add_ProjectServiceServicer_to_server(Projects(cluster), server)
    api_pb2_grpc.add_SystemServiceServicer_to_server(System(), server)
