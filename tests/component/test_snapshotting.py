"""Snapshots by schedule: what is due when, what is kept, what leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.apirig import NO_CONTEXT, ApiRig, api_rig
from veapi.model import (
    VE,
    HostName,
    HostState,
    Placement,
    SnapshotStatus,
    Spec,
    Uid,
    VEState,
    VEStatus,
)
from veapi.v1 import api_pb2
from veapi.validate import SPEC_LIMIT_BYTES
from vecontroller.snapshotting import Snapshotting, next_ve
from vecontroller.store import values
from vecontroller.view import Held, View

DAY = 86_400.0
HOUR = 3_600.0


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        yield rig


def loop_of(rig: ApiRig) -> Snapshotting:
    return Snapshotting(
        rig.mirror,
        rig.deps.writer,
        rig.hosts,
        rig.topic,
        rig.clock,
        new_op_id=rig.deps.ids.new,
        reserved=rig.deps.reserved,
    )


async def with_schedule(rig: ApiRig, text: str) -> Uid:
    ve = await rig.running()
    request = api_pb2.SetVERequest(ve=api_pb2.VERef(name="web"), fields=["snapshot_schedule"])
    request.spec.snapshot_schedule = text
    await rig.ve.Set(request, NO_CONTEXT)
    return Uid(ve.uid)


def wishes(rig: ApiRig, uid: Uid) -> list[str]:
    return [
        f"{each.tag}{' leaving' if each.deleting else ''}"
        for each in rig.mirror.view.ves[uid].value.snapshots
    ]


async def obey(rig: ApiRig, uid: Uid, *failing: int) -> None:
    """The host does what it is asked."""
    has = tuple(
        SnapshotStatus(
            tag=each.tag,
            seq=each.seq,
            taken_at=each.created_at,
            error="no room" * (each.seq in failing),
        )
        for each in rig.mirror.view.ves[uid].value.snapshots
        if not each.deleting
    )
    upto = rig.mirror.view.ves[uid].value.snapshot_seq
    await rig.report(uid, VEState.RUNNING, snapshots=has, observed_snapshot_seq=upto)


async def after(rig: ApiRig, seconds: float, uid: Uid, *failing: int) -> list[str]:
    """What is asked for once host and loop have both had their say."""
    rig.clock.now += seconds
    for _ in range(3):
        await loop_of(rig).look_once()
        await obey(rig, uid, *failing)
    return wishes(rig, uid)


async def test_the_first_is_due_at_once_and_the_next_after_its_time(rig: ApiRig) -> None:
    uid = await with_schedule(rig, "every 6h keep 4")
    assert len(await after(rig, 0, uid)) == 1
    assert len(await after(rig, 5.9 * HOUR, uid)) == 1
    assert len(await after(rig, 0.2 * HOUR, uid)) == 2


async def test_only_the_newest_are_kept_and_a_persons_own_always(rig: ApiRig) -> None:
    uid = await with_schedule(rig, "daily keep 2")
    await rig.ve.TakeSnapshot(
        api_pb2.SnapshotRef(ve=api_pb2.VERef(name="web"), tag="mine"), NO_CONTEXT
    )
    for _ in range(4):
        found = await after(rig, DAY, uid)
    assert found[0] == "mine"
    assert [each[:5] for each in found[1:]] == ["daily", "daily"]
    assert len({*found}) == 3


async def test_rules_keep_their_own(rig: ApiRig) -> None:
    uid = await with_schedule(rig, "every 6h keep 3, daily keep 2")
    for _ in range(12):
        found = await after(rig, 6 * HOUR, uid)
    assert sum(each.startswith("every-6h") for each in found) == 3
    assert sum(each.startswith("daily") for each in found) == 2


async def test_a_long_silence_makes_one_due_not_many(rig: ApiRig) -> None:
    uid = await with_schedule(rig, "hourly keep 5")
    await after(rig, 0, uid)
    assert len(await after(rig, 30 * DAY, uid)) == 2


async def test_a_failed_one_goes_when_there_is_a_newer_one_and_pushes_no_good_one_out(
    rig: ApiRig,
) -> None:
    uid = await with_schedule(rig, "hourly keep 2")
    await after(rig, HOUR, uid)
    await after(rig, HOUR, uid)
    assert len(await after(rig, HOUR, uid, 3)) == 3, "two good ones and the failed one"
    found = await after(rig, HOUR, uid, 3)
    assert len([each for each in found if "leaving" not in each]) == 2


@pytest.mark.parametrize("state", [HostState.SILENT, HostState.UNKNOWN])
async def test_nothing_is_asked_of_a_host_that_is_away(rig: ApiRig, state: HostState) -> None:
    uid = await with_schedule(rig, "hourly keep 2")
    rig.hosts.states["h1"] = state
    rig.clock.now += 9 * HOUR
    await loop_of(rig).look_once()
    assert wishes(rig, uid) == []


async def test_a_ve_that_is_being_deleted_takes_no_more(rig: ApiRig) -> None:
    uid = await with_schedule(rig, "hourly keep 2")
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=api_pb2.VERef(name="web")), NO_CONTEXT)
    await loop_of(rig).look_once()
    assert wishes(rig, uid) == []


async def test_a_schedule_that_is_taken_back_leaves_what_was_taken(rig: ApiRig) -> None:
    uid = await with_schedule(rig, "hourly keep 2")
    before = await after(rig, HOUR, uid)
    await with_schedule_gone(rig)
    assert await after(rig, 9 * HOUR, uid) == before


async def with_schedule_gone(rig: ApiRig) -> None:
    request = api_pb2.SetVERequest(ve=api_pb2.VERef(name="web"), fields=["snapshot_schedule"])
    await rig.ve.Set(request, NO_CONTEXT)


async def test_a_leaving_one_goes_once_its_host_has_it_no_more(rig: ApiRig) -> None:
    uid = await with_schedule(rig, "")
    ref = api_pb2.SnapshotRef(ve=api_pb2.VERef(name="web"), tag="mine")
    await rig.ve.TakeSnapshot(ref, NO_CONTEXT)
    has = SnapshotStatus(tag="mine", seq=1, taken_at=1.0)
    await rig.report(uid, VEState.RUNNING, snapshots=(has,))
    await rig.ve.DeleteSnapshot(ref, NO_CONTEXT)
    await loop_of(rig).look_once()
    assert wishes(rig, uid) == ["mine leaving"]
    await rig.report(uid, VEState.RUNNING, observed_snapshot_seq=1)
    await loop_of(rig).look_once()
    assert wishes(rig, uid) == []
    await rig.ve.TakeSnapshot(ref, NO_CONTEXT)
    (wish,) = rig.mirror.view.ves[uid].value.snapshots
    assert wish.seq == 2, "numbers are never given twice"


async def test_one_that_is_taken_back_while_it_is_taken_does_not_come_back(rig: ApiRig) -> None:
    uid = await with_schedule(rig, "")
    ref = api_pb2.SnapshotRef(ve=api_pb2.VERef(name="web"), tag="mine")
    await rig.ve.TakeSnapshot(ref, NO_CONTEXT)
    await rig.ve.DeleteSnapshot(ref, NO_CONTEXT)
    await loop_of(rig).look_once()
    assert wishes(rig, uid) == ["mine leaving"], "its host may be taking it"
    has = SnapshotStatus(tag="mine", seq=1, taken_at=1.0)
    await rig.report(uid, VEState.RUNNING, snapshots=(has,), observed_snapshot_seq=1)
    await loop_of(rig).look_once()
    assert wishes(rig, uid) == ["mine leaving"]
    await rig.report(uid, VEState.RUNNING, observed_snapshot_seq=1)
    await loop_of(rig).look_once()
    assert wishes(rig, uid) == []


async def test_one_that_its_host_lost_ends_no_schedule(rig: ApiRig) -> None:
    uid = await with_schedule(rig, "every 6h keep 4")
    (lost,) = await after(rig, 0, uid)
    await rig.report(uid, VEState.RUNNING, observed_snapshot_seq=1)
    rig.clock.now += 6 * HOUR
    await loop_of(rig).look_once()
    assert wishes(rig, uid)[0] == f"{lost} leaving"
    await loop_of(rig).look_once()
    assert len(wishes(rig, uid)) == 1


async def test_a_schedule_fills_no_record_so_far_that_its_ve_can_not_be_stopped(
    rig: ApiRig,
) -> None:
    uid = await with_schedule(rig, "every 1m keep 64")
    request = api_pb2.SetVERequest(ve=api_pb2.VERef(name="web"), fields=["command"])
    request.spec.command.extend(["/sbin/init", "x" * 4000])
    for number in range(40):
        request.labels[f"{number}{'k' * 60}"] = "v" * 20
    request.restart = True
    await rig.ve.Set(request, NO_CONTEXT)
    for _ in range(20):
        await after(rig, 60, uid)
    ve = rig.mirror.view.ves[uid].value
    assert len(values.encode_ve(ve)) <= SPEC_LIMIT_BYTES
    assert 2 < len(ve.snapshots) < 20
    for tag in [wish.tag for wish in ve.snapshots]:
        ref = api_pb2.SnapshotRef(ve=api_pb2.VERef(name="web"), tag=tag)
        await rig.ve.DeleteSnapshot(ref, NO_CONTEXT)
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=api_pb2.VERef(name="web")), NO_CONTEXT)
    assert rig.mirror.view.ves[uid].value.delete_requested_at is not None


async def test_a_clock_that_was_years_ahead_ends_no_schedule(rig: ApiRig) -> None:
    uid = await with_schedule(rig, "daily keep 3")
    rig.clock.now += 900 * DAY
    await after(rig, 0, uid)
    rig.clock.now -= 899 * DAY
    assert len(await after(rig, 0, uid)) == 2
    assert len(await after(rig, 0.9 * DAY, uid)) == 2
    assert len(await after(rig, 0.2 * DAY, uid)) == 3


async def test_what_a_clone_is_still_to_be_made_of_is_not_trimmed(rig: ApiRig) -> None:
    uid = await with_schedule(rig, "daily keep 1")
    (first,) = await after(rig, 0, uid)
    request = api_pb2.CloneVERequest(source=api_pb2.VERef(name="web"), snapshot=first)
    request.ve.name = "copy"
    copy = await rig.ve.Clone(request, NO_CONTEXT)
    await rig.place(copy.uid)
    assert (await after(rig, DAY, uid))[0] == first
    await rig.report(copy.uid, VEState.RUNNING)
    assert first not in await after(rig, 0, uid)


async def test_a_look_at_what_changed_leaves_others_alone(rig: ApiRig) -> None:
    uid = await with_schedule(rig, "daily keep 1")
    await loop_of(rig).look_once([])
    assert wishes(rig, uid) == []
    await loop_of(rig).look_once([uid, Uid("gone")])
    assert len(wishes(rig, uid)) == 1


async def test_nothing_is_written_when_nothing_is_due(rig: ApiRig) -> None:
    uid = await with_schedule(rig, "hourly keep 2")
    await after(rig, 0, uid)
    writes = rig.model.writes
    await loop_of(rig).look_once()
    assert rig.model.writes == writes


@given(st.lists(st.floats(0, 3 * DAY), min_size=1, max_size=12))
def test_whenever_it_looks_a_rule_keeps_no_more_than_it_says(steps: list[float]) -> None:
    view, ve = placed("every 2h keep 3, daily keep 2")
    now = 1_700_000_000.0
    for step in steps:
        now += step
        for _ in range(3):
            ve = next_ve(view, Held(ve, 1, 1), now, ready=True)
            tell(view, ve)
        staying = [each for each in ve.snapshots if not each.deleting]
        assert sum(each.rule == "daily" for each in staying) <= 2
        assert sum(each.rule == "every 2h" for each in staying) <= 3
        for names in ([each.tag for each in staying], [each.seq for each in staying]):
            assert len(set(names)) == len(names)
        assert next_ve(view, Held(ve, 1, 1), now, ready=True) == ve, "one more look changes nothing"


def placed(schedule: str) -> tuple[View, VE]:
    spec = Spec(
        image="debian",
        cpu_millis=1,
        memory_bytes=1,
        disk_bytes=1,
        pids=1,
        snapshot_schedule=schedule,
    )
    ve = VE(
        uid=Uid("u"),
        name="web",
        project="default",
        labels={},
        generation=1,
        spec=spec,
        created_at=1,
    )
    view = View()
    placement = Placement(host=HostName("h1"), generation=1, decided_at=1)
    view.placements[ve.uid] = Held(placement, 1, 1)
    tell(view, ve)
    return view, ve


def tell(view: View, ve: VE) -> None:
    """The host has done what it is asked, and says so."""
    has = tuple(
        SnapshotStatus(tag=each.tag, seq=each.seq, taken_at=each.created_at)
        for each in ve.snapshots
        if not each.deleting
    )
    status = VEStatus(state=VEState.RUNNING, placement_generation=1, snapshots=has)
    view.statuses[ve.uid] = Held(status, 1, 1)
