"""Times on the wire."""

from google.protobuf.timestamp_pb2 import Timestamp


def to_timestamp(seconds: float | None) -> Timestamp | None:
    """None stays None: protobuf takes it as "not set"."""
    if seconds is None:
        return None
    stamp = Timestamp()
    stamp.FromNanoseconds(round(seconds * 1_000_000) * 1_000)
    return stamp


def from_timestamp(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos / 1e9
