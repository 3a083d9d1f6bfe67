"""Delete, undelete, purge.

A delete is a wish. A VE that has no host is gone at once. Else its host stops it and keeps its root; when it says so, what
the VE held moves to ve/deleted in one transaction (`vecontroller.observed`). From there it comes back, or is purged when its
time has come (`vecontroller.purging`). With `purge` its host removes all of it at once. What a VE that was moved left on lost
hosts is purged in the same ways, but it can't come back.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import msgspec

from veapi import validate
from veapi.errors import Conflict, InvalidInput
from veapi.model import VE, Deleted, Uid
from veapi.v1 import api_pb2
from vecontroller import allowance, quota
from vecontroller.api import addresses
from vecontroller.api.change import DEFAULT_STOP_TIMEOUT_S, running_again
from vecontroller.api.commits import ATTEMPTS, Edit, encoded, settle, worn_out, write
from vecontroller.api.create import network_of
from vecontroller.api.inflight import InFlight
from vecontroller.api.lookup import find_deleted, find_project, find_ve, listed, refuse_taken
from vecontroller.api.ports import DEFAULT_PROJECT, ApiDeps
from vecontroller.api.room import room_for
from vecontroller.purging import marked
from vecontroller.removal import removal
from vecontroller.snapshotting import unmade_clones
from vecontroller.stays import moved
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put
from vecontroller.view import Held, View
from vecontroller.writer import LostRace

T = TypeVar("T")
LEFT_AT_ONCE = 90
"""Old roots of one VE that one transaction has room for."""


async def delete(
    deps: ApiDeps,
    in_flight: InFlight,
    request: api_pb2.DeleteVERequest,
    *,
    guards: Sequence[Guard] = (),
) -> Held[VE]:
    """Asks for the removal; a VE that has no host is gone at once. Idempotent while the VE is there.

    Conflict: nothing would be kept of it, and a clone is still to be made of it. `guards`: of what must still be so.
    """
    ref, purge = request.ve, request.purge or deps.keep_deleted_s <= 0

    async def once() -> Held[VE]:
        held = find_ve(deps.mirror.view, ref)
        if held.value.uid not in deps.mirror.view.placements:
            return await _remove(deps, held, guards)
        if held.value.delete_requested_at is None:
            if purge:
                _refuse_source(deps.mirror.view, in_flight, held.value)
            asked = msgspec.structs.replace(
                held.value,
                delete_requested_at=deps.clock.wall(),
                purge=purge,
                stop_timeout_s=max(held.value.stop_timeout_s, DEFAULT_STOP_TIMEOUT_S),
            )
            return await write(deps, held, Edit(asked, guards=tuple(guards)))
        return await _keep_nothing(deps, in_flight, held) if request.purge else held

    return await _until_won(deps, once, f"VE {ref.name or ref.uid}")


async def _until_won(deps: ApiDeps, once: Callable[[], Awaitable[T]], what: str) -> T:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await once()
        except LostRace as lost:
            await settle(deps, lost, attempt)
    raise worn_out(what)


def _refuse_source(view: View, in_flight: InFlight, ve: VE) -> None:
    """A clone whose root is not made yet would have nothing to be made of."""
    names = [
        clone.value.name for clone in unmade_clones(view) if clone.value.root.from_uid == ve.uid
    ]
    if names:
        raise Conflict(
            f"VE {ve.name} is being cloned to {listed(names)}",
            hint="wait until that has its disk, or delete it; then purge this one",
        )
    if in_flight.clones(ve.uid):
        raise Conflict(f"VE {ve.name} is being cloned", hint="try again in a moment")


async def _keep_nothing(deps: ApiDeps, in_flight: InFlight, held: Held[VE]) -> Held[VE]:
    """Of a VE that is being deleted."""
    if held.value.purge:
        return held
    _refuse_source(deps.mirror.view, in_flight, held.value)
    return await write(deps, held, Edit(msgspec.structs.replace(held.value, purge=True)))


async def _remove(deps: ApiDeps, held: Held[VE], more: Sequence[Guard]) -> Held[VE]:
    """Lost when it gets a host meanwhile."""
    guards, writes = removal(deps.mirror.view, held.value.uid)
    await deps.writer.commit([*guards, *more], writes, confirm=(keys.ve_spec(held.value.uid), ""))
    now = held.value.delete_requested_at or deps.clock.wall()
    gone = msgspec.structs.replace(held.value, delete_requested_at=now)
    return Held(value=gone, mod_revision=held.mod_revision, create_revision=held.create_revision)


async def undelete(
    deps: ApiDeps, in_flight: InFlight, request: api_pb2.UndeleteVERequest
) -> Held[VE]:
    """Back as it was: same uid, host and root; its own address if that is free. One that is still being deleted just stays.

    What a group has let go comes back as a VE of its own: the group may have made another one meanwhile.

    Conflict: its name is taken, or nothing is kept. NoHostFits: its host has no room for it any more.
    """
    ref = request.ve
    name = validate.name("name", request.name) if request.name else ""

    async def once() -> Held[VE]:
        leaving = _leaving(deps.mirror.view, ref)
        if leaving is not None:
            return await _stay(deps, leaving, name)
        return await _bring_back(deps, in_flight, find_deleted(deps.mirror.view, ref), name)

    return await _until_won(deps, once, f"VE {ref.name or ref.uid}")


def _leaving(view: View, ref: api_pb2.VERef) -> Held[VE] | None:
    """A VE that is being deleted. Conflict when it is one that nobody deletes."""
    found = view.names.get((ref.project or DEFAULT_PROJECT, ref.name))
    uid = Uid(ref.uid) or (found.value if found is not None else Uid(""))
    held = view.ves.get(uid)
    if held is None:
        return None
    if held.value.delete_requested_at is not None:
        return held
    if ref.uid:
        raise Conflict(f"VE {held.value.name} is not deleted", hint="there is nothing to do")
    return None


async def _stay(deps: ApiDeps, held: Held[VE], name: str) -> Held[VE]:
    """Its deletion is taken back before its host has said that it is down."""
    ve = held.value
    if ve.purge:
        raise Conflict(
            f"VE {ve.name} is being deleted for good; nothing of it is kept",
            hint="it can't come back; create it again when it is gone",
        )
    if name not in ("", ve.name):
        raise Conflict(
            f"VE {ve.name} is still being deleted, and still has its name",
            hint=f"`vectl undelete {ve.name}`, then `vectl rename {ve.name} {name}`",
        )
    return await write(deps, held, Edit(_alive(deps.mirror.view, ve)))


def _alive(view: View, ve: VE) -> VE:
    return running_again(
        view,
        msgspec.structs.replace(
            ve, delete_requested_at=None, purge=False, generation=ve.generation + 1
        ),
    )


async def _bring_back(
    deps: ApiDeps, in_flight: InFlight, held: Held[Deleted], name: str
) -> Held[VE]:
    kept, view = held.value, deps.mirror.view
    if kept.purging:
        raise Conflict(
            f"VE {kept.ve.name} is being purged", hint="it can't come back; create it again"
        )
    find_project(view, kept.ve.project)
    name = name or kept.ve.name
    _refuse_taken(view, kept.ve, name)
    ip = _address(view, in_flight, kept.ve)
    spec = kept.ve.spec
    back = msgspec.structs.replace(
        _alive(view, kept.ve),
        name=name,
        ip=ip,
        mac=addresses.mac_of(ip),
        spec=spec if spec.ip == ip else msgspec.structs.replace(spec, ip=""),
        group="",
        group_revision=0,
        request_id="",
        op_id=deps.ids.new(),
    )
    more = quota.growth(quota.of_deleted(kept), quota.of_ve(back))
    with (
        allowance.allowed(view, deps.reserved, back.project, more),
        _room(deps, kept),
        in_flight.holding(ip, back.image_digest),
    ):
        return await _commit_back(deps, held, back)


def _refuse_taken(view: View, ve: VE, name: str) -> None:
    try:
        refuse_taken(view, ve.project, name)
    except Conflict as taken:
        hint = f"bring it back under another name: `vectl undelete {ve.uid} --name NAME`"
        raise Conflict(taken.message, hint=hint) from None


def _address(view: View, in_flight: InFlight, ve: VE) -> str:
    """Its own when that is free, else another one: that it was deleted may be known to nobody who took the address."""
    network, coming = network_of(view), in_flight.addresses()
    try:
        return addresses.choose(view, network, ve.ip, coming)
    except (Conflict, InvalidInput):
        return addresses.choose(view, network, "", coming)


def _room(deps: ApiDeps, kept: Deleted) -> AbstractContextManager[None]:
    """Its disk is counted there already, as far as it was used."""
    asked = kept.ve.spec.request
    more = msgspec.structs.replace(
        asked, disk_bytes=max(0, asked.disk_bytes - kept.disk_used_bytes)
    )
    return room_for(deps, kept.placement.host, more, what=f"for VE {kept.ve.name} to come back")


async def _commit_back(deps: ApiDeps, held: Held[Deleted], back: VE) -> Held[VE]:
    view, uid = deps.mirror.view, back.uid
    spec_key, deleted_key = keys.ve_spec(uid), keys.ve_deleted(uid)
    name_key = keys.ve_name(back.project, back.name)
    address_key = keys.address(network_of(view).name, back.ip)
    before = held.value.placement
    placement = moved(
        before,
        host=before.host,
        at=deps.clock.wall(),
        message="its root is kept here",
        left="it was deleted, and brought back",
    )
    placement = msgspec.structs.replace(placement, op_id=back.op_id)
    revision = await deps.writer.commit(
        [
            Guard(key=spec_key, mod_revision=0),
            Guard(key=name_key, mod_revision=0),
            Guard(key=address_key, mod_revision=0),
            Guard(key=keys.ve_placement(uid), mod_revision=0),
            Guard(key=deleted_key, mod_revision=held.mod_revision),
            Guard(
                key=keys.project(back.project),
                mod_revision=view.projects[back.project].mod_revision,
            ),
        ],
        [
            Put(key=spec_key, value=encoded(back, before=held.value.ve)),
            Put(key=name_key, value=values.encode_ref(uid, back.op_id)),
            Put(key=address_key, value=values.encode_ref(uid, back.op_id)),
            Put(key=keys.ve_placement(uid), value=values.encode_placement(placement)),
            Delete(key=deleted_key),
        ],
        confirm=(spec_key, back.op_id),
    )
    return Held(value=back, mod_revision=revision, create_revision=revision)


async def purge(deps: ApiDeps, in_flight: InFlight, ref: api_pb2.VERef) -> Held[VE] | Held[Deleted]:
    """Has the host of a deleted VE remove what it keeps, or those hosts that a VE which lives was moved away from.

    Idempotent until it is gone. Conflict: a clone is still to be made of it.
    """

    async def once() -> Held[VE] | Held[Deleted]:
        left = _left(deps.mirror.view, ref)
        if left:
            return await _mark_left(deps, left)
        leaving = _leaving(deps.mirror.view, ref)
        if leaving is not None:
            return await _keep_nothing(deps, in_flight, leaving)
        return await _mark(deps, in_flight, find_deleted(deps.mirror.view, ref))

    return await _until_won(deps, once, f"VE {ref.name or ref.uid}")


def _left(view: View, ref: api_pb2.VERef) -> list[Held[Deleted]]:
    """What a VE that nobody deletes, or of which nothing else is kept, has left on hosts that were lost."""
    found = view.names.get((ref.project or DEFAULT_PROJECT, ref.name))
    uid = Uid(ref.uid) or (found.value if found is not None else Uid(""))
    held = view.ves.get(uid)
    if uid in view.deleted or (held is not None and held.value.delete_requested_at is not None):
        return []
    return [left for (_, of), left in sorted(view.left.items()) if of == uid][:LEFT_AT_ONCE]


async def _mark_left(deps: ApiDeps, left: Sequence[Held[Deleted]]) -> Held[Deleted]:
    """All of them at once."""
    waiting = [held for held in left if not held.value.purging]
    if not waiting:
        return left[0]
    op_id = deps.ids.new()
    guards, puts = zip(*(marked(held, op_id) for held in waiting), strict=True)
    revision = await deps.writer.commit(guards, puts, confirm=(puts[0].key, op_id))
    value = msgspec.structs.replace(waiting[0].value, purging=True, op_id=op_id)
    return Held(value=value, mod_revision=revision, create_revision=waiting[0].create_revision)


async def _mark(deps: ApiDeps, in_flight: InFlight, held: Held[Deleted]) -> Held[Deleted]:
    if held.value.purging:
        return held
    _refuse_source(deps.mirror.view, in_flight, held.value.ve)
    op_id = deps.ids.new()
    guard, put = marked(held, op_id)
    revision = await deps.writer.commit([guard], [put], confirm=(put.key, op_id))
    value = msgspec.structs.replace(held.value, purging=True, op_id=op_id)
    return Held(value=value, mod_revision=revision, create_revision=held.create_revision)
