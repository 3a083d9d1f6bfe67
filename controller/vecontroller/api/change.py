"""What changes a VE that exists: start, stop, freeze, restart, rename. All are read, decided, and written if nothing changed meanwhile."""

import msgspec

from veapi import validate
from veapi.errors import Conflict
from veapi.model import VE, Run, VEState
from veapi.v1 import api_pb2
from vecontroller.api.commits import Edit, edit
from vecontroller.api.lookup import refuse_taken
from vecontroller.api.ports import ApiDeps
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put
from vecontroller.view import Held, View

DEFAULT_STOP_TIMEOUT_S = 30.0
_OFF = ("PoweredOff", "LimitsRefused")
"""Reasons of a VE that shall run and is stopped: its guest switched it off (and its disk holds more than its new limit)."""


async def set_run(deps: ApiDeps, request: api_pb2.SetRunRequest) -> Held[VE]:
    """Idempotent: a VE that is to run already is returned as it is, unless it needs its user's word to run.

    That is one that its guest switched off, or whose host waits before it tries again: a start counts as a new wish.
    """
    run = validate.run("run", request.run)
    only_from = validate.run("only_from", request.only_from) if request.only_from else None
    timeout_s = stop_timeout_s(request.stop_timeout_s, force=request.force)

    def change(ve: VE) -> VE:
        refuse_deleting(ve)
        _refuse_from(ve, run, only_from)
        if run is Run.FROZEN:
            _refuse_down(deps.mirror.view, ve)
        view = deps.mirror.view
        changed = _with_run(view, ve, run, timeout_s)
        if changed is not ve or run is not Run.RUNNING or not needs_word(view, ve):
            return changed
        return running_again(view, msgspec.structs.replace(ve, generation=ve.generation + 1))

    held, _ = await edit(deps, request.ve, change)
    return held


def needs_word(view: View, ve: VE) -> bool:
    """What it was last seen as may be of the past; a new generation for a VE that runs by now changes nothing there."""
    held = view.statuses.get(ve.uid)
    return is_off(view, ve) or (held is not None and held.value.state is VEState.FAILED)


def is_off(view: View, ve: VE) -> bool:
    """Whether its guest switched it off, as far as its host has said."""
    held = view.statuses.get(ve.uid)
    if held is None:
        return False
    shall_run = ve.spec.run is not Run.STOPPED
    return shall_run and held.value.state is VEState.STOPPED and held.value.reason in _OFF


def is_up(view: View, ve: VE) -> bool:
    """Whether it may run now: what can't change live needs a restart."""
    return ve.uid in view.placements and ve.spec.run is not Run.STOPPED and not is_off(view, ve)


def running_again(view: View, ve: VE) -> VE:
    """With its user's word, as of this generation, that it shall run.

    Above all that its host has seen: a store that was set back to an older one would else say what was said before.
    """
    held = view.statuses.get(ve.uid)
    seen = held.value.observed_generation if held is not None else 0
    generation = max(ve.generation, seen + 1)
    return msgspec.structs.replace(ve, generation=generation, run_generation=generation)


async def restart(deps: ApiDeps, request: api_pb2.RestartRequest) -> Held[VE]:
    """Counts restart_seq up; the VE is to run afterwards, whatever it was."""
    timeout_s = stop_timeout_s(request.stop_timeout_s, force=request.force)

    def change(ve: VE) -> VE:
        refuse_deleting(ve)
        view = deps.mirror.view
        return restarted(view, _with_run(view, ve, Run.RUNNING, timeout_s), timeout_s)

    held, _ = await edit(deps, request.ve, change)
    return held


def restarted(view: View, ve: VE, timeout_s: float) -> VE:
    """Stopped and brought up once more. Its host's number counts too, as for roots (`rebuild.next_root_seq`)."""
    held = view.statuses.get(ve.uid)
    seq = 1 + max(ve.restart_seq, held.value.observed_restart_seq if held is not None else 0)
    return msgspec.structs.replace(ve, restart_seq=seq, stop_timeout_s=timeout_s)


async def rename(deps: ApiDeps, request: api_pb2.RenameVERequest) -> Held[VE]:
    """Old name out and new name in, in one transaction. Conflict when it is taken. Its own name: nothing to do."""
    name = validate.name("name", request.name)

    def change(ve: VE) -> VE | Edit:
        refuse_deleting(ve)
        if ve.name != name:
            refuse_member(ve)
        return ve if ve.name == name else _renamed(deps.mirror.view, ve, name)

    held, _ = await edit(deps, request.ve, change)
    return held


def _renamed(view: View, ve: VE, name: str) -> Edit:
    refuse_taken(view, ve.project, name)
    old, new = keys.ve_name(ve.project, ve.name), keys.ve_name(ve.project, name)
    return Edit(
        msgspec.structs.replace(ve, name=name, generation=ve.generation + 1),
        guards=(
            Guard(key=old, mod_revision=view.names[ve.project, ve.name].mod_revision),
            Guard(key=new, mod_revision=0),
        ),
        writes=(Delete(key=old), Put(key=new, value=values.encode_ref(ve.uid))),
    )


def refuse_deleting(ve: VE) -> None:
    if ve.delete_requested_at is not None:
        raise Conflict(
            f"VE {ve.name} is being deleted",
            hint="wait until it is gone; then it can be created again"
            + ("" if ve.purge else f"; or take it back: `vectl undelete {ve.name}`"),
        )


def refuse_member(ve: VE) -> None:
    """Of what a group says: it would only change it back."""
    if ve.group:
        raise Conflict(
            f"VE {ve.name} belongs to group {ve.group}, which says what it is",
            hint=f"change the group's manifest and `vectl apply` it; see `vectl group show {ve.group}`",
        )


def _refuse_from(ve: VE, run: Run, only_from: Run | None) -> None:
    if only_from is not None and ve.spec.run not in (run, only_from):
        raise Conflict(
            f"VE {ve.name} is to be {ve.spec.run.value}, not {only_from.value}",
            hint=f"see `vectl show {ve.name}`",
        )


def _refuse_down(view: View, ve: VE) -> None:
    if ve.spec.run is Run.STOPPED or is_off(view, ve):
        raise Conflict(
            f"VE {ve.name} is stopped; only one that runs can be frozen",
            hint=f"start it first: `vectl start {ve.name}`",
        )


def _with_run(view: View, ve: VE, run: Run, timeout_s: float) -> VE:
    if run is Run.STOPPED:
        ve = msgspec.structs.replace(ve, stop_timeout_s=timeout_s)
    if ve.spec.run is run:
        return ve
    changed = msgspec.structs.replace(
        ve, spec=msgspec.structs.replace(ve.spec, run=run), generation=ve.generation + 1
    )
    return changed if run is Run.STOPPED else running_again(view, changed)


def stop_timeout_s(asked_s: int, *, force: bool = False) -> float:
    """0: kill at once."""
    validate.stop_timeout_s("stop_timeout_s", asked_s)
    if force:
        return 0.0
    return float(asked_s) or DEFAULT_STOP_TIMEOUT_S
