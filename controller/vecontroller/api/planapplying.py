"""Applies plans: checks all of one first, then does it in its order, each step guarded by what the plan was made from.

What was checked is checked again by the write itself where the store can: names and the revisions of VEs by guards, the image
just before. Room is checked with all of the plan together; who takes it between the check and the scheduler's next decision
leaves a new VE waiting for the host that the plan chose: it goes nowhere else.
"""

from collections.abc import Sequence

import msgspec

from veapi.errors import Conflict, InvalidInput
from veapi.v1 import api_pb2, plan_pb2
from vecontroller.api.apply import Applier
from vecontroller.api.create import Creator, Wanted, wanted
from vecontroller.api.describe import Describe
from vecontroller.api.planmaking import (
    ACTIONS,
    CREATE,
    VERSION,
    VES_LIMIT,
    fates_of,
)
from vecontroller.api.ports import ApiDeps
from vecontroller.placement import Rules
from vecontroller.view import View
from vecontroller.whatif import World

_TOLD = 5
_AGAIN = "make a new plan: `vectl plan -f FILE --out FILE`; nothing was done"


def whole(plan: plan_pb2.Plan, cluster: str) -> None:
    """InvalidInput: it is no plan that can be applied here."""
    hint = "give a file that `vectl plan --out FILE` wrote for this cluster"
    if plan.version != VERSION or plan.cluster != cluster:
        raise InvalidInput(
            f"plan: it is of version {plan.version} and cluster {plan.cluster[:80]!r},"
            f" this is {VERSION} and {cluster!r}",
            hint=hint,
        )
    if len(plan.ves) > VES_LIMIT:
        raise InvalidInput(f"plan: {len(plan.ves)} VEs; at most {VES_LIMIT}", hint="plan in parts")
    for each in plan.ves:
        if each.action not in ACTIONS or (each.action == CREATE and not each.host):
            raise InvalidInput(
                f"plan: {each.name[:80]} is refused in it, or fits nowhere",
                hint="change the manifest or make room, and plan again",
            )
        if each.name != each.apply.ve.name:
            raise InvalidInput(f"plan: {each.name[:80]} is not what it asks for", hint=hint)


def refuse_if_moved_on(view: View, ves: Sequence[plan_pb2.PlannedVE]) -> None:
    """Conflict, with what is not as the plan knows it."""
    _refuse([said for each in ves if (said := _moved(view, each))])


def refuse_without_room(world: World, ves: Sequence[plan_pb2.PlannedVE], rules: Rules) -> None:
    """Conflict when one would not go where the plan says. Takes long."""
    _refuse(
        [
            f"{planned.name} does not fit on {planned.host} any more: "
            f"{fate.refusal.message if fate.refusal is not None else f'it would go to {fate.host}'}"
            for planned, fate in fates_of(world, ves, rules, lambda each: each.host)
            if fate.host != planned.host
        ]
    )


def _refuse(moved: Sequence[str]) -> None:
    if moved:
        more = f"; and {len(moved) - _TOLD} more" if len(moved) > _TOLD else ""
        raise Conflict(
            f"the cluster has moved on since the plan was made: {'; '.join(moved[:_TOLD])}{more}",
            hint=_AGAIN,
        )


def _moved(view: View, planned: plan_pb2.PlannedVE) -> str:
    held_uid = view.names.get((planned.project, planned.name))
    if planned.action == CREATE:
        if held_uid is not None:
            return f"{planned.name} is there by now"
        return "" if _image_is(view, planned) else _other_image(planned)
    held = view.ves.get(held_uid.value) if held_uid is not None else None
    if held is None or held.value.uid != planned.uid:
        return f"{planned.name} is gone"
    if held.mod_revision != planned.resource_version:
        return f"{planned.name} was changed"
    placement = view.placements.get(held.value.uid)
    if placement is not None and planned.host not in ("", placement.value.host):
        return f"{planned.name} is on {placement.value.host} by now"
    return ""


def _image_is(view: View, planned: plan_pb2.PlannedVE) -> bool:
    ref = planned.apply.ve.spec.image
    tag = view.tags.get(ref)
    return (tag.value if tag is not None else ref) == planned.image_digest


def _other_image(planned: plan_pb2.PlannedVE) -> str:
    return f"image {planned.apply.ve.spec.image} of {planned.name} is another one, or gone"


class PlanApplier:
    def __init__(
        self, deps: ApiDeps, applier: Applier, creator: Creator, describe: Describe
    ) -> None:
        self._deps = deps
        self._applier = applier
        self._creator = creator
        self._describe = describe

    async def carry_out(self, planned: plan_pb2.PlannedVE) -> api_pb2.ApplyVEResponse:
        """One VE of a plan that was checked. Conflict: it is not as the plan knows it after all."""
        if planned.action == CREATE:
            return await self._create(planned)
        message = api_pb2.ApplyVERequest(ve=planned.apply.ve, fields=planned.apply.fields)
        message.ve.uid, message.ve.resource_version = planned.uid, planned.resource_version
        return await self._applier.apply(message)

    async def _create(self, planned: plan_pb2.PlannedVE) -> api_pb2.ApplyVEResponse:
        asked = msgspec.structs.replace(
            wanted(planned.apply.ve, planned.apply.request_id), planned_host=planned.host
        )

        def make() -> Wanted:
            if not _image_is(self._deps.mirror.view, planned):
                raise Conflict(_other_image(planned), hint=_AGAIN)
            return asked

        held = await self._creator.create_as(make)
        return api_pb2.ApplyVEResponse(
            outcome=api_pb2.ApplyVEResponse.OUTCOME_CREATED,
            ve=self._describe.ve(held, events=True),
            changes=planned.changes,
        )
