"""What each host has given away: placements (also of VEs that are being deleted, until they are gone), the disk of deleted
VEs that it keeps and of the images that it holds, and what is in flight.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from veapi.model import VE, HostName, HostState, Resources
from vecontroller.placement.model import HostRow, Request
from vecontroller.placement.requests import tenant
from vecontroller.placement.rules import PLAIN, Rules
from vecontroller.view import View

RACK_LABEL = "rack"


def committed(view: View, host: HostName) -> Resources:
    """The sum of what is placed on the host and of what else is on its disk."""
    cpu = memory = pids = 0
    disk = _kept_bytes(view, host) + _images_bytes(view, host)
    for uid in view.placed_on.get(host, ()):
        held = view.ves.get(uid)
        if held is not None:
            taken = given(view, held.value)
            cpu += taken.cpu_millis
            memory += taken.memory_bytes
            disk += taken.disk_bytes
            pids += taken.pids
    amount = Resources(cpu_millis=cpu, memory_bytes=memory, disk_bytes=disk, pids=pids)
    return sum(_left(view, host), amount)


def _left(view: View, host: HostName) -> Iterator[Resources]:
    """Of VEs that were moved away: all that they had, until the host says that they are down; then what is on its disk."""
    for uid in view.left_on.get(host, ()):
        kept = view.left[host, uid].value
        used = Resources(disk_bytes=kept.disk_used_bytes)
        yield kept.ve.spec.request if kept.unconfirmed else used


def given(view: View, ve: VE) -> Resources:
    """What a placed VE takes: of each resource what is asked, or what its host still holds it to when that is more.

    A host that has not made it smaller yet, or refused because more is in use, lets it have the old amount.
    """
    status, placement = view.statuses.get(ve.uid), view.placements.get(ve.uid)
    if status is None or placement is None:
        return ve.spec.request
    if status.value.placement_generation != placement.value.generation:
        return ve.spec.request
    return ve.spec.request | status.value.in_force


def free(
    view: View, host: HostName, coming: Iterable[Resources], rules: Rules = PLAIN
) -> Resources | None:
    """What the host has left beside what is coming; below 0 where it gave away more. None: the host is not known."""
    facts = view.hosts.get(host)
    if facts is None:
        return None
    capacity, taken = rules.room(facts.value), sum(coming, committed(view, host))
    return Resources(
        cpu_millis=capacity.cpu_millis - taken.cpu_millis,
        memory_bytes=capacity.memory_bytes - taken.memory_bytes,
        disk_bytes=capacity.disk_bytes - taken.disk_bytes,
        pids=capacity.pids - taken.pids,
    )


def host_rows(
    view: View,
    *,
    state: Callable[[HostName], HostState],
    connected: Callable[[HostName], bool],
    in_flight: Mapping[HostName, Iterable[Resources]],
    rules: Rules = PLAIN,
) -> list[HostRow]:
    """A row for each known host, in the order of names."""
    rows = []
    for name in sorted(view.hosts):
        row = host_row(view, name, rules, state=state(name), connected=connected(name))
        rows.append(coming_too(row, tuple(in_flight.get(name, ()))))
    return rows


def host_row(
    view: View, name: HostName, rules: Rules, *, state: HostState, connected: bool
) -> HostRow:
    """Of a known host, by what the view shows."""
    facts = view.hosts[name].value
    return HostRow(
        name=name,
        rack=facts.labels.get(RACK_LABEL, ""),
        capacity=rules.room(facts),
        committed=committed(view, name),
        placed=len(view.placed_on.get(name, ())),
        state=state,
        connected=connected,
        refuses=refusal_of(view, name),
        unfenced=not facts.fence.live or bool(facts.fence.refuses),
        tenants=_tenants(view, name, rules),
        labels=facts.labels,
        taints=taints_of(view, name),
        images=frozenset(image.digest for image in facts.images),
    )


def refusal_of(view: View, host: HostName) -> str:
    """Why a known host takes no new VEs, by what it says itself and by what operators say; empty: it does."""
    held = view.host_specs.get(host)
    if held is not None and held.value.cordoned:
        why = held.value.cordon_reason
        return f"cordoned: {why}" if why else "cordoned"
    return view.hosts[host].value.refuses


def coming_too(row: HostRow, coming: Sequence[Resources]) -> HostRow:
    """With what is on its way there."""
    if not coming:
        return row
    return msgspec.structs.replace(
        row, committed=sum(coming, row.committed), placed=row.placed + len(coming)
    )


def taints_of(view: View, host: HostName) -> tuple[str, ...]:
    """What operators say that VEs must tolerate there."""
    held = view.host_specs.get(host)
    return held.value.taints if held is not None else ()


def _tenants(view: View, host: HostName, rules: Rules) -> tuple[Request, ...]:
    """By uid, so that equal hosts are equal rows."""
    held = (view.ves.get(uid) for uid in sorted(view.placed_on.get(host, ())))
    return tuple(tenant(each, rules) for each in held if each is not None)


def _kept_bytes(view: View, host: HostName) -> int:
    """Of deleted VEs. What is being removed counts until it is gone."""
    kept = (view.deleted[uid].value for uid in view.deleted_on.get(host, ()))
    return sum(each.disk_used_bytes for each in kept)


def _images_bytes(view: View, host: HostName) -> int:
    """Of the images that the host holds, unpacked and as they came."""
    held = view.hosts.get(host)
    images = held.value.images if held is not None else ()
    return sum(image.size_bytes + image.blob_bytes for image in images)
