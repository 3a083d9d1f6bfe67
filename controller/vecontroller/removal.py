"""What removes a VE for good: its spec, name, address, placement and status, all in one transaction."""

from veapi.model import VE, Uid
from vecontroller.store import keys
from vecontroller.store.port import Delete, Guard, Write
from vecontroller.view import View

MOST_WRITES = 5
"""Writes of one removal, at most; it has two guards."""


def removal(view: View, uid: Uid) -> tuple[list[Guard], list[Write]]:
    """Guards and writes; the VE must be in the view. Lost when its spec or placement changed meanwhile."""
    held = view.ves[uid]
    placement = view.placements.get(uid)
    guards = [
        Guard(key=keys.ve_spec(uid), mod_revision=held.mod_revision),
        Guard(key=keys.ve_placement(uid), mod_revision=placement.mod_revision if placement else 0),
    ]
    return guards, [Delete(key=key) for key in _held_keys(view, held.value)]


def _held_keys(view: View, ve: VE) -> list[str]:
    """All that the VE holds. A name or address that points to another VE is not its own."""
    found = [keys.ve_spec(ve.uid), keys.ve_placement(ve.uid), keys.ve_status(ve.uid)]
    name = view.names.get((ve.project, ve.name))
    if name is not None and name.value == ve.uid:
        found.append(keys.ve_name(ve.project, ve.name))
    network = view.cluster.value.network.name if view.cluster is not None else ""
    address = view.addresses.get((network, ve.ip))
    if address is not None and address.value == ve.uid:
        found.append(keys.address(network, ve.ip))
    return found
