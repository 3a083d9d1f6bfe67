"""Orphans through the API: shown as hosts tell them, adopted as they were, purged by their host, refused otherwise."""

import msgspec
import pytest

from kit.apirig import DEBIAN, NO_CONTEXT, ApiRig, api_rig
from veapi.errors import Conflict, InvalidInput, NoHostFits, NotFound
from veapi.model import (
    Action,
    HostName,
    Order,
    SetEntry,
    SnapshotWish,
    Spec,
    Uid,
    VEReport,
    VEState,
    VEStatus,
)
from veapi.v1 import api_pb2
from vecontroller.hostset import build

UID = Uid("0b87ab3a-a8e6-48d3-8681-d0702b17df12")
SPEC = Spec(
    image="debian", cpu_millis=500, memory_bytes=1 << 30, disk_bytes=4 << 30, pids=100, ip=""
)
ENTRY = SetEntry(
    uid=UID,
    name="lost",
    project="default",
    action=Action.RUN,
    spec=SPEC,
    generation=5,
    placement_generation=3,
    restart_seq=2,
    stop_timeout_s=10.0,
    image_digest=DEBIAN,
    ip="10.66.0.77",
    mac="02:76:0a:42:00:4d",
    labels={"tier": "db"},
    snapshots=(SnapshotWish(tag="s", seq=4, created_at=1.0),),
)


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        yield rig


def found(
    rig: ApiRig,
    *,
    host: str = "h1",
    entry: SetEntry | None = ENTRY,
    uid: Uid = UID,
    stay: int = 0,
) -> None:
    status = VEStatus(state=VEState.RUNNING, host=host, placement_generation=stay)
    report = VEReport(
        uid=uid,
        name=entry.name if entry else "",
        project="default",
        status=status,
        orphan=True,
        entry=entry,
    )
    rig.orphans.held.setdefault(host, []).append(report)


def ref(uid: str = UID, host: str = "") -> api_pb2.OrphanRef:
    return api_pb2.OrphanRef(uid=uid, host=host)


def adopt(**fields: str) -> api_pb2.AdoptOrphanRequest:
    return api_pb2.AdoptOrphanRequest(orphan=ref(), **fields)


async def test_they_are_listed_with_what_is_known_of_them(rig: ApiRig) -> None:
    found(rig)
    found(rig, entry=None, uid=Uid("11111111-a8e6-48d3-8681-d0702b17df12"))
    (first, second) = (await rig.orphan.List(api_pb2.ListOrphansRequest(), NO_CONTEXT)).orphans
    assert (first.name, first.host, first.status.state) == ("lost", "h1", "Running")
    assert first.spec.memory_bytes == 1 << 30
    assert not second.HasField("spec")
    with pytest.raises(NotFound, match="no host h9"):
        await rig.orphan.List(api_pb2.ListOrphansRequest(host="h9"), NO_CONTEXT)


async def test_an_adopted_one_goes_on_as_it_was(rig: ApiRig) -> None:
    """What its host is told is what it was told last: there is nothing to do for it."""
    found(rig)
    ve = await rig.orphan.Adopt(adopt(), NO_CONTEXT)
    assert (ve.name, ve.uid, ve.placement.host) == ("lost", UID, "h1")
    (entry,) = build(rig.mirror.view, HostName("h1"), order=Order()).entries
    assert entry == ENTRY


async def test_it_may_get_another_name_and_gets_another_address_when_its_own_is_taken(
    rig: ApiRig,
) -> None:
    await rig.create("lost", ip="10.66.0.77")
    found(rig)
    with pytest.raises(Conflict, match="name lost is taken"):
        await rig.orphan.Adopt(adopt(), NO_CONTEXT)
    ve = await rig.orphan.Adopt(adopt(name="found"), NO_CONTEXT)
    assert ve.name == "found"
    assert list(ve.status.addresses) == ["10.66.0.2"]
    with pytest.raises(Conflict, match=r"VE found left behind"):
        await rig.orphan.Adopt(adopt(name="again"), NO_CONTEXT)


async def test_a_snapshots_number_goes_on_from_what_its_host_has_done(rig: ApiRig) -> None:
    found(rig)
    (report,) = rig.orphans.held["h1"]
    status = msgspec.structs.replace(report.status, observed_snapshot_seq=9)
    rig.orphans.held["h1"] = [msgspec.structs.replace(report, status=status)]
    await rig.orphan.Adopt(adopt(), NO_CONTEXT)
    assert rig.mirror.view.ves[UID].value.snapshot_seq == 9


@pytest.mark.parametrize(
    "fields",
    [
        {"uid": Uid("0/b")},
        {"uid": Uid("11111111-a8e6-48d3-8681-d0702b17df12")},
        {"image_digest": "debian"},
        {"stop_timeout_s": float("nan")},
        {"stop_timeout_s": 1e12},
    ],
)
async def test_what_a_host_can_not_have_been_asked_is_not_adopted(
    rig: ApiRig, fields: dict[str, object]
) -> None:
    found(rig)
    (report,) = rig.orphans.held["h1"]
    entry = msgspec.structs.replace(ENTRY, **fields)
    rig.orphans.held["h1"] = [msgspec.structs.replace(report, entry=entry)]
    writes = rig.model.writes
    with pytest.raises((Conflict, InvalidInput)) as refused:
        await rig.orphan.Adopt(adopt(), NO_CONTEXT)
    assert refused.value.hint
    assert rig.model.writes == writes


async def test_one_without_a_record_can_only_be_purged(rig: ApiRig) -> None:
    found(rig, entry=None)
    with pytest.raises(Conflict, match="no record"):
        await rig.orphan.Adopt(adopt(name="x"), NO_CONTEXT)
    await rig.orphan.Purge(ref(), NO_CONTEXT)
    (entry,) = build(rig.mirror.view, HostName("h1"), order=Order()).entries
    assert (entry.uid, entry.action) == (UID, Action.PURGE)


async def test_a_purge_has_the_host_remove_it_and_is_not_asked_twice(rig: ApiRig) -> None:
    found(rig)
    gone = await rig.orphan.Purge(ref("lost"), NO_CONTEXT)
    assert gone.uid == UID
    (entry,) = build(rig.mirror.view, HostName("h1"), order=Order()).entries
    assert (entry.uid, entry.action) == (UID, Action.PURGE)
    with pytest.raises(Conflict, match="was deleted"):
        await rig.orphan.Purge(ref(), NO_CONTEXT)


@pytest.mark.parametrize("entry", [ENTRY, None])
async def test_a_purge_is_of_the_stay_that_its_host_has(
    rig: ApiRig, entry: SetEntry | None
) -> None:
    """Of an earlier one it would be refused there."""
    found(rig, entry=entry, stay=9)
    await rig.orphan.Purge(ref(), NO_CONTEXT)
    (asked,) = build(rig.mirror.view, HostName("h1"), order=Order()).entries
    assert (asked.action, asked.placement_generation) == (Action.PURGE, 9)


async def test_an_unknown_one_is_not_found_and_several_are_a_conflict(rig: ApiRig) -> None:
    with pytest.raises(InvalidInput):
        await rig.orphan.Purge(ref(""), NO_CONTEXT)
    found(rig)
    with pytest.raises(NotFound) as refused:
        await rig.orphan.Purge(ref("lots"), NO_CONTEXT)
    assert "lost" in refused.value.hint
    await rig.put_host("h2")
    found(rig, host="h2")
    with pytest.raises(Conflict, match=r"2 orphans .* on h2"):
        await rig.orphan.Purge(ref(), NO_CONTEXT)
    await rig.orphan.Purge(ref(host="h2"), NO_CONTEXT)


async def test_a_host_without_room_adopts_nothing(rig: ApiRig) -> None:
    found(
        rig, entry=msgspec.structs.replace(ENTRY, spec=msgspec.structs.replace(SPEC, pids=40_000))
    )
    with pytest.raises(NoHostFits, match="pids"):
        await rig.orphan.Adopt(adopt(), NO_CONTEXT)
    assert UID not in rig.mirror.view.ves


@pytest.mark.parametrize("fields", [{"name": "A"}, {"project": "../x"}])
async def test_bad_names_are_refused(rig: ApiRig, fields: dict[str, str]) -> None:
    found(rig)
    with pytest.raises(InvalidInput):
        await rig.orphan.Adopt(adopt(**fields), NO_CONTEXT)
    with pytest.raises(NotFound, match="no project"):
        await rig.orphan.Adopt(adopt(project="other"), NO_CONTEXT)
