"""The whole set of a host out of the view: pure. What is placed there, what of it shall run, and who its peers are."""

from collections.abc import Iterator

import msgspec

from veapi.model import (
    VE,
    Action,
    Deleted,
    HostName,
    HostSet,
    Network,
    Order,
    PeerHost,
    Placement,
    Run,
    SetEntry,
    WantedImage,
)
from vecontroller.incarnation import is_unconfirmed
from vecontroller.view import View


def build(
    view: View, host: HostName, *, order: Order, images: tuple[WantedImage, ...] = ()
) -> HostSet:
    """All that the host shall have; parts sorted, so that equal wishes give equal sets. `images`: as `copies` tells."""
    cluster = view.cluster.value if view.cluster is not None else None
    return HostSet(
        order=order,
        entries=tuple(sorted((*_placed(view, host), *_kept(view, host)), key=lambda e: e.uid)),
        peers=tuple(
            PeerHost(name=name, address=view.hosts[name].value.address)
            for name in sorted(view.hosts)
            if name != host
        ),
        network=cluster.network if cluster is not None else Network(),
        images=images,
        arming=cluster.arming if cluster is not None else 0,
        disarmed=cluster is not None and cluster.disarmed_until is not None,
        unconfirmed=is_unconfirmed(view),
    )


def _placed(view: View, host: HostName) -> Iterator[SetEntry]:
    for uid in view.placed_on.get(host, ()):
        if uid in view.ves:
            ve = view.ves[uid].value
            yield _entry(ve, view.placements[uid].value, _action(ve))


def _kept(view: View, host: HostName) -> Iterator[SetEntry]:
    """Deleted VEs, and old roots of moved ones, until all of them is gone."""
    for uid in view.deleted_on.get(host, ()):
        if uid not in view.placements:
            kept = view.deleted[uid].value
            yield _entry(kept.ve, kept.placement, _action_of_kept(kept))
    yield from _left(view, host)


def _left(view: View, host: HostName) -> Iterator[SetEntry]:
    """What was moved away when the host was lost, under its placement of then: it is killed if it runs, whatever it is at."""
    gone = view.left_on.get(host, set()) - view.placed_on.get(host, set())
    for uid in gone - view.deleted_on.get(host, set()):
        kept = view.left[host, uid].value
        ve = msgspec.structs.replace(kept.ve, stop_timeout_s=0.0)
        yield _entry(ve, kept.placement, _action_of_kept(kept))


def _action_of_kept(kept: Deleted) -> Action:
    return Action.PURGE if kept.purging else Action.KEEP


def _action(ve: VE) -> Action:
    if ve.delete_requested_at is not None:
        return Action.PURGE if ve.purge else Action.KEEP
    match ve.spec.run:
        case Run.RUNNING:
            return Action.RUN
        case Run.STOPPED:
            return Action.STOP
        case Run.FROZEN:
            return Action.FREEZE


def _entry(ve: VE, placement: Placement, action: Action) -> SetEntry:
    return SetEntry(
        uid=ve.uid,
        name=ve.name,
        project=ve.project,
        action=action,
        spec=ve.spec,
        generation=ve.generation,
        placement_generation=placement.generation,
        restart_seq=ve.restart_seq,
        stop_timeout_s=ve.stop_timeout_s,
        image_digest=ve.image_digest,
        ip=ve.ip,
        mac=ve.mac,
        labels=ve.labels,
        root=ve.root,
        snapshots=ve.snapshots,
        run_generation=ve.run_generation,
        policy_generation=ve.policy_generation,
        root_since=placement.root_since,
    )
