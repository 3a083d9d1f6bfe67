"""The pure parts of scheduling: who wants a host, and what a decision looks like in the store."""

from collections.abc import Mapping

import msgspec

from veapi.model import VE, Placement, Resources, Uid, Value
from vecontroller.placement import Assignment, Refusal
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put
from vecontroller.view import Held, View


class Decided(Value, frozen=True, kw_only=True):
    """A host chosen for a VE, not yet seen in the view. `waited`: why it had none until now."""

    assignment: Assignment
    spec_revision: int
    resources: Resources
    waited: Refusal | None = None


def wanting(view: View) -> dict[Uid, Held[VE]]:
    """VEs that have no host and shall have one."""
    unplaced = {uid: view.ves[uid] for uid in view.ves.keys() - view.placements.keys()}
    return {uid: held for uid, held in unplaced.items() if held.value.delete_requested_at is None}


def without_unreadable(
    view: View, wanting: Mapping[Uid, Held[VE]]
) -> tuple[list[Refusal], dict[Uid, Held[VE]]]:
    """Those whose placement is there but can't be read are refused: it must not be rewritten."""
    bad = [uid for uid in wanting if keys.ve_placement(uid) in view.quarantined]
    refusals = [
        Refusal(
            uid=uid,
            reason="PlacementUnreadable",
            message="its placement in the store can't be read by this version",
            hint="run the version of the controller that wrote it",
        )
        for uid in bad
    ]
    return refusals, {uid: held for uid, held in wanting.items() if uid not in bad}


def decided(assignment: Assignment, held: Held[VE], waited: Refusal | None = None) -> Decided:
    return Decided(
        assignment=assignment,
        spec_revision=held.mod_revision,
        resources=held.value.spec.request,
        waited=waited,
    )


def dated(refusal: Refusal, before: Refusal | None, now: float) -> Refusal:
    """With the time at which it was first refused in these words."""
    if before is not None and msgspec.structs.replace(before, at=refusal.at) == refusal:
        return before
    return refusal if refusal.at else msgspec.structs.replace(refusal, at=now)


def guards(decided: Decided) -> tuple[Guard, Guard]:
    uid = decided.assignment.uid
    return (
        Guard(key=keys.ve_spec(uid), mod_revision=decided.spec_revision),
        Guard(key=keys.ve_placement(uid), mod_revision=0),
    )


def placement(decided: Decided, now: float, op_id: str) -> Put:
    assignment = decided.assignment
    waited = decided.waited
    placement = Placement(
        host=assignment.host,
        generation=1,
        decided_at=now,
        message=assignment.message,
        op_id=op_id,
        waited_since=waited.at if waited is not None else 0.0,
        waited_for=waited.message if waited is not None else "",
    )
    return Put(key=keys.ve_placement(assignment.uid), value=values.encode_placement(placement))
