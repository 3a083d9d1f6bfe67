"""The service of projects."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

import msgspec

from veapi import codec, validate
from veapi.errors import Conflict, InvalidInput
from veapi.model import Project, ProjectAmounts
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vecontroller.api.commits import ATTEMPTS, settle, worn_out
from vecontroller.api.describe import Describe
from vecontroller.api.lookup import find_project
from vecontroller.api.ports import DEFAULT_PROJECT, ApiDeps
from vecontroller.calls import Context
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put
from vecontroller.view import Held, View
from vecontroller.writer import LostRace


class ProjectService(api_pb2_grpc.ProjectServiceServicer):
    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
        self._describe = Describe(deps)

    async def Create(
        self, request: api_pb2.CreateProjectRequest, context: Context
    ) -> types_pb2.Project:
        name = validate.name("name", request.name)
        if name in self._deps.mirror.view.projects:
            raise _taken(name)
        try:
            return self._describe.project(await _create(self._deps, name))
        except LostRace:
            raise _taken(name) from None

    async def List(
        self, request: api_pb2.ListProjectsRequest, context: Context
    ) -> api_pb2.ListProjectsResponse:
        projects = sorted(self._deps.mirror.view.projects.items())
        return api_pb2.ListProjectsResponse(
            projects=[self._describe.project(held) for _, held in projects]
        )

    async def Get(self, request: api_pb2.GetProjectRequest, context: Context) -> types_pb2.Project:
        return self._describe.project(find_project(self._deps.mirror.view, request.name))

    async def Set(self, request: api_pb2.SetProjectRequest, context: Context) -> types_pb2.Project:
        asked = _checked(request)
        for attempt in range(1, ATTEMPTS + 1):
            held = find_project(self._deps.mirror.view, request.name)
            quota = msgspec.structs.replace(held.value.quota, **asked)
            if quota == held.value.quota:
                return self._describe.project(held)
            try:
                return self._describe.project(await _set(self._deps, held, quota))
            except LostRace as lost:
                await settle(self._deps, lost, attempt)
        raise worn_out(f"project {request.name}")

    async def Delete(
        self, request: api_pb2.DeleteProjectRequest, context: Context
    ) -> api_pb2.DeleteProjectResponse:
        for attempt in range(1, ATTEMPTS + 1):
            held = find_project(self._deps.mirror.view, request.name)
            _refuse_used(self._deps.mirror.view, request.name)
            try:
                await _delete(self._deps, held)
            except LostRace as lost:
                await settle(self._deps, lost, attempt)
            else:
                return api_pb2.DeleteProjectResponse()
        raise worn_out(f"project {request.name}")


def _refuse_used(view: View, name: str) -> None:
    """Conflict unless nothing is in it: also deleted VEs could come back into it."""
    if name == DEFAULT_PROJECT:
        raise Conflict(f"project {name} stays", hint="delete what is in it instead")
    if view.quarantined:
        raise Conflict(
            f"{len(view.quarantined)} values can't be read by this version, and may be of project {name}",
            hint="update this controller",
        )
    kept = sum(held.value.ve.project == name for held in view.deleted.values())
    counts = {
        "VEs": sum(project == name for project, _ in view.names),
        "deleted VEs that are kept": kept,
        "groups": sum(project == name for project, _ in view.groups),
    }
    has = [f"{count} {what}" for what, count in counts.items() if count]
    if has:
        raise Conflict(
            f"project {name} has {' and '.join(has)}",
            hint=f"delete them first; purge deleted ones: `vectl list --deleted -p {name}`",
        )


async def _delete(deps: ApiDeps, held: Held[Project]) -> None:
    """LostRace when it changed meanwhile. To be called right after it was looked at."""
    key = keys.project(held.value.name)
    with deps.reserved.leaving(held.value.name):
        await deps.writer.commit(
            [Guard(key=key, mod_revision=held.mod_revision)], [Delete(key=key)], confirm=(key, "")
        )


def _checked(request: api_pb2.SetProjectRequest) -> dict[str, int]:
    """What is asked of each field that is named."""
    if not request.fields:
        raise InvalidInput("fields: nothing is to be set", hint="name what to set, e.g. --ves 10")
    known, asked = ProjectAmounts.__struct_fields__, codec.amounts_in(request.quota)
    for field in request.fields:
        if field not in known:
            raise InvalidInput(
                f"fields: a quota has no {field[:80]!r}", hint=f"it has {', '.join(known)}"
            )
        if getattr(asked, field) < 0:
            raise InvalidInput(f"quota.{field}: is below 0", hint="0 is without a limit")
    return {field: getattr(asked, field) for field in request.fields}


async def _set(deps: ApiDeps, held: Held[Project], quota: ProjectAmounts) -> Held[Project]:
    """LostRace when it changed meanwhile."""
    wanted = msgspec.structs.replace(held.value, quota=quota, op_id=deps.ids.new())
    key = keys.project(wanted.name)
    revision = await deps.writer.commit(
        [Guard(key=key, mod_revision=held.mod_revision)],
        [Put(key=key, value=values.encode_project(wanted))],
        confirm=(key, wanted.op_id),
    )
    return Held(value=wanted, mod_revision=revision, create_revision=held.create_revision)


async def _create(deps: ApiDeps, name: str) -> Held[Project]:
    """LostRace when there is one of that name."""
    project = Project(name=name, created_at=deps.clock.wall(), op_id=deps.ids.new())
    key = keys.project(name)
    revision = await deps.writer.commit(
        [Guard(key=key, mod_revision=0)],
        [Put(key=key, value=values.encode_project(project))],
        confirm=(key, project.op_id),
    )
    return Held(value=project, mod_revision=revision, create_revision=revision)


def _taken(name: str) -> Conflict:
    return Conflict(f"project {name} is there already", hint="use it, or choose another name")
