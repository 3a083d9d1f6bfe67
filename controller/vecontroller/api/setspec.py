"""Set: changes what a VE may have while it runs, and with a restart what can't change live.

Each field that is named is set to what the request has, also to 0; what is not named stays. What a VE takes more of must be
free on its host. Whether the kernel can go along (memory below use, a disk that is fuller) its host says afterwards.
"""

from collections.abc import Collection, Mapping

import msgspec

from veapi import limits, validate
from veapi.errors import Conflict, InvalidInput
from veapi.model import VE, Placement, Resources, Spec
from veapi.v1 import api_pb2
from vecontroller.api import addresses, specs
from vecontroller.api.change import (
    is_up,
    refuse_deleting,
    refuse_member,
    restarted,
    stop_timeout_s,
)
from vecontroller.api.commits import Edit, edit
from vecontroller.api.create import network_of
from vecontroller.api.inflight import InFlight
from vecontroller.api.ports import ApiDeps
from vecontroller.api.room import grown, room_for
from vecontroller.placement import given
from vecontroller.removal import ADDRESSES_HELD, addresses_held
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put
from vecontroller.view import Held, View

_HOW_ELSE = {
    "image": "a VE gets a root from another image by `vectl rebuild NAME --image IMAGE`",
    "host": "a VE stays where its root is",
    "run": "use `vectl start`, `vectl stop` or `vectl freeze`",
}
"""Fields that set refuses, and what to do instead."""
_WANTS_RESTART = ("LimitsRefused", "RestartNeeded")
"""Reasons of a host that could not go along while the VE ran."""


async def set_spec(deps: ApiDeps, in_flight: InFlight, request: api_pb2.SetVERequest) -> Held[VE]:
    """The VE with what was asked. Idempotent: what it has already writes nothing, and restarts nothing.

    InvalidInput: a value, or a field that can't be set. Conflict: it needs a restart that was not asked for, or the address
    is taken. NoHostFits: its host has too little left.
    """
    _check_fields(request)
    timeout_s = stop_timeout_s(request.stop_timeout_s)

    def change(ve: VE) -> VE | Edit:
        refuse_deleting(ve)
        refuse_member(ve)
        view, after = deps.mirror.view, _asked(ve, request)
        restarts = request.restart and is_up(view, ve)
        if after == ve and not (restarts and _is_behind(view, ve)):
            return ve
        # Also when only the restart is new: what its host says from now on is of this wish, not of the last one.
        after = msgspec.structs.replace(after, generation=ve.generation + 1)
        if restarts:
            after = restarted(view, after, timeout_s)
        elif not request.restart:
            refuse_restart(deps, ve, after, how=f"`vectl set {ve.name} ... --restart`")
        return edited(deps, in_flight, ve, after)

    held, _ = await edit(deps, request.ve, change)
    return held


def edited(deps: ApiDeps, in_flight: InFlight, before: VE, after: VE) -> Edit:
    """With the room that it takes more on its host, and with the address that it changes to."""
    made = Edit(after)
    placement = deps.mirror.view.placements.get(before.uid)
    more = grown(given(deps.mirror.view, before), after.spec.request)
    if more != Resources():
        made = _with_room(deps, made, placement, more)
    return made if after.ip == before.ip else _moved(deps.mirror.view, in_flight, before, made)


def _with_room(
    deps: ApiDeps, made: Edit, placement: Held[Placement] | None, more: Resources
) -> Edit:
    """On its host. One that gets a host meanwhile is looked at again: it was given that for what it was before."""
    if placement is None:
        guard = Guard(key=keys.ve_placement(made.ve.uid), mod_revision=0)
        return Edit(made.ve, guards=(guard,))
    what = f"for what {made.ve.name} is to have more"
    return Edit(made.ve, holds=(room_for(deps, placement.value.host, more, what=what),))


def refuse_restart(deps: ApiDeps, before: VE, after: VE, *, how: str) -> None:
    """Conflict when a VE that is up changes in what can't change live."""
    fixed = [field for field in ("env", "command") if _differs(field, before.spec, after.spec)]
    if after.ip != before.ip:
        fixed.insert(0, "ip")
    if fixed and is_up(deps.mirror.view, before):
        raise Conflict(
            f"{' and '.join(fixed)} of VE {before.name} can't change while it runs",
            hint=f"restart it for that: {how}, or stop it first",
        )


def _differs(field: str, before: Spec, after: Spec) -> bool:
    return bool(getattr(before, field) != getattr(after, field))


def _check_fields(request: api_pb2.SetVERequest) -> None:
    specs.known(request.fields)
    for field in request.fields:
        if field in _HOW_ELSE:
            raise InvalidInput(f"spec.{field} can't be set", hint=_HOW_ELSE[field])
    given = (
        request.fields,
        request.labels,
        request.labels_removed,
        request.env,
        request.env_removed,
    )
    if not any(given):
        raise InvalidInput(
            "fields: nothing is to be set", hint="name what to set, e.g. --memory 1G"
        )
    if "ip" in request.fields:
        validate.ipv4("spec.ip", request.spec.ip)
    for key in request.labels_removed:
        validate.label_key("labels_removed", key)
    for key in request.env_removed:
        validate.at_most("env_removed", key, 255)


def _asked(ve: VE, request: api_pb2.SetVERequest) -> VE:
    """The VE with the fields, variables and labels of the request."""
    spec = specs.picked(request.spec, ve.spec, request.fields)
    env = _merged(spec.env, request.env, request.env_removed)
    spec = msgspec.structs.replace(spec, env=limits.init_env("spec.env", env))
    labels = validate.labels("labels", _merged(ve.labels, request.labels, request.labels_removed))
    after = msgspec.structs.replace(ve, spec=spec, labels=labels)
    if "ip" in request.fields and spec.ip != ve.ip:
        return msgspec.structs.replace(after, ip=spec.ip, mac=addresses.mac_of(spec.ip))
    return after


def _merged(
    old: Mapping[str, str], fresh: Mapping[str, str], removed: Collection[str]
) -> dict[str, str]:
    return {key: value for key, value in {**old, **fresh}.items() if key not in removed}


def _is_behind(view: View, ve: VE) -> bool:
    """Whether its host has not carried out what was asked last, e.g. as the kernel could not go along."""
    held = view.statuses.get(ve.uid)
    if held is None:
        return False
    return held.value.observed_generation < ve.generation or held.value.reason in _WANTS_RESTART


def _moved(view: View, in_flight: InFlight, before: VE, made: Edit) -> Edit:
    """With the new address taken in the same transaction.

    The old one stays the VE's until its host says that it uses it no more (`vecontroller.observed`): until then another VE
    would share it. Of a VE without a host nobody has heard yet.
    """
    name, after = network_of(view).name, made.ve
    held = view.addresses.get((name, after.ip))
    own = held is not None and held.value == after.uid
    if not own:
        addresses.choose(view, network_of(view), after.ip, in_flight.addresses())
        _refuse_more_addresses(view, before)
    new = keys.address(name, after.ip)
    guard = Guard(key=new, mod_revision=held.mod_revision if held is not None else 0)
    unplaced = Guard(key=keys.ve_placement(before.uid), mod_revision=0)
    free = before.uid not in view.placements
    old = [each for each in addresses_held(view, before.uid) if each != (name, after.ip)]
    return Edit(
        after,
        guards=(*made.guards, guard, *((unplaced,) if free else ())),
        writes=(
            *made.writes,
            Put(key=new, value=values.encode_ref(after.uid)),
            *(Delete(key=keys.address(*each)) for each in old if free),
        ),
        holds=(*made.holds, in_flight.holding(after.ip, after.image_digest)),
    )


def _refuse_more_addresses(view: View, ve: VE) -> None:
    held = addresses_held(view, ve.uid)
    if len(held) >= ADDRESSES_HELD and ve.uid in view.placements:
        raise Conflict(
            f"VE {ve.name} still holds {len(held)} addresses, as its host has not said that it uses the old ones no more",
            hint="wait until its host has carried out the last change; see `vectl show`",
        )
