"""Quotas of projects: pure. What VEs count for, what a project has, and what of a wish is too much.

Only growth is refused: a project may have more than its quota when that was lowered, and then everything may still shrink.
"""

from veapi.model import VE, Deleted, ProjectAmounts

NOTHING = ProjectAmounts()
_GIB = 1 << 30
_FIELDS = ProjectAmounts.__struct_fields__


def of_ve(ve: VE) -> ProjectAmounts:
    """Also of one that is stopped, waits or is being deleted: by its limits, whatever it uses."""
    request = ve.spec.request
    return ProjectAmounts(
        ves=1,
        cpu_millis=request.cpu_millis,
        memory_bytes=request.memory_bytes,
        disk_bytes=request.disk_bytes,
        addresses=1 if ve.ip else 0,
        snapshots=_snapshots(ve),
    )


def of_deleted(kept: Deleted) -> ProjectAmounts:
    """What its root, with its snapshots, uses until it is purged."""
    return ProjectAmounts(disk_bytes=kept.disk_used_bytes, snapshots=_snapshots(kept.ve))


def added(one: ProjectAmounts, other: ProjectAmounts, *, sign: int = 1) -> ProjectAmounts:
    """Both together; with sign -1 the one without the other. Called for each VE that the store tells of: no loop."""
    return ProjectAmounts(
        ves=one.ves + sign * other.ves,
        cpu_millis=one.cpu_millis + sign * other.cpu_millis,
        memory_bytes=one.memory_bytes + sign * other.memory_bytes,
        disk_bytes=one.disk_bytes + sign * other.disk_bytes,
        addresses=one.addresses + sign * other.addresses,
        snapshots=one.snapshots + sign * other.snapshots,
    )


def growth(before: ProjectAmounts, after: ProjectAmounts) -> ProjectAmounts:
    """What is more of each; what is less is 0."""
    return ProjectAmounts(
        **{field: max(0, getattr(after, field) - getattr(before, field)) for field in _FIELDS}
    )


def exceeded(quota: ProjectAmounts, used: ProjectAmounts, asked: ProjectAmounts) -> tuple[str, ...]:
    """Every resource of which more is asked than is left, with numbers; empty: it may be."""
    return tuple(
        f"{_NAMES[field]} {_number(field, has)} of {_number(field, limit)} used, {_number(field, more)} asked"
        for field in _FIELDS
        for limit, has, more in [
            (getattr(quota, field), getattr(used, field), getattr(asked, field))
        ]
        if limit and more > 0 and has + more > limit
    )


def _snapshots(ve: VE) -> int:
    """Those that are to stay. One that is leaving may be there for a while, and still fills the VE's own disk limit."""
    return sum(not wish.deleting for wish in ve.snapshots)


_NAMES = {
    "ves": "VEs",
    "cpu_millis": "cpu",
    "memory_bytes": "memory",
    "disk_bytes": "disk",
    "addresses": "addresses",
    "snapshots": "snapshots",
}


def _number(field: str, amount: int) -> str:
    if field == "cpu_millis":
        return f"{amount / 1000:g}"
    return f"{amount / _GIB:.4g} GiB" if field.endswith("_bytes") else str(amount)
