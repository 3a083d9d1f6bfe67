"""Apply: makes a VE as its manifest says. What the manifest leaves out is a default on create and stays as it is on change.

Labels are one thing: a manifest that has some replaces all of them, one that has none leaves them. Image, address and host
can't be changed of a VE that exists.
"""

import msgspec

from veapi import validate
from veapi.errors import Conflict
from veapi.model import VE, Run
from veapi.v1 import api_pb2, types_pb2
from vecontroller.api import specs
from vecontroller.api.change import refuse_deleting, refuse_member, running_again
from vecontroller.api.commits import Edit, edit
from vecontroller.api.create import Creator, wanted
from vecontroller.api.describe import Describe
from vecontroller.api.inflight import InFlight
from vecontroller.api.lookup import find_image, find_ve, project_of
from vecontroller.api.ports import ApiDeps
from vecontroller.api.setspec import edited, refuse_restart
from vecontroller.view import Held, View

Outcome = api_pb2.ApplyVEResponse


class Applier:
    def __init__(
        self, deps: ApiDeps, creator: Creator, describe: Describe, in_flight: InFlight
    ) -> None:
        self._in_flight = in_flight
        self._deps = deps
        self._creator = creator
        self._describe = describe

    async def apply(self, request: api_pb2.ApplyVERequest) -> api_pb2.ApplyVEResponse:
        """A create that loses to another one becomes a change."""
        asked = wanted_ref(request.ve)
        if self._exists(asked):
            return await self._change(request, asked)
        if asked.uid or asked.resource_version:
            find_ve(self._deps.mirror.view, asked)  # raises: it was deleted
        try:
            return await self._create(request)
        except Conflict:
            if not self._exists(asked):
                raise
        return await self._change(request, asked)

    def _exists(self, ref: api_pb2.VERef) -> bool:
        return (ref.project, ref.name) in self._deps.mirror.view.names

    async def _create(self, request: api_pb2.ApplyVERequest) -> api_pb2.ApplyVEResponse:
        asked = wanted(request.ve, request.request_id)
        if request.dry_run:
            proposal = self._creator.proposal(asked)
            ve = self._describe.ve(Held(value=proposal, mod_revision=0, create_revision=0))
        else:
            ve = self._describe.ve(await self._creator.create(asked), events=True)
        return api_pb2.ApplyVEResponse(
            outcome=Outcome.OUTCOME_CREATED,
            ve=ve,
            changes=specs.changes(None, asked.spec, {}, dict(asked.labels)),
        )

    async def _change(
        self, request: api_pb2.ApplyVERequest, ref: api_pb2.VERef
    ) -> api_pb2.ApplyVEResponse:
        held = find_ve(self._deps.mirror.view, ref)
        before, after = held.value, self._changed(held.value, request).ve
        if request.dry_run:
            now = Held(
                value=after, mod_revision=held.mod_revision, create_revision=held.create_revision
            )
            return self._response(before, now, written=after != before)

        def change(ve: VE) -> Edit:
            nonlocal before
            before = ve
            return self._changed(ve, request)

        now, written = await edit(self._deps, ref, change)
        return self._response(before, now, written=written)

    def _changed(self, ve: VE, request: api_pb2.ApplyVERequest) -> Edit:
        """Refused here and not by the host: what needs a restart, and what its host has no room for."""
        after = changed(self._deps.mirror.view, ve, request)
        how = f"`vectl set {ve.name} ... --restart`"
        refuse_restart(self._deps, ve, after, how=how)
        return edited(self._deps, self._in_flight, ve, after)

    def _response(self, before: VE, now: Held[VE], *, written: bool) -> api_pb2.ApplyVEResponse:
        after = now.value
        return api_pb2.ApplyVEResponse(
            outcome=Outcome.OUTCOME_CHANGED if written else Outcome.OUTCOME_UNCHANGED,
            ve=self._describe.ve(now, events=True),
            changes=specs.changes(before.spec, after.spec, dict(before.labels), dict(after.labels)),
        )


def wanted_ref(message: types_pb2.VE) -> api_pb2.VERef:
    return api_pb2.VERef(
        project=project_of(message.project),
        name=validate.name("name", message.name),
        uid=message.uid,
        resource_version=message.resource_version,
    )


def changed(view: View, ve: VE, request: api_pb2.ApplyVERequest) -> VE:
    """The VE as the manifest wants it, one generation on if that differs. Conflict names what can't be changed."""
    refuse_deleting(ve)
    message = request.ve
    _refuse_fixed(view, ve, message.spec)
    labels = validate.labels("labels", message.labels) or dict(ve.labels)
    spec = msgspec.structs.replace(
        specs.merged(message.spec, ve.spec, fields=request.fields),
        image=ve.spec.image,
        ip=ve.spec.ip,
        host=ve.spec.host,
    )
    if spec == ve.spec and labels == ve.labels:
        return ve
    refuse_member(ve)
    after = msgspec.structs.replace(ve, labels=labels, spec=spec, generation=ve.generation + 1)
    wakes = spec.run is not ve.spec.run and spec.run is not Run.STOPPED
    return running_again(view, after) if wakes else after


def _refuse_fixed(view: View, ve: VE, asked: types_pb2.VESpec) -> None:
    if asked.image and asked.image != ve.spec.image:
        validate.image_ref("spec.image", asked.image)
        if find_image(view, asked.image).value.digest != ve.image_digest:
            how = f"give it a new root by `vectl rebuild {ve.name} --image {asked.image}`"
            raise _fixed(ve, "spec.image", ve.spec.image, asked.image, how)
    if asked.ip and validate.ipv4("spec.ip", asked.ip) != ve.ip:
        how = f"change it by `vectl set {ve.name} --ip {asked.ip} --restart`"
        raise _fixed(ve, "spec.ip", ve.ip, asked.ip, how)
    if asked.host and validate.name("spec.host", asked.host) != ve.spec.host:
        how = "delete the VE and create it again"
        raise _fixed(ve, "spec.host", ve.spec.host or "any", asked.host, how)


def _fixed(ve: VE, field: str, has: str, asked: str, how: str) -> Conflict:
    return Conflict(
        f"{field} of VE {ve.name} can't be changed: it is {has}, not {asked}",
        hint=f"leave the field out or as it is, or {how}",
    )
