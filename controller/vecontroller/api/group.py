"""The service of groups: writes what is asked of them; their keeper (`vecontroller.groups`) makes it so."""
# ruff: noqa: N802, ARG002 - names of RPCs; their signatures are gRPC's

from collections.abc import AsyncIterator, Callable

import msgspec

from veapi import validate
from veapi.errors import Conflict, NotFound
from veapi.model import VE, Digest, Group, Template, Uid
from veapi.v1 import api_pb2, group_pb2, group_pb2_grpc
from vecontroller import quota
from vecontroller.api import groupspec
from vecontroller.api.commits import ATTEMPTS, encoded, settle, worn_out
from vecontroller.api.create import REQUEST_ID_LIMIT
from vecontroller.api.groupview import GroupView
from vecontroller.api.lookup import find_image, find_project, project_of, suggestion
from vecontroller.api.ports import ApiDeps
from vecontroller.calls import Context
from vecontroller.groups.keeper import Keeper
from vecontroller.groups.member import Key, name_of
from vecontroller.groups.steps import stopped
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.view import Changed, Held
from vecontroller.writer import LostRace

PACE_S = 0.05
"""After what a watch sent: what changes meanwhile is sent as one."""
Outcome = api_pb2.ApplyVEResponse


class GroupService(group_pb2_grpc.GroupServiceServicer):
    def __init__(self, deps: ApiDeps, keeper: Keeper) -> None:
        self._deps = deps
        self._keeper = keeper
        self._shown = GroupView(keeper).message

    async def Get(self, request: group_pb2.GroupRef, context: Context) -> group_pb2.Group:
        return self._shown(self._find(_key(request)), events=True)

    async def List(
        self, request: group_pb2.ListGroupsRequest, context: Context
    ) -> group_pb2.ListGroupsResponse:
        project = "" if request.all_projects else project_of(request.project)
        if project:
            find_project(self._deps.mirror.view, project)
        groups = sorted(self._deps.mirror.view.groups.items())
        found = [held for key, held in groups if project in ("", key[0])]
        return group_pb2.ListGroupsResponse(groups=[self._shown(held) for held in found])

    async def Watch(
        self, request: group_pb2.GroupRef, context: Context
    ) -> AsyncIterator[group_pb2.GroupChange]:
        """For as long as it is there."""
        key, sent = _key(request), group_pb2.Group()
        with self._deps.topic.subscribe() as changes:
            uid = self._find(key).value.uid
            while True:
                held = self._deps.mirror.view.groups.get(key)
                if held is None or held.value.uid != uid:
                    yield group_pb2.GroupChange(group=sent, gone=True)
                    return
                message = self._shown(held, events=True)
                if message != sent:
                    sent = message
                    yield group_pb2.GroupChange(group=message)
                while not self._concerns(key, await changes.next()):
                    pass
                await self._deps.clock.sleep(PACE_S)

    async def Apply(
        self, request: group_pb2.ApplyGroupRequest, context: Context
    ) -> group_pb2.ApplyGroupResponse:
        """One that loses to another becomes a change of what that made."""
        key = _named(request.group)
        for attempt in range(1, ATTEMPTS + 1):
            held = self._deps.mirror.view.groups.get(key)
            before = held.value if held is not None else None
            after = self._asked(key, request, before)
            try:
                if not request.dry_run and after != before:
                    held = await self._write(held, after)
            except LostRace as lost:
                await settle(self._deps, lost, attempt)
                continue
            now = Held(after, 0, 0) if held is None or request.dry_run else held
            return self._applied(before, now)
        raise worn_out(f"group {key[1]}")

    async def Scale(
        self, request: group_pb2.ScaleGroupRequest, context: Context
    ) -> group_pb2.Group:
        def change(group: Group) -> Group:
            number = groupspec.replicas(group.name, request.replicas)
            return msgspec.structs.replace(group, replicas=number)

        return await self._change(request.group, change)

    async def Pause(self, request: group_pb2.GroupRef, context: Context) -> group_pb2.Group:
        return await self._change(
            request, lambda group: msgspec.structs.replace(group, paused=True)
        )

    async def Resume(self, request: group_pb2.GroupRef, context: Context) -> group_pb2.Group:
        def change(group: Group) -> Group:
            given_up = stopped(group, self._keeper.status(group))
            tries = group.tries + 1 if given_up else group.tries
            return msgspec.structs.replace(group, paused=False, tries=tries)

        return await self._change(request, change)

    async def Undo(self, request: group_pb2.UndoGroupRequest, context: Context) -> group_pb2.Group:
        now = self._deps.clock.wall()
        return await self._change(
            request.group, lambda group: groupspec.undone(group, request.revision, now)
        )

    async def Delete(
        self, request: group_pb2.DeleteGroupRequest, context: Context
    ) -> group_pb2.Group:
        def change(group: Group) -> Group:
            at = group.delete_requested_at or self._deps.clock.wall()
            return msgspec.structs.replace(
                group,
                delete_requested_at=at,
                keep_ves=request.keep_ves,
                purge=request.purge and not request.keep_ves,
            )

        return await self._change(request.group, change, leaving=True)

    def _concerns(self, key: Key, changed: Changed) -> bool:
        """Refusals of the scheduler are told of VEs alone."""
        members = self._deps.mirror.view.members.get(key, frozenset[Uid]())
        told = changed.relisted or bool(changed.hosts) or key in changed.groups
        return told or not changed.ves.isdisjoint(members)

    def _find(self, key: Key) -> Held[Group]:
        view = self._deps.mirror.view
        held = view.groups.get(key)
        if held is None:
            names = [name for project, name in view.groups if project == key[0]]
            raise NotFound(
                f"no group {key[1]} in project {key[0]}",
                hint=suggestion(key[1], names) or "see `vectl group list`, and --project",
            )
        return held

    async def _change(
        self, ref: group_pb2.GroupRef, change: Callable[[Group], Group], *, leaving: bool = False
    ) -> group_pb2.Group:
        """As `change` makes it of what it is; idempotent. Conflict: it is being deleted, unless that is what is asked."""
        key = _key(ref)
        for attempt in range(1, ATTEMPTS + 1):
            held = self._find(key)
            if not leaving:
                _refuse_leaving(held.value)
            after = change(held.value)
            if after == held.value:
                return self._shown(held, events=True)
            after = msgspec.structs.replace(after, generation=held.value.generation + 1)
            try:
                return self._shown(await self._write(held, after), events=True)
            except LostRace as lost:
                await settle(self._deps, lost, attempt)
        raise worn_out(f"group {key[1]}")

    def _asked(self, key: Key, request: group_pb2.ApplyGroupRequest, before: Group | None) -> Group:
        """One generation on, if anything differs. Raises what is wrong with the request."""
        find_project(self._deps.mirror.view, key[0])
        new = groupspec.template(request.group.spec.template)
        _refuse_large(key, new)
        now = self._deps.clock.wall()
        if before is None:
            base = self._fresh(key, request, now)
            return groupspec.with_template(
                groupspec.merged(base, request.group),
                new,
                self._digest(new.spec.image),
                now,
                "apply",
            )
        _refuse_leaving(before)
        after = groupspec.merged(before, request.group)
        if before.current.template != new:
            after = groupspec.with_template(after, new, self._digest(new.spec.image), now, "apply")
        if after == before:
            return before
        return msgspec.structs.replace(after, generation=before.generation + 1)

    def _fresh(self, key: Key, request: group_pb2.ApplyGroupRequest, now: float) -> Group:
        request_id = validate.at_most("request_id", request.request_id, REQUEST_ID_LIMIT)
        return Group(
            uid=self._deps.ids.new(),
            project=key[0],
            name=key[1],
            labels={},
            generation=1,
            replicas=groupspec.replicas(key[1], 1),
            revisions=(),
            created_at=now,
            request_id=request_id,
        )

    def _digest(self, image: str) -> Digest:
        return find_image(self._deps.mirror.view, image).value.digest

    async def _write(self, held: Held[Group] | None, wanted: Group) -> Held[Group]:
        """LostRace: it is not as it was held any more."""
        group = msgspec.structs.replace(wanted, op_id=self._deps.ids.new())
        key = keys.group(group.project, group.name)
        project = self._deps.mirror.view.projects[group.project]
        guards = [
            Guard(key=key, mod_revision=held.mod_revision if held is not None else 0),
            Guard(key=keys.project(group.project), mod_revision=project.mod_revision),
        ]
        with self._deps.reserved.asking(group.project, quota.NOTHING):  # the project stays
            revision = await self._deps.writer.commit(
                guards,
                [Put(key=key, value=values.encode_group(group))],
                confirm=(key, group.op_id),
            )
        return Held(group, revision, held.create_revision if held is not None else revision)

    def _applied(self, before: Group | None, now: Held[Group]) -> group_pb2.ApplyGroupResponse:
        found = groupspec.changes(before, now.value)
        outcome = Outcome.OUTCOME_CHANGED if found else Outcome.OUTCOME_UNCHANGED
        return group_pb2.ApplyGroupResponse(
            outcome=Outcome.OUTCOME_CREATED if before is None else outcome,
            group=self._shown(now, events=True),
            changes=found,
        )


def _key(ref: group_pb2.GroupRef) -> Key:
    return project_of(ref.project), validate.name("group", ref.name)


def _named(group: group_pb2.Group) -> Key:
    return project_of(group.project), validate.name("name", group.name)


def _refuse_large(key: Key, template: Template) -> None:
    """InvalidInput when no VE of it could be written."""
    probe = VE(
        uid=Uid("0" * 36),
        name=name_of(key[1], validate.MAX_REPLICAS),
        project=key[0],
        labels=template.labels,
        generation=1,
        spec=template.spec,
        created_at=1.0,
        group=key[1],
    )
    encoded(probe)


def _refuse_leaving(group: Group) -> None:
    if group.delete_requested_at is not None:
        raise Conflict(
            f"group {group.name} is being deleted", hint="wait until it is gone: `vectl group list`"
        )
