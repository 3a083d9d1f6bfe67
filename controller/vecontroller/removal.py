"""What removes a VE: its spec, name, address, placement and status, all in one transaction. What is kept of it goes with it."""

from veapi.model import VE, Deleted, SnapshotStatus, Uid
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put, Write
from vecontroller.view import View

ADDRESSES_HELD = 4
"""By one VE at once: its own, and those that its host may still use for it."""
MOST_WRITES = 5 + ADDRESSES_HELD
"""Writes of one removal, at most; it has three guards."""


def removal(view: View, uid: Uid) -> tuple[list[Guard], list[Write]]:
    """Guards and writes; the VE must be in the view. Lost when its spec or placement changed meanwhile."""
    held = view.ves[uid]
    placement = view.placements.get(uid)
    guards = [
        Guard(key=keys.ve_spec(uid), mod_revision=held.mod_revision),
        Guard(key=keys.ve_placement(uid), mod_revision=placement.mod_revision if placement else 0),
    ]
    return guards, [Delete(key=key) for key in _held_keys(view, held.value)]


def keeping(
    view: View,
    uid: Uid,
    *,
    purge_at: float,
    disk_used_bytes: int,
    snapshots: tuple[SnapshotStatus, ...],
) -> tuple[list[Guard], list[Write]]:
    """A removal that writes ve/deleted in the same transaction; the VE must be placed, and asked to be deleted."""
    guards, writes = removal(view, uid)
    ve, key = view.ves[uid].value, keys.ve_deleted(uid)
    assert ve.delete_requested_at is not None
    kept = Deleted(
        ve=ve,
        placement=view.placements[uid].value,
        deleted_at=ve.delete_requested_at,
        purge_at=purge_at,
        disk_used_bytes=disk_used_bytes,
        snapshots=snapshots,
    )
    guards.append(Guard(key=key, mod_revision=0))
    return guards, [*writes, Put(key=key, value=values.encode_deleted(kept))]


def _held_keys(view: View, ve: VE) -> list[str]:
    """All that the VE holds. A name or address that points to another VE is not its own."""
    found = [keys.ve_spec(ve.uid), keys.ve_placement(ve.uid), keys.ve_status(ve.uid)]
    name = view.names.get((ve.project, ve.name))
    if name is not None and name.value == ve.uid:
        found.append(keys.ve_name(ve.project, ve.name))
    return [*found, *(keys.address(network, ip) for network, ip in addresses_held(view, ve.uid))]


def addresses_held(view: View, uid: Uid) -> list[tuple[str, str]]:
    """Networks and addresses that nobody else may get."""
    return sorted(view.addresses_of.get(uid, ()))
