"""VEs of the view as requests: those that want a host, and those that have one (tenants)."""

import msgspec

from veapi.model import VE, HostName, OnHostLoss, Spec, Uid
from vecontroller.placement.model import PLANNED, Request
from vecontroller.placement.rules import PLAIN, Rules
from vecontroller.view import Held, View


def request(view: View, held: Held[VE], rules: Rules = PLAIN) -> Request:
    """What it wants. A clone can only go where the root is that it is made of; what a plan made, first where that says."""
    wanted, ve = tenant(held, rules), held.value
    if ve.planned_host and ve.uid not in view.placements:
        return msgspec.structs.replace(wanted, host=ve.planned_host, host_why=PLANNED)
    if not ve.root.from_uid:
        return wanted
    source = host_of(view, ve.root.from_uid)
    if source is None:
        return msgspec.structs.replace(wanted, gone="the VE that it is cloned from is gone")
    return msgspec.structs.replace(
        wanted, host=source, host_why="which holds the VE that it is cloned from"
    )


def tenant(held: Held[VE], rules: Rules = PLAIN) -> Request:
    """As it is asked for, whether it has a root already or not."""
    ve = held.value
    spec = ve.spec
    return Request(
        uid=ve.uid,
        resources=spec.request,
        host=spec.host,
        since=held.create_revision,
        project=ve.project,
        labels=ve.labels,
        image=ve.image_digest,
        strategy=rules.strategy_of(ve.project),
        require=spec.require,
        prefer=spec.prefer,
        tolerate=spec.tolerate,
        near=spec.near,
        apart=spec.apart,
        spread=spec.spread,
        priority=spec.priority,
        fenced=is_fenced(spec),
    )


def is_fenced(spec: Spec) -> bool:
    """Whether such a VE may not outlive its host's lease."""
    return spec.on_host_loss is not OnHostLoss.STAY


def host_of(view: View, uid: Uid) -> HostName | None:
    """Where the VE's root is, also that of a deleted VE which is kept."""
    placement, kept = view.placements.get(uid), view.deleted.get(uid)
    if placement is not None:
        return placement.value.host
    return kept.value.placement.host if kept is not None and not kept.value.purging else None
