"""What reports of hosts change in the store: pure. What the store shows already changes nothing, so it may be asked again.

A status is written only while the VE is placed on the reporting host, and for exactly this placement: what an agent says
of an earlier one, or of a VE that is none of its own, must never overwrite what its owner said.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from veapi.model import EVENTS_KEPT, HostFacts, HostName, Uid, VEReport, VEState, VEStatus
from vecontroller.incarnation import is_unconfirmed
from vecontroller.removal import addresses_held, keeping, removal
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put, Write
from vecontroller.view import View

GUARDS_A_TRANSACTION = 80
WRITES_A_TRANSACTION = 80
_DOWN = (VEState.STOPPED, VEState.FAILED)
"""States in which a VE uses no address."""
TEXT_LIMIT = 500
"""Characters of a message that a host may put into a status."""


@dataclass(frozen=True, slots=True)
class Change:
    """Written together or not at all."""

    guards: tuple[Guard, ...]
    writes: tuple[Write, ...]


def of_facts(view: View, host: HostName, facts: HostFacts) -> Change | None:
    """Writes host/status when it differs."""
    held, key = view.hosts.get(host), keys.host_status(host)
    if key in view.quarantined or (held is not None and held.value == facts):
        return None
    guard = Guard(key=key, mod_revision=held.mod_revision if held is not None else 0)
    return Change((guard,), (Put(key=key, value=values.encode_host_status(facts)),))


def of_report(view: View, host: HostName, report: VEReport, *, purge_at: float) -> Change | None:
    """What one VE's report changes, if anything. `purge_at`: when what is deleted now is to be purged, in Unix seconds."""
    if is_unconfirmed(view):  # no word of a host takes anything away now
        plain = placed_here(view, host, report.uid) and not (report.gone or report.kept)
        return _of_status(view, host, report) if plain else None
    return _of_report(view, host, report, purge_at)


def _of_report(view: View, host: HostName, report: VEReport, purge_at: float) -> Change | None:
    if kept_here(view, host, report.uid):
        return _of_purged(view, report) if report.gone else None
    if left_here(view, host, report.uid):
        return _of_left(view, host, report, purge_at)
    if not placed_here(view, host, report.uid):
        return None
    if not (report.gone or report.kept):
        return _of_status(view, host, report)
    if report.status.placement_generation != view.placements[report.uid].value.generation:
        return None  # of an earlier stay: since then it may have been started here once more
    return _of_gone(view, report) if report.gone else _of_kept(view, report, purge_at)


def placed_here(view: View, host: HostName, uid: Uid) -> bool:
    placement = view.placements.get(uid)
    return placement is not None and placement.value.host == host and uid in view.ves


def kept_here(view: View, host: HostName, uid: Uid) -> bool:
    """Whether the host keeps what is left of it."""
    kept = view.deleted.get(uid)
    return kept is not None and kept.value.placement.host == host and uid not in view.placements


def left_here(view: View, host: HostName, uid: Uid) -> bool:
    """Whether the VE was moved away from the host, and something of it may be there."""
    return (host, uid) in view.left and not placed_here(view, host, uid)


def _of_left(view: View, host: HostName, report: VEReport, purge_at: float) -> Change | None:
    """It is down there, and from now on its root is kept for as long as that of a deleted VE; or nothing of it is there."""
    key, held = keys.ve_left(host, report.uid), view.left[host, report.uid]
    guard = Guard(key=key, mod_revision=held.mod_revision)
    if key in view.quarantined:
        return None
    if report.gone:
        return Change((guard,), (Delete(key=key),))
    if not report.kept or not held.value.unconfirmed:
        return None
    kept = msgspec.structs.replace(
        held.value,
        unconfirmed=False,
        purge_at=purge_at,
        disk_used_bytes=report.status.disk_used_bytes,
        snapshots=report.status.snapshots,
    )
    return Change((guard,), (Put(key=key, value=values.encode_deleted(kept)),))


def _of_purged(view: View, report: VEReport) -> Change:
    """Nothing is left of a deleted VE, whether that was asked for or its root was lost."""
    key = keys.ve_deleted(report.uid)
    guard = Guard(key=key, mod_revision=view.deleted[report.uid].mod_revision)
    return Change((guard,), (Delete(key=key),))


def _of_kept(view: View, report: VEReport, purge_at: float) -> Change | None:
    """A deleted VE is down, and its root is kept: all that it held goes, and ve/deleted comes."""
    ve, status = view.ves[report.uid].value, report.status
    if ve.delete_requested_at is None or ve.purge:
        return None
    guards, writes = keeping(
        view,
        report.uid,
        purge_at=purge_at,
        disk_used_bytes=status.disk_used_bytes,
        snapshots=status.snapshots,
    )
    if any(write.key in view.quarantined for write in writes):
        return None
    return Change(tuple(guards), tuple(writes))


def _of_gone(view: View, report: VEReport) -> Change | None:
    """All of a deleted VE is gone from its host: the last trace of it goes."""
    if view.ves[report.uid].value.delete_requested_at is None:
        return None
    guards, writes = removal(view, report.uid)
    if any(write.key in view.quarantined for write in writes):
        return None
    return Change(tuple(guards), tuple(writes))


def _of_status(view: View, host: HostName, report: VEReport) -> Change | None:
    placement, held = view.placements[report.uid], view.statuses.get(report.uid)
    key, status = keys.ve_status(report.uid), _bounded(report.status, host)
    if status.placement_generation != placement.value.generation or key in view.quarantined:
        return None
    freed = _given_up(view, report.uid, status)
    shown = held is not None and held.value == status
    if shown and not freed:
        return None
    guards = [
        Guard(key=keys.ve_placement(report.uid), mod_revision=placement.mod_revision),
        Guard(key=key, mod_revision=held.mod_revision if held is not None else 0),
    ]
    write = () if shown else (Put(key=key, value=values.encode_status(status)),)
    if freed:
        guards.append(_of_spec(view, report.uid))
    return Change(tuple(guards), (*write, *freed))


def _of_spec(view: View, uid: Uid) -> Guard:
    """The VE may be about to change back to what is given up."""
    return Guard(key=keys.ve_spec(uid), mod_revision=view.ves[uid].mod_revision)


def _given_up(view: View, uid: Uid, status: VEStatus) -> tuple[Write, ...]:
    """Addresses that the VE had before, once its host says that it uses them no more.

    It must know of the change: one that is down with an older wish may come up with the old address yet.
    """
    ve = view.ves[uid].value
    old = [(network, ip) for network, ip in addresses_held(view, uid) if ip != ve.ip]
    if not old or status.observed_generation < ve.generation or is_unconfirmed(view):
        return ()
    used = () if status.state in _DOWN else status.addresses
    return tuple(Delete(key=keys.address(network, ip)) for network, ip in old if ip not in used)


def _bounded(status: VEStatus, host: HostName) -> VEStatus:
    """As a host may say it: of itself, and not at any length."""
    return msgspec.structs.replace(
        status,
        host=host,
        reason=status.reason[:TEXT_LIMIT],
        message=status.message[:TEXT_LIMIT],
        addresses=status.addresses[:16],
        events=tuple(
            msgspec.structs.replace(
                event, reason=event.reason[:TEXT_LIMIT], message=event.message[:TEXT_LIMIT]
            )
            for event in status.events[-EVENTS_KEPT:]
        ),
    )


def packed(changes: Iterable[Change], *, at_most: int) -> Iterator[Sequence[Change]]:
    """Groups that fit into one transaction each, of at most `at_most` changes."""
    group: list[Change] = []
    guards = writes = 0
    for change in changes:
        guards, writes = guards + len(change.guards), writes + len(change.writes)
        full = guards > GUARDS_A_TRANSACTION or writes > WRITES_A_TRANSACTION
        if group and (full or len(group) == at_most):
            yield group
            group, guards, writes = [], len(change.guards), len(change.writes)
        group.append(change)
    if group:
        yield group
