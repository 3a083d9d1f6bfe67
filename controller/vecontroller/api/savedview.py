"""A world on the wire and in a file: what `vectl simulate --save-view` carries away, and reads again."""

from enum import StrEnum
from typing import TypeVar

from veapi import codec, validate, wishes
from veapi.errors import InvalidInput
from veapi.model import Digest, HostName, HostState, Resources, Uid
from veapi.v1 import simulate_pb2, types_pb2
from vecontroller.placement import HostRow, Request, Strategy
from vecontroller.placement.board import amounts
from vecontroller.whatif import Known, World
from vecontroller.whatif.hosts import HOSTS_LIMIT

VERSION = 1
_MOST = 1 << 60
"""Of any amount: sums of them stay in 64 bits."""
E = TypeVar("E", bound=StrEnum)
_HINT = "take a view that `vectl simulate --save-view` of this version wrote"


def saved(world: World) -> simulate_pb2.SavedView:
    """Without the cluster's name and the time."""
    placed = [(each, row.name) for row in world.hosts for each in row.tenants]
    view = simulate_pb2.SavedView(
        version=VERSION,
        revision=world.revision,
        hosts=[_host_out(row) for row in world.hosts],
        images=world.images,
    )
    view.ves.extend(_ve_out(each, world.known[each.uid], host) for each, host in placed)
    view.ves.extend(_ve_out(each, world.known[each.uid], HostName("")) for each in world.waiting)
    return view


def world_in(view: simulate_pb2.SavedView) -> World:
    """InvalidInput: of another version, or not whole."""
    if view.version != VERSION:
        raise InvalidInput(
            f"view: it is of version {view.version}, this controller reads {VERSION}", hint=_HINT
        )
    if len(view.hosts) > HOSTS_LIMIT:
        raise InvalidInput(
            f"view: {len(view.hosts)} hosts; at most {HOSTS_LIMIT}", hint="simulate a part of it"
        )
    tenants: dict[str, list[Request]] = {host.name: [] for host in view.hosts}
    waiting: list[Request] = []
    for ve in view.ves:
        if ve.placed_on and ve.placed_on not in tenants:
            raise InvalidInput(
                f"view: {ve.name[:80]} is on {ve.placed_on[:80]}, which is no host of it",
                hint=_HINT,
            )
        (tenants[ve.placed_on] if ve.placed_on else waiting).append(_ve_in(ve))
    known = {Uid(ve.uid): Known(project=ve.project, name=ve.name) for ve in view.ves}
    if len(tenants) < len(view.hosts) or len(known) < len(view.ves):
        raise InvalidInput("view: a host or a VE is there twice", hint=_HINT)
    return World(
        hosts=tuple(_host_in(host, tenants[host.name]) for host in view.hosts),
        waiting=tuple(waiting),
        known=known,
        images={tag: Digest(digest) for tag, digest in view.images.items()},
        revision=view.revision,
    )


def _host_out(row: HostRow) -> simulate_pb2.SavedHost:
    return simulate_pb2.SavedHost(
        name=row.name,
        rack=row.rack,
        room=codec.resources_out(row.capacity),
        committed=codec.resources_out(row.committed),
        placed=row.placed,
        state=row.state.value,
        connected=row.connected,
        refuses=row.refuses,
        unfenced=row.unfenced,
        labels=row.labels,
        taints=row.taints,
        images=sorted(row.images),
    )


def _host_in(host: simulate_pb2.SavedHost, tenants: list[Request]) -> HostRow:
    return HostRow(
        name=HostName(validate.name("view.hosts.name", host.name)),
        rack=host.rack,
        capacity=_resources_in(host.room),
        committed=_resources_in(host.committed),
        placed=max(0, host.placed),
        state=_one_of(HostState, "state", host.state),
        connected=host.connected,
        refuses=host.refuses,
        unfenced=host.unfenced,
        tenants=tuple(tenants),
        labels=dict(host.labels),
        taints=tuple(host.taints),
        images=frozenset(host.images),
    )


def _resources_in(message: types_pb2.Resources) -> Resources:
    found = codec.resources_in(message)
    if not all(0 <= amount <= _MOST for amount in amounts(found)):
        raise InvalidInput(f"view: an amount is not from 0 to {_MOST}", hint=_HINT)
    return found


def _one_of(choices: type[E], field: str, text: str) -> E:
    try:
        return choices(text)
    except ValueError:
        raise InvalidInput(f"view: {field} {text[:80]!r} is not known", hint=_HINT) from None


def _ve_out(each: Request, known: Known, host: HostName) -> simulate_pb2.SavedVE:
    return simulate_pb2.SavedVE(
        uid=each.uid,
        name=known.name,
        project=known.project,
        resources=codec.resources_out(each.resources),
        placed_on=host,
        host=each.host,
        host_why=each.host_why,
        gone=each.gone,
        since=each.since,
        labels=each.labels,
        image=each.image,
        strategy=each.strategy.value,
        require=each.require,
        prefer=each.prefer,
        tolerate=each.tolerate,
        near=each.near,
        apart=each.apart,
        spread=each.spread,
        priority=each.priority,
        fenced=each.fenced,
    )


def _ve_in(ve: simulate_pb2.SavedVE) -> Request:
    return Request(
        uid=Uid(ve.uid),
        resources=_resources_in(ve.resources),
        host=ve.host,
        host_why=ve.host_why,
        gone=ve.gone,
        since=ve.since,
        project=ve.project,
        labels=dict(ve.labels),
        image=ve.image,
        strategy=_one_of(Strategy, "strategy", ve.strategy),
        require=wishes.read("require", ve.require),
        prefer=wishes.read("prefer", ve.prefer),
        tolerate=wishes.read("tolerate", ve.tolerate),
        near=wishes.read("near", ve.near),
        apart=wishes.read("apart", ve.apart),
        spread=wishes.read("spread", ve.spread),
        priority=ve.priority,
        fenced=ve.fenced,
    )
