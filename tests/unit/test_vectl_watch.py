"""Streams that follow each other tell one sequence."""

from veapi.v1 import api_pb2
from veapi.v1.types_pb2 import VE
from vectl.changes import ChangeKind
from vectl.watch import Known

Kind = api_pb2.VEChange


def told(
    known: Known, kind: "api_pb2.VEChange.Kind.ValueType", uid: str = "", gen: int = 1
) -> list[tuple[str, str]]:
    message = Kind(kind=kind, ve=VE(uid=uid, name=uid, generation=gen))
    return [(change.kind.name, change.ve.uid) for change in known.fold(message)]


def test_a_snapshot_is_told_as_it_comes() -> None:
    known = Known()
    assert told(known, Kind.KIND_ADDED, "a") == [("ADDED", "a")]
    assert told(known, Kind.KIND_SYNCED) == [("SYNCED", "")]
    assert told(known, Kind.KIND_CHANGED, "a", 2) == [("CHANGED", "a")]
    assert told(known, Kind.KIND_DELETED, "a", 2) == [("DELETED", "a")]


def test_a_second_snapshot_tells_only_what_differs() -> None:
    known = Known()
    for uid in ("same", "changed", "gone"):
        told(known, Kind.KIND_ADDED, uid)
    told(known, Kind.KIND_SYNCED)
    known.reopened()
    assert told(known, Kind.KIND_ADDED, "same") == []
    assert told(known, Kind.KIND_ADDED, "changed", 2) == [("CHANGED", "changed")]
    assert told(known, Kind.KIND_ADDED, "new") == [("ADDED", "new")]
    assert told(known, Kind.KIND_SYNCED) == [("DELETED", "gone")]


def test_a_stream_that_breaks_within_its_first_snapshot_is_synced_by_the_next() -> None:
    known = Known()
    told(known, Kind.KIND_ADDED, "a")
    known.reopened()
    assert told(known, Kind.KIND_SYNCED) == [("DELETED", "a"), ("SYNCED", "")]
    assert ChangeKind.SYNCED.name == "SYNCED"
