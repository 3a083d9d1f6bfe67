"""Where a VE lived and why it moved: kept with its placement, the last 20 times."""

import msgspec

from veapi.model import HostName, Placement, Stay

STAYS_KEPT = 20


def moved(
    before: Placement,
    *,
    host: HostName,
    at: float,
    message: str,
    left: str,
    new_root: bool = False,
) -> Placement:
    """The placement after `before`: on that host from `at` (Unix seconds) on. `left`: why it is there no more.

    `new_root`: it begins anew of its image, and what hosts have of it from before does not count.
    """
    stay = Stay(
        host=before.host,
        generation=before.generation,
        began_at=before.decided_at,
        ended_at=at,
        message=before.message,
        ended=left,
    )
    return msgspec.structs.replace(
        before,
        host=host,
        generation=before.generation + 1,
        decided_at=at,
        message=message,
        past=(*before.past, stay)[-STAYS_KEPT:],
        waited_since=0.0,
        waited_for="",
        root_since=before.generation + 1 if new_root else before.root_since,
    )
