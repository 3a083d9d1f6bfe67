"""What a person sees of a VE: pure, one table. Stored are wishes, placements and observations; Pending and Unknown are computed.

deleting                              -> Deleting
no placement                          -> Pending   (the scheduler's reason, or Scheduling)
host does not answer                  -> Unknown   (what it was last)
nothing observed of this placement    -> Creating
else                                  -> what was observed
"""

from enum import StrEnum

import msgspec

from veapi.model import (
    EVENTS_KEPT,
    VE,
    Deleted,
    Event,
    EventType,
    HostState,
    Placement,
    Value,
    VEState,
    VEStatus,
)
from vecontroller.failover.judge import Waits, Why
from vecontroller.placement import Refusal

SCHEDULING = "Scheduling"
HOST_SILENT = "HostSilent"
_WORTH_TELLING = (
    Why.NOT_ARMED,
    Why.NO_FENCE,
    Why.NO_ROOM,
    Why.NO_IMAGE,
    Why.MOVES_STOPPED,
    Why.UNCONFIRMED,
)
"""Of what keeps a VE on a host that does not answer: what an operator can do something about."""


class Truth(StrEnum):
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Value, frozen=True, kw_only=True):
    """One question about a VE, answered."""

    type: str
    status: Truth
    reason: str = ""
    message: str = ""


def displayed(
    ve: VE,
    placement: Placement | None,
    status: VEStatus | None,
    *,
    refusal: Refusal | None,
    host_state: HostState,
    waits: Waits | None = None,
) -> VEStatus:
    """The VE's status as it is shown. `host_state`: of the host of its placement; any without one. `waits`: why it stays there."""
    seen = _observed(ve, placement, status)
    if ve.delete_requested_at is not None:
        return _deleting(seen, placement, host_state)
    if placement is None:
        return _pending(seen, refusal)
    if host_state is not HostState.READY:
        return _unknown(seen, placement, host_state, waits)
    return seen


def deleted(kept: Deleted) -> VEStatus:
    """Of a VE that is gone from its host but for its root; or of one that lives elsewhere, and left this one."""
    if kept.left:
        return _left(kept)
    return VEStatus(
        state=VEState.DELETING if kept.purging else VEState.DELETED,
        reason="Purging" if kept.purging else "",
        message="its root is being removed" if kept.purging else "",
        host=kept.placement.host,
        placement_generation=kept.placement.generation,
        disk_used_bytes=kept.disk_used_bytes,
    )


def _left(kept: Deleted) -> VEStatus:
    if kept.unconfirmed:
        told = "the host has not answered since"
    else:
        told = "its root is being removed" if kept.purging else "this root is kept for a while"
    return VEStatus(
        state=VEState.DELETING if kept.purging else VEState.DELETED,
        reason="Left",
        message=f"{kept.left}; {told}",
        host=kept.placement.host,
        placement_generation=kept.placement.generation,
        disk_used_bytes=kept.disk_used_bytes,
    )


def conditions(
    ve: VE,
    placement: Placement | None,
    status: VEStatus | None,
    *,
    refusal: Refusal | None,
    host_state: HostState,
) -> tuple[Condition, ...]:
    """Placed, HostReady (once placed) and Running."""
    shown = displayed(ve, placement, status, refusal=refusal, host_state=host_state)
    if placement is None:
        placed = Condition(
            type="Placed", status=Truth.FALSE, reason=shown.reason, message=shown.message
        )
        return placed, _running(shown)
    placed = Condition(type="Placed", status=Truth.TRUE, reason="Placed", message=placement.message)
    return placed, _host_ready(placement, host_state), _running(shown)


def events(
    ve: VE,
    placement: Placement | None,
    status: VEStatus | None,
    refusal: Refusal | None,
    waits: Waits | None = None,
) -> list[Event]:
    """What happened to the VE, oldest first; the last 20."""
    found = [
        _normal(ve.created_at, "Created", f"{ve.project}/{ve.name} from image {ve.spec.image}")
    ]
    if placement is not None:
        found.append(
            _normal(
                placement.decided_at,
                "Placed",
                f"on host {placement.host}: {placement.message}",
                placement.host,
            )
        )
        found.extend(_moved(placement))
    if waits is not None and waits.why in _WORTH_TELLING:
        found.append(
            Event(at=waits.at, type=EventType.WARNING, reason="NotMoved", message=waits.message)
        )
    if refusal is not None and placement is None:
        found.append(_refused(refusal))
    if ve.delete_requested_at is not None:
        found.append(_normal(ve.delete_requested_at, "DeleteRequested", "removal was asked for"))
    if status is not None:
        found.extend(status.events)
    return sorted(found, key=lambda event: event.at)[-EVENTS_KEPT:]


def _moved(placement: Placement) -> list[Event]:
    """Why it left each host that it was on."""
    hosts = [*(stay.host for stay in placement.past[1:]), placement.host]
    return [
        _normal(stay.ended_at, "Moved", f"from host {stay.host} to {host}: {stay.ended}", host)
        for stay, host in zip(placement.past, hosts, strict=False)
        if stay.host != host
    ]


def _observed(ve: VE, placement: Placement | None, status: VEStatus | None) -> VEStatus:
    """What the host said of this placement; Creating (or Pending) until it has said anything."""
    if placement is None:
        return VEStatus(state=VEState.PENDING, addresses=_addresses(ve))
    if status is None or status.placement_generation != placement.generation:
        return VEStatus(
            state=VEState.CREATING,
            host=placement.host,
            addresses=_addresses(ve),
            placement_generation=placement.generation,
        )
    if status.addresses:
        return status
    return msgspec.structs.replace(status, addresses=_addresses(ve))


def _addresses(ve: VE) -> tuple[str, ...]:
    return (ve.ip,) if ve.ip else ()


def _pending(seen: VEStatus, refusal: Refusal | None) -> VEStatus:
    if refusal is None:
        return msgspec.structs.replace(seen, reason=SCHEDULING)
    return msgspec.structs.replace(seen, reason=refusal.reason, message=refusal.message)


def _deleting(seen: VEStatus, placement: Placement | None, host_state: HostState) -> VEStatus:
    deleting = msgspec.structs.replace(seen, state=VEState.DELETING, reason="", message="")
    if placement is None or host_state is HostState.READY:
        return deleting
    return msgspec.structs.replace(
        deleting,
        reason=HOST_SILENT,
        message=f"{_silence(placement, host_state)}; it is removed when the host is back",
    )


def _unknown(
    seen: VEStatus, placement: Placement, host_state: HostState, waits: Waits | None
) -> VEStatus:
    """Whether it is moved, and why not yet, is what everybody asks then."""
    stays = f"; {waits.message}" if waits is not None else ""
    return msgspec.structs.replace(
        seen,
        state=VEState.UNKNOWN,
        reason=HOST_SILENT,
        message=f"{_silence(placement, host_state)}; it was last seen {seen.state.value}{stays}",
    )


def _silence(placement: Placement, host_state: HostState) -> str:
    if host_state is HostState.SILENT:
        return f"host {placement.host} does not answer"
    return f"host {placement.host} was not heard of since this controller began to lead"


def _host_ready(placement: Placement, host_state: HostState) -> Condition:
    if host_state is HostState.READY:
        return Condition(type="HostReady", status=Truth.TRUE, reason=host_state.value)
    return Condition(
        type="HostReady",
        status=Truth.FALSE if host_state is HostState.SILENT else Truth.UNKNOWN,
        reason=host_state.value,
        message=_silence(placement, host_state),
    )


def _running(shown: VEStatus) -> Condition:
    if shown.state is VEState.RUNNING:
        status = Truth.TRUE
    else:
        status = Truth.UNKNOWN if shown.state is VEState.UNKNOWN else Truth.FALSE
    return Condition(
        type="Running",
        status=status,
        reason=shown.reason or shown.state.value,
        message=shown.message,
    )


def _normal(at: float, reason: str, message: str, host: str = "") -> Event:
    return Event(at=at, type=EventType.NORMAL, reason=reason, message=message, host=host)


def _refused(refusal: Refusal) -> Event:
    return Event(
        at=refusal.at,
        type=EventType.WARNING,
        reason="Refused",
        message=f"{refusal.message} ({refusal.hint})",
    )
