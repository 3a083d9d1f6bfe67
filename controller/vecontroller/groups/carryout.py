"""Carries the steps of a group out, by the same code as users' requests: guarded by the group that they were decided from.

Each looks at the group again just before it writes: what is not asked any more is left. So a step may be begun twice, by
this leader or by the next, and is done once.
"""

from collections.abc import Callable

import msgspec

from veapi.errors import Conflict
from veapi.model import VE, Group, Revision
from veapi.v1 import api_pb2
from vecontroller.api import deletion
from vecontroller.api.commits import Edit, edit
from vecontroller.api.create import Creator, Membership, Wanted
from vecontroller.api.inflight import InFlight
from vecontroller.api.ports import ApiDeps
from vecontroller.api.setspec import edited
from vecontroller.groups.changing import image_for, with_revision
from vecontroller.groups.member import Key, name_of
from vecontroller.groups.steps import Change, Forget, Make, Release, Remove, Step
from vecontroller.store import keys
from vecontroller.store.port import Delete, Guard
from vecontroller.view import Held


class CarryOut:
    """`creator` and `in_flight`: those of the API, so that neither takes what the other is about to."""

    def __init__(self, deps: ApiDeps, in_flight: InFlight, creator: Creator) -> None:
        self._deps = deps
        self._in_flight = in_flight
        self._creator = creator

    async def do(self, key: Key, step: Step) -> None:
        """Raises veapi.errors: what is in the way; Conflict also when somebody was faster."""
        match step:
            case Make():
                await self._creator.create_as(lambda: self._wanted(key, step))
            case Change():
                await self._edit(key, step, lambda ve: self._changed(key, step, ve))
            case Remove():
                await self._remove(key, step)
            case Release():
                await self._edit(key, step, lambda ve: Edit(_free(ve)))
            case Forget():
                await self._forget(key)

    def _group(self, key: Key) -> Held[Group]:
        held = self._deps.mirror.view.groups.get(key)
        if held is None:
            raise Conflict(f"group {key[1]} is gone")
        return held

    def _revision(self, key: Key, number: int) -> Revision:
        """As it is asked for now. Conflict: it is not any more."""
        group = self._group(key).value
        found = [each for each in group.revisions if each.number == number]
        if not found or group.delete_requested_at is not None:
            raise Conflict(f"group {key[1]} has no use for revision {number} any more")
        return found[0]

    def _guard(self, key: Key) -> Guard:
        """Of one that is gone: that it stays so."""
        held = self._deps.mirror.view.groups.get(key)
        revision = held.mod_revision if held is not None else 0
        return Guard(key=keys.group(*key), mod_revision=revision)

    def _wanted(self, key: Key, step: Make) -> Wanted:
        revision, group = self._revision(key, step.revision), self._group(key).value
        if step.ordinal >= group.replicas:
            raise Conflict(f"group {key[1]} is smaller by now")
        return Wanted(
            project=key[0],
            name=name_of(key[1], step.ordinal),
            labels=revision.template.labels,
            spec=revision.template.spec,
            request_id=f"group:{group.uid}:{step.ordinal}",
            member=Membership(
                group=key[1],
                revision=revision.number,
                image_digest=revision.image_digest,
                guard=self._guard(key),
            ),
        )

    def _changed(self, key: Key, step: Change, ve: VE) -> VE | Edit:
        revision = self._revision(key, step.revision)
        if ve.delete_requested_at is not None or ve.group != key[1]:
            return ve
        after = with_revision(self._deps.mirror.view, ve, revision)
        made = edited(self._deps, self._in_flight, ve, after)
        return self._rooted(revision, ve, made)

    def _rooted(self, revision: Revision, before: VE, made: Edit) -> Edit:
        """What its new root is made of must stay until that is written."""
        if made.ve.root == before.root:
            return made
        image = image_for(self._deps.mirror.view, revision)
        guard = Guard(key=keys.image(image.value.digest), mod_revision=image.mod_revision)
        holds = (*made.holds, self._in_flight.holding("", image.value.digest))
        return Edit(made.ve, (*made.guards, guard), made.writes, holds)

    async def _edit(
        self, key: Key, step: Change | Release, change: Callable[[VE], VE | Edit]
    ) -> None:
        def guarded(ve: VE) -> VE | Edit:
            wanted = change(ve)
            made = wanted if isinstance(wanted, Edit) else Edit(wanted)
            return Edit(made.ve, (*made.guards, self._guard(key)), made.writes, made.holds)

        await edit(self._deps, api_pb2.VERef(uid=step.uid), guarded)

    async def _remove(self, key: Key, step: Remove) -> None:
        """Kept for a time, as all that is deleted, unless the group goes with all that it had."""
        group = self._group(key).value
        if group.delete_requested_at is None and step.ordinal < group.replicas:
            raise Conflict(f"group {key[1]} is larger by now")
        request = api_pb2.DeleteVERequest(ve=api_pb2.VERef(uid=step.uid), purge=group.purge)
        await deletion.delete(self._deps, self._in_flight, request, guards=[self._guard(key)])

    async def _forget(self, key: Key) -> None:
        """Lost when a VE of it appears meanwhile: making one is guarded by the group."""
        status = self._deps.mirror.view.group_statuses.get(key)
        status_key = keys.group_status(*key)
        status_revision = status.mod_revision if status is not None else 0
        await self._deps.writer.commit(
            [self._guard(key), Guard(key=status_key, mod_revision=status_revision)],
            [Delete(key=keys.group(*key)), Delete(key=status_key)],
            confirm=(keys.group(*key), ""),
        )


def _free(ve: VE) -> VE:
    return msgspec.structs.replace(ve, group="", group_revision=0, request_id="")
