# ruff: noqa: N802  # methods are named as the RPCs are
"""VEs of the fake controller: they live as their image says (kit.fakeapi)."""

import asyncio
from functools import partial
from typing import Any

from kit.fakecluster import (
    ADDED,
    DELETED,
    SYNCED,
    FakeCluster,
    stamp,
    told,
)
from kit.fakeexec import Command
from kit.fakeverbs import Verbs
from veapi import selector
from veapi.errors import Conflict, InvalidInput, NotFound, VerackError
from veapi.rpc import abort
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2


class VEs(Verbs, api_pb2_grpc.VEServiceServicer):
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
        if ve.spec.run == "frozen":
            self.cluster.state(ve, "Frozen")
            return
        ve.status.started_at.CopyFrom(stamp())
        self.cluster.serials[ve.uid] += 1
        del ve.status.addresses[:]
        ve.status.addresses.append(ve.spec.ip or "10.66.0.2")
        self.cluster.state(ve, "Running", init_pid=self.cluster.serials[ve.uid])

    async def _found(self, ref: Any, context: Any) -> types_pb2.VE:
        try:
            found: types_pb2.VE = self.cluster.find(ref.project, ref.name)
        except NotFound as error:
            await abort(context, error)
        else:
            return found

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
        if request.deleted:
            return self.kept(request)
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
        gone = partial(self._remove, ve, purge=request.purge)
        asyncio.get_running_loop().call_soon(gone)
        return ve

    def _remove(self, ve: types_pb2.VE, *, purge: bool) -> None:
        if self.cluster.ves.pop(ve.uid, None) is not None:
            self.cluster.tell(DELETED, ve)
            if not purge:
                self.keep(ve)

    async def Exec(  # type: ignore[override]  # writes by its context
        self, request_iterator: Any, context: Any
    ) -> None:
        self.cluster.calls.append("Exec")
        first = await anext(aiter(request_iterator))
        ve = await self._found(first.start.ve, context)
        if ve.status.state != "Running":
            await abort(context, Conflict(f"{ve.name} does not run", hint=f"vectl start {ve.name}"))
        await Command(self.cluster, first.start, request_iterator, context).run()

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
