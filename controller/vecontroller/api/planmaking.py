"""Makes plans: what an apply would do to each VE of a manifest, and on which host. Nothing is written."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import msgspec

from veapi.errors import InvalidInput, NoHostFits, VerackError
from veapi.model import Uid
from veapi.v1 import api_pb2, plan_pb2
from vecontroller.api.apply import Applier
from vecontroller.api.imagined import asked_for, new_uid
from vecontroller.api.lookup import find_image
from vecontroller.api.ports import ApiDeps
from vecontroller.placement import Rules
from vecontroller.placement.model import PLANNED
from vecontroller.whatif import Change, Changes, Fate, World, simulate

VERSION = 1
VES_LIMIT = 10_000
CREATE, UNCHANGED, REFUSED = "create", "unchanged", "refused"
_RUNS = {"running": "start", "stopped": "stop", "frozen": "freeze"}
ACTIONS = (CREATE, "change", *_RUNS.values(), UNCHANGED)
"""Of what can be applied."""
_BREATH = 50


class PlanMaker:
    def __init__(self, deps: ApiDeps, applier: Applier) -> None:
        self._deps = deps
        self._applier = applier

    async def judged(self, asked: Sequence[api_pb2.ApplyVERequest]) -> list[plan_pb2.PlannedVE]:
        """What an apply of each would be, by itself: refused, or what it changes. New ones have no host yet."""
        if len(asked) > VES_LIMIT:
            raise InvalidInput(f"{len(asked)} VEs; at most {VES_LIMIT}", hint="plan in parts")
        found = []
        for number, message in enumerate(asked):
            found.append(await self._judged(message))
            if number % _BREATH == 0:
                await asyncio.sleep(0)
        return found

    async def _judged(self, message: api_pb2.ApplyVERequest) -> plan_pb2.PlannedVE:
        planned = plan_pb2.PlannedVE(
            project=message.ve.project, name=message.ve.name, apply=message
        )
        dry = api_pb2.ApplyVERequest(ve=message.ve, fields=message.fields, dry_run=True)
        try:
            answer = await self._applier.apply(dry)
        except VerackError as error:
            return refused(planned, error)
        planned.project = answer.ve.project
        planned.action = _action(answer)
        planned.host = answer.ve.placement.host
        planned.changes.extend(answer.changes)
        if planned.action == CREATE:
            image = find_image(self._deps.mirror.view, message.ve.spec.image)
            planned.image_digest = image.value.digest
        else:
            planned.uid, planned.resource_version = answer.ve.uid, answer.ve.resource_version
        return planned


def refused(planned: plan_pb2.PlannedVE, error: VerackError) -> plan_pb2.PlannedVE:
    planned.action, planned.exit_code = REFUSED, error.exit_code
    planned.message, planned.hint = error.message, error.hint
    return planned


def _action(answer: api_pb2.ApplyVEResponse) -> str:
    if answer.outcome == answer.OUTCOME_CREATED:
        return CREATE
    if answer.outcome == answer.OUTCOME_UNCHANGED:
        return UNCHANGED
    runs = (_RUNS.get(each.after, "") for each in answer.changes if each.field == "spec.run")
    return next(runs, "change")


def placed(world: World, ves: Sequence[plan_pb2.PlannedVE], rules: Rules) -> None:
    """Fills in where each goes, all together with who waits already; or why there is no room. Takes long."""
    for planned, fate in fates_of(world, ves, rules, lambda _: ""):
        if fate.refusal is None:
            planned.host, planned.message = fate.host, fate.message
            continue
        error = NoHostFits(fate.refusal.message, hint=fate.refusal.hint)
        if fate.change is Change.CHANGED:
            refused(planned, error)
            continue
        planned.message, planned.hint = f"no host fits: {error.message}", error.hint
        if fate.change is Change.NEW:
            planned.exit_code = error.exit_code


def fates_of(
    world: World,
    ves: Iterable[plan_pb2.PlannedVE],
    rules: Rules,
    pinned: Callable[[plan_pb2.PlannedVE], str],
) -> list[tuple[plan_pb2.PlannedVE, Fate]]:
    """Of those that look for a host or change. New ones may only have the host that `pinned` says, if any."""
    good = [each for each in ves if each.action != REFUSED]
    asked, _ = asked_for(world, [each.apply for each in good], rules)
    of = {Uid(each.uid) or new_uid(each.project, each.name): each for each in good}
    hosts = {uid: pinned(each) for uid, each in of.items() if each.action == CREATE}
    wanted = tuple(
        msgspec.structs.replace(each, host=host, host_why=PLANNED)
        if (host := hosts.get(each.uid, ""))
        else each
        for each in asked
    )
    outcome = simulate(world, Changes(apply=wanted))
    return [(of[fate.uid], fate) for fate in outcome.fates if fate.uid in of]
