"""The whole set of a host out of the view: pure. What is placed there, what of it shall run, and who its peers are."""

from veapi.model import (
    VE,
    Action,
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
from vecontroller.view import View


def build(view: View, host: HostName, *, order: Order) -> HostSet:
    """All that the host shall have; parts sorted, so that equal wishes give equal sets."""
    return HostSet(
        order=order,
        entries=tuple(
            _entry(view.ves[uid].value, view.placements[uid].value)
            for uid in sorted(view.placed_on.get(host, ()))
            if uid in view.ves
        ),
        peers=tuple(
            PeerHost(name=name, address=view.hosts[name].value.address)
            for name in sorted(view.hosts)
            if name != host
        ),
        network=view.cluster.value.network if view.cluster is not None else Network(),
        images=tuple(
            WantedImage(digest=digest, blob_digest=view.images[digest].value.blob_digest)
            for digest in sorted(view.images)
        ),
    )


def _action(ve: VE) -> Action:
    if ve.delete_requested_at is not None:
        return Action.PURGE
    return Action.STOP if ve.spec.run is Run.STOPPED else Action.RUN


def _entry(ve: VE, placement: Placement) -> SetEntry:
    return SetEntry(
        uid=ve.uid,
        name=ve.name,
        project=ve.project,
        action=_action(ve),
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
    )
