"""Room on a host for what a VE that is placed there shall have more: refused with numbers, or reserved while it is written.

The scheduler and this look at one ledger: what the view shows, what is reserved here, and what the scheduler gives away at
the moment. Both decide between two awaits, so neither gives away what the other does.
"""

from contextlib import AbstractContextManager

from veapi.errors import NoHostFits
from veapi.model import HostName, Resources
from vecontroller.api.ports import ApiDeps
from vecontroller.placement import free, shortage


def grown(old: Resources, new: Resources) -> Resources:
    """What is more of each; what is less is 0."""
    return Resources(
        cpu_millis=max(0, new.cpu_millis - old.cpu_millis),
        memory_bytes=max(0, new.memory_bytes - old.memory_bytes),
        disk_bytes=max(0, new.disk_bytes - old.disk_bytes),
        pids=max(0, new.pids - old.pids),
    )


def room_for(
    deps: ApiDeps, host: HostName, more: Resources, *, what: str
) -> AbstractContextManager[None]:
    """Holds the room; NoHostFits when it is not there. To be entered before anything is awaited."""
    left = free(
        deps.mirror.view, host, [*deps.reserved.on(host), *deps.scheduler.coming(host)], deps.rules
    )
    if left is None:
        raise NoHostFits(f"host {host} is not known", hint="see `vectl host list`")
    lacks = shortage(left, more)
    if lacks:
        raise NoHostFits(
            f"host {host} has too little {' and '.join(lacks)} {what}",
            hint=f"ask for less, or make room there: `vectl host show {host}`",
        )
    return deps.reserved.holding(host, more)
