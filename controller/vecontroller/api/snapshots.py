"""Snapshots of VEs: take, delete, restore. Each is a wish that the VE's host carries out; its report says what came of it."""

import msgspec

from veapi import validate
from veapi.errors import Conflict, NotFound
from veapi.model import VE, RootWish, SnapshotStatus, SnapshotWish
from veapi.v1 import api_pb2
from vecontroller.api.change import refuse_deleting, refuse_member
from vecontroller.api.commits import edit
from vecontroller.api.inflight import InFlight
from vecontroller.api.lookup import suggestion
from vecontroller.api.ports import ApiDeps
from vecontroller.api.rebuild import next_root_seq
from vecontroller.snapshotting import (
    ROOTED,
    SNAPSHOTS_LIMIT,
    answered,
    free_tag,
    image_of,
    image_ref,
    leaving,
    tag_for,
    taken,
    unmade_clones,
    with_wish,
)
from vecontroller.view import Held, View


async def take(deps: ApiDeps, request: api_pb2.SnapshotRef) -> Held[VE]:
    """Of the root as it is when the host takes it. Conflict: the tag is there, there are too many, or there is no root yet."""
    tag = validate.name("tag", request.tag) if request.tag else ""

    def change(ve: VE) -> VE:
        refuse_deleting(ve)
        _refuse_rootless(deps.mirror.view, ve)
        _refuse_more(ve)
        now = deps.clock.wall()
        if tag:
            _refuse_taken(ve, tag)
        return with_wish(deps.mirror.view, ve, tag or free_tag(ve, tag_for("snap", now)), now)

    held, _ = await edit(deps, request.ve, change)
    return held


async def delete(deps: ApiDeps, in_flight: InFlight, request: api_pb2.SnapshotRef) -> Held[VE]:
    """Has the host remove it; idempotent while it is on its way out. Conflict: a root is being made of it."""
    validate.name("tag", request.tag)

    def change(ve: VE) -> VE:
        view = deps.mirror.view
        wish = _find(view, ve, request.tag)
        _refuse_used(view, ve, request.tag)
        if in_flight.clones(ve.uid):
            raise Conflict(f"VE {ve.name} is being cloned", hint="try again in a moment")
        if all(each.seq != wish.seq for each in ve.snapshots):
            wishes = (*ve.snapshots, msgspec.structs.replace(wish, deleting=True))
            return msgspec.structs.replace(ve, snapshots=wishes)
        return leaving(ve, {wish.seq})

    held, _ = await edit(deps, request.ve, change)
    return held


async def restore(deps: ApiDeps, request: api_pb2.SnapshotRef) -> Held[VE]:
    """Each call makes the root anew. What runs is stopped for it and started again; what is stopped stays so.

    The VE is of the snapshot's image then, which may be another than it was rebuilt from since.
    """
    validate.name("tag", request.tag)

    def change(ve: VE) -> VE:
        refuse_deleting(ve)
        view = deps.mirror.view
        wish = _find(view, ve, request.tag)
        digest = image_of(_there(view, ve, wish), ve)
        image = image_ref(view, ve.spec.image, digest)
        if image != ve.spec.image:
            refuse_member(ve)
        return msgspec.structs.replace(
            ve,
            spec=msgspec.structs.replace(ve.spec, image=image),
            image_digest=digest,
            root=RootWish(seq=next_root_seq(view, ve), snapshot=request.tag),
            generation=ve.generation + 1,
        )

    held, _ = await edit(deps, request.ve, change)
    return held


def _find(view: View, ve: VE, tag: str) -> SnapshotWish:
    """By tag: the wish, or one made of what the host has without one. NotFound names near ones."""
    for wish in ve.snapshots:
        if wish.tag == tag:
            return wish
    for there in taken(view, ve):
        if there.tag == tag:
            return SnapshotWish(tag=tag, seq=there.seq, created_at=there.taken_at)
    tags = {wish.tag for wish in ve.snapshots} | {there.tag for there in taken(view, ve)}
    raise NotFound(
        f"VE {ve.name} has no snapshot {tag}",
        hint=suggestion(tag, sorted(tags)) or f"see `vectl snapshot list {ve.name}`",
    )


def _refuse_rootless(view: View, ve: VE) -> None:
    status = view.statuses.get(ve.uid)
    if ve.uid in view.placements and status is not None and status.value.state in ROOTED:
        return
    state = status.value.state.value if status is not None else "Pending"
    raise Conflict(
        f"VE {ve.name} is {state}: there is no root to take a snapshot of",
        hint=f"wait until it is made: `vectl wait {ve.name} --for state=Running`",
    )


def _refuse_more(ve: VE) -> None:
    if len(ve.snapshots) >= SNAPSHOTS_LIMIT:
        raise Conflict(
            f"VE {ve.name} has {len(ve.snapshots)} snapshots; at most {SNAPSHOTS_LIMIT}",
            hint=f"delete some: `vectl snapshot delete {ve.name} TAG`",
        )


def _refuse_taken(ve: VE, tag: str) -> None:
    wish = next((each for each in ve.snapshots if each.tag == tag), None)
    if wish is None:
        return
    why = "is being deleted" if wish.deleting else "is there already"
    raise Conflict(
        f"snapshot {tag} of VE {ve.name} {why}", hint="choose another tag, or delete it first"
    )


def _refuse_used(view: View, ve: VE, tag: str) -> None:
    """A root that is being made of it needs it until it is made."""
    status = view.statuses.get(ve.uid)
    made = status.value.observed_root_seq if status is not None else 0
    if ve.root.snapshot == tag and not ve.root.from_uid and made < ve.root.seq:
        raise Conflict(
            f"VE {ve.name} is being restored from snapshot {tag}",
            hint="wait until that is done, then delete it",
        )
    for clone in unmade_clones(view):
        root = clone.value.root
        if (root.from_uid, root.snapshot) == (ve.uid, tag):
            raise Conflict(
                f"VE {clone.value.name} is being made of snapshot {tag} of VE {ve.name}",
                hint="wait until it is made, or delete it; then delete the snapshot",
            )


def _there(view: View, ve: VE, wish: SnapshotWish) -> SnapshotStatus:
    """As its host has it. Conflict when it has not, or it is on its way out."""
    there = next((each for each in taken(view, ve) if each.seq == wish.seq), None)
    if there is not None and not there.error and not wish.deleting:
        return there
    if wish.deleting:
        why = "it is being deleted"
    else:
        lost = wish.seq <= answered(view, ve)
        missing = "its host has it no more" if lost else "it is not taken yet"
        why = there.error if there is not None else missing
    raise Conflict(
        f"snapshot {wish.tag} of VE {ve.name} can't be restored: {why}",
        hint=f"see `vectl snapshot list {ve.name}`",
    )
