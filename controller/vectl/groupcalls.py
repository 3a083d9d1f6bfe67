"""What the client asks of groups."""

from collections.abc import AsyncIterator

import grpc.aio

from veapi.errors import Unavailable
from veapi.v1 import group_pb2, group_pb2_grpc
from vectl import wire
from vectl.client import Client, new_request_id
from vectl.verbs import spec_message
from vectl.wanted import WantedGroup

LOST_TRIES = 60


class Groups:
    """One call each, over the client's connection. All raise veapi.errors."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._context = client.context
        self._stub = group_pb2_grpc.GroupServiceStub(client.channel)

    def ref(self, name: str, project: str = "") -> group_pb2.GroupRef:
        return group_pb2.GroupRef(project=project or self._context.project, name=name)

    async def get(self, name: str) -> group_pb2.Group:
        """NotFound when there is none."""
        return await wire.unary(self._stub.Get, self.ref(name), context=self._context)

    async def list(self, *, all_projects: bool = False) -> list[group_pb2.Group]:
        request = group_pb2.ListGroupsRequest(
            project=self._context.project, all_projects=all_projects
        )
        answer = await wire.unary(self._stub.List, request, context=self._context)
        return list(answer.groups)

    async def apply(
        self, wanted: WantedGroup, *, dry_run: bool = False
    ) -> group_pb2.ApplyGroupResponse:
        """Makes the group as it is given, or only says what would change."""
        request = group_pb2.ApplyGroupRequest(
            group=message(wanted, self._context.project),
            dry_run=dry_run,
            request_id=new_request_id(),
        )
        return await wire.unary(self._stub.Apply, request, context=self._context)

    async def scale(self, name: str, replicas: int) -> group_pb2.Group:
        request = group_pb2.ScaleGroupRequest(group=self.ref(name), replicas=replicas)
        return await wire.unary(self._stub.Scale, request, context=self._context)

    async def pause(self, name: str) -> group_pb2.Group:
        return await wire.unary(self._stub.Pause, self.ref(name), context=self._context)

    async def resume(self, name: str) -> group_pb2.Group:
        return await wire.unary(self._stub.Resume, self.ref(name), context=self._context)

    async def undo(self, name: str, revision: int) -> group_pb2.Group:
        """`revision` 0: the one before the newest."""
        request = group_pb2.UndoGroupRequest(group=self.ref(name), revision=revision)
        return await wire.unary(self._stub.Undo, request, context=self._context)

    async def delete(
        self, name: str, *, project: str = "", keep_ves: bool = False, purge: bool = False
    ) -> group_pb2.Group:
        request = group_pb2.DeleteGroupRequest(
            group=self.ref(name, project), keep_ves=keep_ves, purge=purge
        )
        return await wire.unary(self._stub.Delete, request, context=self._context)

    async def watch(self, name: str, project: str = "") -> AsyncIterator[group_pb2.GroupChange]:
        """The group as it is, then each time it changes; also over the loss of a controller. Ends when it is gone."""
        for _ in range(LOST_TRIES):
            try:
                async for change in self._stub.Watch(self.ref(name, project)):
                    yield change
                    if change.gone:
                        return
            except grpc.aio.AioRpcError as error:
                meant = wire.failure(error, self._context)
                if not isinstance(meant, Unavailable):
                    raise meant from None
            await self._client.ready()
        raise Unavailable(
            f"the controller at {self._context.endpoint} ends every watch", hint="look at its log"
        )


def message(wanted: WantedGroup, project: str) -> group_pb2.Group:
    """What is None stays unset."""
    return group_pb2.Group(
        name=wanted.name,
        project=wanted.project or project,
        labels=dict(wanted.labels),
        spec=group_pb2.GroupSpec(
            replicas=wanted.replicas,
            template=group_pb2.GroupTemplate(
                labels=dict(wanted.template.labels),
                spec=spec_message(wanted.template.spec()),
            ),
            max_unavailable=wanted.max_unavailable,
            min_ready=wanted.min_ready_s,
            progress_deadline=wanted.progress_deadline_s,
            paused=wanted.paused,
        ),
    )
