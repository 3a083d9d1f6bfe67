"""Whether a pool takes new VEs. One that is nearly full does not, so that those that run can go on writing."""

from dataclasses import dataclass

from veagent.storage.space import Space
from veapi.units import format_size

_SHARE = 0.02
_LEAST_FREE_BYTES = 256 << 20
_LEAST_METADATA_BYTES = 16 << 20
_MOST_SHARE = 0.1
_MOST_METADATA_SHARE = 1 / 32
HINT = "delete VEs, snapshots or images of this host, or give its pool more room (docs/operations/disks.md)"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What must be left for a new VE; None: 2 % of the pool, at least 256 MiB, but never more than a tenth of it.

    Of metadata: 16 MiB, but never more than a 32nd part of the pool.
    """

    free_bytes: int | None = None
    metadata_free_bytes: int | None = None


USUAL = Thresholds()


def refusal(found: Space, wanted: Thresholds) -> str:
    """Why nothing new is taken, with the numbers; empty when it is."""
    least = least_free(found.size_bytes, wanted)
    if found.free_bytes < least:
        return (
            f"the pool is nearly full: {format_size(found.free_bytes)} of {format_size(found.size_bytes)}"
            f" are free, and {format_size(least)} are kept for the VEs that are there"
        )
    least = least_metadata(found.size_bytes, wanted)
    if found.metadata_free_bytes < least:
        return (
            f"the pool's room for metadata is nearly full: {format_size(found.metadata_free_bytes)}"
            f" are free, and {format_size(least)} are kept for the VEs that are there"
        )
    return ""


def least_free(size_bytes: int, wanted: Thresholds) -> int:
    if wanted.free_bytes is not None:
        return wanted.free_bytes
    usual = max(_LEAST_FREE_BYTES, int(size_bytes * _SHARE))
    return min(usual, int(size_bytes * _MOST_SHARE))


def least_metadata(size_bytes: int, wanted: Thresholds) -> int:
    if wanted.metadata_free_bytes is not None:
        return wanted.metadata_free_bytes
    return min(_LEAST_METADATA_BYTES, int(size_bytes * _MOST_METADATA_SHARE))
