"""What a move is in the store: pure. One transaction, lost when anything changed that the decision read.

The VE begins anew of its image on the new host. What it had on the old one is kept there, as of a deleted VE (ve/left),
and its snapshots, which are only there, are no wishes of it any more.
"""

from collections.abc import Iterable

import msgspec

from veapi.model import VE, Deleted, HostName, Resources, RootWish, Value
from vecontroller.failover.judge import May
from vecontroller.observed import Change
from vecontroller.stays import moved
from vecontroller.store import keys, values
from vecontroller.store.port import Delete, Guard, Put, Write
from vecontroller.view import View

BATCH_VES = 18
"""Five guards each at most, three for all: below the limit of a transaction."""


class Move(Value, frozen=True, kw_only=True):
    """A VE that may be moved, and where to. `message`: why there; `left`: why it leaves."""

    may: May
    host: HostName
    message: str
    left: str

    @property
    def ve(self) -> VE:
        return self.may.ve.value

    @property
    def old_host(self) -> HostName:
        return self.may.placement.value.host

    @property
    def resources(self) -> Resources:
        return self.ve.spec.request


def of_all(view: View, old_host: HostName) -> list[Guard]:
    """What every move from that host relies on: what it said of itself, what operators say of it, and the cluster's record."""
    facts, spec = view.hosts.get(old_host), view.host_specs.get(old_host)
    cluster = view.cluster
    return [
        Guard(key=keys.host_status(old_host), mod_revision=facts.mod_revision if facts else 0),
        Guard(key=keys.host_spec(old_host), mod_revision=spec.mod_revision if spec else 0),
        Guard(key=keys.CLUSTER, mod_revision=cluster.mod_revision if cluster else 0),
    ]


def written(view: View, move: Move, *, at: float, keep_s: float, op_id: str) -> Change:
    """`at`: now, in Unix seconds; `keep_s`: how long roots of deleted VEs are kept."""
    uid, may = move.ve.uid, move.may
    old_left, new_left = keys.ve_left(move.old_host, uid), keys.ve_left(move.host, uid)
    guards = [
        Guard(key=keys.ve_spec(uid), mod_revision=may.ve.mod_revision),
        Guard(key=keys.ve_placement(uid), mod_revision=may.placement.mod_revision),
        Guard(key=keys.ve_status(uid), mod_revision=may.status.mod_revision if may.status else 0),
        Guard(key=old_left, mod_revision=_left_at(view, move.old_host, move)),
    ]
    placement = moved(
        may.placement.value,
        host=move.host,
        at=at,
        message=move.message,
        left=_told(move),
        new_root=True,
    )
    placement = msgspec.structs.replace(placement, op_id=op_id)
    writes: list[Write] = [
        Put(key=keys.ve_placement(uid), value=values.encode_placement(placement)),
        Put(key=old_left, value=values.encode_deleted(_left(move, at, keep_s, op_id))),
    ]
    anew = msgspec.structs.replace(
        move.ve, root=RootWish(seq=move.ve.root.seq), snapshots=(), op_id=op_id
    )
    if (anew.root, anew.snapshots) != (move.ve.root, move.ve.snapshots):
        writes.append(Put(key=keys.ve_spec(uid), value=values.encode_ve(anew)))
    if (move.host, uid) in view.left:
        guards.append(Guard(key=new_left, mod_revision=_left_at(view, move.host, move)))
        writes.append(Delete(key=new_left))
    return Change(tuple(guards), tuple(writes))


def _left_at(view: View, host: HostName, move: Move) -> int:
    held = view.left.get((host, move.ve.uid))
    return held.mod_revision if held is not None else 0


def _left(move: Move, at: float, keep_s: float, op_id: str) -> Deleted:
    return Deleted(
        ve=move.ve,
        placement=move.may.placement.value,
        deleted_at=at,
        purge_at=at + keep_s,
        purging=keep_s <= 0,
        left=f"{move.left}; the VE lives elsewhere since",
        unconfirmed=True,
        op_id=op_id,
    )


def _told(move: Move) -> str:
    count = len(move.ve.snapshots)
    if not count:
        return move.left
    return f"{move.left}; its {count} snapshot{'s'[: count > 1]} stayed there"


def touched(view: View, moves: Iterable[Move], op_id: str) -> Change:
    """Writes the placements as they are: afterwards an earlier write on the same guards can't be applied any more."""
    held = {move.ve.uid: view.placements.get(move.ve.uid) for move in moves}
    there = {uid: each for uid, each in held.items() if each is not None}
    return Change(
        tuple(
            Guard(key=keys.ve_placement(uid), mod_revision=each.mod_revision)
            for uid, each in there.items()
        ),
        tuple(
            Put(
                key=keys.ve_placement(uid),
                value=values.encode_placement(msgspec.structs.replace(each.value, op_id=op_id)),
            )
            for uid, each in there.items()
        ),
    )
