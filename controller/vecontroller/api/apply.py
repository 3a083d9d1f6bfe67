"""Apply: makes a VE as its manifest says. What the manifest leaves out is a default on create and stays as it is on change.

Labels are one thing: a manifest that has some replaces all of them, one that has none leaves them. Image, address and host
can't be changed of a VE that exists.
"""

import msgspec

from veapi import validate
from veapi.errors import Conflict
from veapi.model import VE
from veapi.v1 import api_pb2, types_pb2
from vecontroller.api import specs
from vecontroller.api.change import refuse_deleting
from vecontroller.api.commits import edit
from vecontroller.api.create import Creator, wanted
from vecontroller.api.describe import Describe
from vecontroller.api.lookup import find_image, find_ve, project_of
from vecontroller.api.ports import ApiDeps
from vecontroller.view import Held, View

Outcome = api_pb2.ApplyVEResponse


class Applier:
    def __init__(self, deps: ApiDeps, creator: Creator, describe: Describe) -> None:
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
        before, after = held.value, changed(self._deps.mirror.view, held.value, request.ve)
        if request.dry_run:
            now = Held(
                value=after, mod_revision=held.mod_revision, create_revision=held.create_revision
            )
            return self._response(before, now, written=after != before)

        def change(ve: VE) -> VE:
            nonlocal before
            before = ve
            return changed(self._deps.mirror.view, ve, request.ve)

        now, written = await edit(self._deps, ref, change)
        return self._response(before, now, written=written)

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


def changed(view: View, ve: VE, message: types_pb2.VE) -> VE:
    """The VE as the manifest wants it, one generation on if that differs. Conflict names what can't be changed."""
    refuse_deleting(ve)
    _refuse_fixed(view, ve, message.spec)
    labels = validate.labels("labels", message.labels) or dict(ve.labels)
    spec = msgspec.structs.replace(
        specs.merged(message.spec, ve.spec), image=ve.spec.image, ip=ve.spec.ip, host=ve.spec.host
    )
    if spec == ve.spec and labels == ve.labels:
        return ve
    return msgspec.structs.replace(ve, labels=labels, spec=spec, generation=ve.generation + 1)


def _refuse_fixed(view: View, ve: VE, asked: types_pb2.VESpec) -> None:
    if asked.image and asked.image != ve.spec.image:
        validate.image_ref("spec.image", asked.image)
        if find_image(view, asked.image).value.digest != ve.image_digest:
            raise _fixed(ve, "spec.image", ve.spec.image, asked.image)
    if asked.ip and validate.ipv4("spec.ip", asked.ip) != ve.ip:
        raise _fixed(ve, "spec.ip", ve.ip, asked.ip)
    if asked.host and validate.name("spec.host", asked.host) != ve.spec.host:
        raise _fixed(ve, "spec.host", ve.spec.host or "any", asked.host)


def _fixed(ve: VE, field: str, has: str, asked: str) -> Conflict:
    return Conflict(
        f"{field} of VE {ve.name} can't be changed: it is {has}, not {asked}",
        hint="leave the field out or as it is, or delete the VE and create it again",
    )
