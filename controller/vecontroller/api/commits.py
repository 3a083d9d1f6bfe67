"""Guarded writes on a user's word: read, decide, write if nothing changed meanwhile; else again, a few times."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from veapi.errors import Conflict, InvalidInput
from veapi.model import VE, Run
from veapi.v1 import api_pb2
from veapi.validate import SPEC_LIMIT_BYTES
from vecontroller import allowance, quota
from vecontroller.api.lookup import find_ve
from vecontroller.api.ports import ApiDeps
from vecontroller.store import keys, values
from vecontroller.store.port import Guard, Put, Write
from vecontroller.view import Held
from vecontroller.writer import LostRace

ATTEMPTS = 8
_PAUSE_S = 0.01
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Edit:
    """A VE as it shall be, what else is written with it, and what is held while that is on its way."""

    ve: VE
    guards: tuple[Guard, ...] = ()
    writes: tuple[Write, ...] = ()
    holds: tuple[AbstractContextManager[None], ...] = ()


async def settle(deps: ApiDeps, lost: LostRace, attempt: int) -> None:
    """After a lost race: until the view shows who won it, and a little longer each time."""
    await deps.mirror.reached(max((item.mod_revision for item in lost.found), default=0))
    await deps.clock.sleep(_PAUSE_S * attempt)


def worn_out(what: str) -> Conflict:
    return Conflict(f"{what} changes all the time", hint="try again")


async def edit(
    deps: ApiDeps, ref: api_pb2.VERef, change: Callable[[VE], VE | Edit]
) -> tuple[Held[VE], bool]:
    """The VE as `change` makes it of what it is, and whether anything was written.

    Raises what `find_ve` and `change` raise, and Conflict when others are always faster.
    """
    for attempt in range(1, ATTEMPTS + 1):
        held = find_ve(deps.mirror.view, ref)
        wanted = change(held.value)
        made = wanted if isinstance(wanted, Edit) else Edit(wanted)
        if made.ve == held.value:
            return held, False
        try:
            return await _write_holding(deps, held, made), True
        except LostRace as lost:
            await settle(deps, lost, attempt)
    raise worn_out(f"VE {ref.name or ref.uid}")


async def _write_holding(deps: ApiDeps, held: Held[VE], made: Edit) -> Held[VE]:
    first, *more = made.holds or (nullcontext(),)
    with first:
        if more:
            return await _write_holding(
                deps, held, Edit(made.ve, made.guards, made.writes, tuple(more))
            )
        return await write(deps, held, made)


async def write(deps: ApiDeps, held: Held[VE], made: Edit) -> Held[VE]:
    """Raises LostRace when the spec is not as it was held any more, Conflict when it grows past its project's quota."""
    wanted = with_policy(held.value, msgspec.structs.replace(made.ve, op_id=deps.ids.new()))
    key, view, project = keys.ve_spec(wanted.uid), deps.mirror.view, wanted.project
    more = quota.growth(quota.of_ve(held.value), quota.of_ve(wanted))
    guards = (*made.guards, *allowance.guards(view, project, more))
    with allowance.allowed(view, deps.reserved, project, more):
        revision = await deps.writer.commit(
            [Guard(key=key, mod_revision=held.mod_revision), *guards],
            [Put(key=key, value=encoded(wanted, before=held.value)), *made.writes],
            confirm=(key, wanted.op_id),
        )
    return Held(value=wanted, mod_revision=revision, create_revision=held.create_revision)


def with_policy(before: VE, after: VE) -> VE:
    """Notes the generation at which its policy changed: what its host confirmed of the one before counts no more."""
    if after.spec.on_host_loss is before.spec.on_host_loss:
        return after
    return msgspec.structs.replace(after, policy_generation=after.generation)


def encoded(ve: VE, *, before: VE | None = None) -> bytes:
    """InvalidInput when the whole is too large, unless nobody asks for more than there was `before`.

    Else one that is nearly full could be neither stopped nor deleted: that takes some bytes too.
    """
    value = values.encode_ve(ve)
    grown = before is None or _asked_bytes(ve) > _asked_bytes(before)
    if len(value) > SPEC_LIMIT_BYTES and grown:
        raise InvalidInput(
            f"spec: {len(value)} bytes with its labels; at most {SPEC_LIMIT_BYTES}",
            hint="use fewer or shorter labels, variables and snapshots",
        )
    return value


def _asked_bytes(ve: VE) -> int:
    """Of what people write into it: its numbers and marks, whose sizes change too, are always the same here."""
    return len(
        values.encode_ve(
            VE(
                uid=ve.uid,
                name=ve.name,
                project=ve.project,
                labels=ve.labels,
                generation=1,
                spec=msgspec.structs.replace(ve.spec, run=Run.RUNNING),
                created_at=ve.created_at,
                snapshots=tuple(
                    msgspec.structs.replace(wish, deleting=False) for wish in ve.snapshots
                ),
            )
        )
    )
