"""The service of projects."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

from veapi import validate
from veapi.errors import Conflict
from veapi.model import Project
from veapi.v1 import api_pb2, api_pb2_grpc, types_pb2
from vecontroller.api.describe import Describe
from vecontroller.api.ports import ApiDeps
from vecontroller.calls import Context
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.view import Held
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
