"""What each host has given away: placements (also of VEs that are being deleted, until they are gone) and what is in flight."""

from collections.abc import Callable, Iterable, Mapping

from veapi.model import HostFacts, HostName, HostState, Resources
from vecontroller.placement.model import HostRow
from vecontroller.view import View

RACK_LABEL = "rack"


def committed(view: View, host: HostName) -> Resources:
    """The sum of what is placed on the host."""
    cpu = memory = disk = pids = 0
    for uid in view.placed_on.get(host, ()):
        held = view.ves.get(uid)
        if held is not None:
            spec = held.value.spec
            cpu += spec.cpu_millis
            memory += spec.memory_bytes
            disk += spec.disk_bytes
            pids += spec.pids
    return Resources(cpu_millis=cpu, memory_bytes=memory, disk_bytes=disk, pids=pids)


def host_rows(
    view: View,
    *,
    state: Callable[[HostName], HostState],
    connected: Callable[[HostName], bool],
    in_flight: Mapping[HostName, Iterable[Resources]],
) -> list[HostRow]:
    """A row for each known host, in the order of names."""
    return [
        _row(
            view,
            name,
            view.hosts[name].value,
            tuple(in_flight.get(name, ())),
            state(name),
            connected(name),
        )
        for name in sorted(view.hosts)
    ]


def _row(
    view: View,
    name: HostName,
    facts: HostFacts,
    coming: tuple[Resources, ...],
    state: HostState,
    connected: bool,  # noqa: FBT001
) -> HostRow:
    return HostRow(
        name=name,
        rack=facts.labels.get(RACK_LABEL, ""),
        capacity=facts.capacity,
        committed=sum(coming, committed(view, name)),
        placed=len(view.placed_on.get(name, ())) + len(coming),
        state=state,
        connected=connected,
    )
