"""What changes a VE that exists: start, stop, restart, delete. All are read, decided, and written if nothing changed meanwhile."""

from collections.abc import Callable

import msgspec

from veapi import validate
from veapi.errors import Conflict
from veapi.model import VE, Run, VEState
from veapi.v1 import api_pb2
from vecontroller.api.commits import ATTEMPTS, edit, settle, worn_out, write
from vecontroller.api.lookup import find_ve
from vecontroller.api.ports import ApiDeps
from vecontroller.removal import removal
from vecontroller.store import keys
from vecontroller.view import Held
from vecontroller.writer import LostRace

DEFAULT_STOP_TIMEOUT_S = 30.0
POWERED_OFF = "PoweredOff"
"""Reason of a VE that is stopped because its guest switched it off."""


async def set_run(deps: ApiDeps, request: api_pb2.SetRunRequest) -> Held[VE]:
    """Idempotent: a VE that is to run already is returned as it is, unless it needs its user's word to run.

    That is one that its guest switched off, or whose host waits before it tries again: a start counts as a new wish.
    """
    run = validate.run("run", request.run)
    timeout_s = _stop_timeout_s(request.stop_timeout_s, force=request.force)
    change = _set_run(run, timeout_s)

    def with_new_wish(ve: VE) -> VE:
        changed = change(ve)
        if changed is not ve or run is not Run.RUNNING or not _needs_word(deps, ve):
            return changed
        return msgspec.structs.replace(ve, generation=ve.generation + 1)

    held, _ = await edit(deps, request.ve, with_new_wish)
    return held


def _needs_word(deps: ApiDeps, ve: VE) -> bool:
    """What it was last seen as may be of the past; a new generation for a VE that runs by now changes nothing there."""
    held = deps.mirror.view.statuses.get(ve.uid)
    if held is None:
        return False
    status = held.value
    off = status.state is VEState.STOPPED and status.reason == POWERED_OFF
    return off or status.state is VEState.FAILED


async def restart(deps: ApiDeps, request: api_pb2.RestartRequest) -> Held[VE]:
    """Counts restart_seq up; the VE is to run afterwards, whatever it was."""
    timeout_s = _stop_timeout_s(request.stop_timeout_s, force=request.force)

    def change(ve: VE) -> VE:
        running = _set_run(Run.RUNNING, timeout_s)(ve)
        return msgspec.structs.replace(
            running, restart_seq=ve.restart_seq + 1, stop_timeout_s=timeout_s
        )

    held, _ = await edit(deps, request.ve, change)
    return held


async def delete(deps: ApiDeps, request: api_pb2.DeleteVERequest) -> Held[VE]:
    """Asks for the removal; a VE that has no host is gone at once. Idempotent while the VE is there."""
    ref = request.ve
    for attempt in range(1, ATTEMPTS + 1):
        held = find_ve(deps.mirror.view, ref)
        try:
            return await _delete_once(deps, held)
        except LostRace as lost:
            await settle(deps, lost, attempt)
    raise worn_out(f"VE {ref.name or ref.uid}")


async def _delete_once(deps: ApiDeps, held: Held[VE]) -> Held[VE]:
    if held.value.uid not in deps.mirror.view.placements:
        return await _remove(deps, held)
    if held.value.delete_requested_at is not None:
        return held
    asked = msgspec.structs.replace(held.value, delete_requested_at=deps.clock.wall())
    return await write(deps, held, asked)


async def _remove(deps: ApiDeps, held: Held[VE]) -> Held[VE]:
    """Lost when it gets a host meanwhile."""
    guards, writes = removal(deps.mirror.view, held.value.uid)
    await deps.writer.commit(guards, writes, confirm=(keys.ve_spec(held.value.uid), ""))
    now = held.value.delete_requested_at or deps.clock.wall()
    gone = msgspec.structs.replace(held.value, delete_requested_at=now)
    return Held(value=gone, mod_revision=held.mod_revision, create_revision=held.create_revision)


def refuse_deleting(ve: VE) -> None:
    if ve.delete_requested_at is not None:
        raise Conflict(
            f"VE {ve.name} is being deleted",
            hint="wait until it is gone; then it can be created again",
        )


def _set_run(run: Run, stop_timeout_s: float) -> Callable[[VE], VE]:
    def change(ve: VE) -> VE:
        refuse_deleting(ve)
        if run is Run.STOPPED:
            ve = msgspec.structs.replace(ve, stop_timeout_s=stop_timeout_s)
        if ve.spec.run is run:
            return ve
        return msgspec.structs.replace(
            ve,
            spec=msgspec.structs.replace(ve.spec, run=run),
            generation=ve.generation + 1,
        )

    return change


def _stop_timeout_s(asked_s: int, *, force: bool) -> float:
    """0: kill at once."""
    validate.stop_timeout_s("stop_timeout_s", asked_s)
    if force:
        return 0.0
    return float(asked_s) or DEFAULT_STOP_TIMEOUT_S
