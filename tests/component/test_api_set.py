"""Set: which fields, which limits, and what the host must have room for."""

import math

import msgspec
import pytest

from kit.apirig import GIB, NO_CONTEXT, ApiRig, api_rig, create_request
from kit.modelstore import Fail
from veapi.errors import Conflict, InvalidInput, NoHostFits, NotFound
from veapi.model import HostName, Resources, Uid, VEState
from veapi.v1 import api_pb2, types_pb2
from vecontroller.placement import committed
from vecontroller.store import keys, values
from vecontroller.writer import FENCE_ATTEMPTS

WEB = api_pb2.VERef(name="web")
H1 = HostName("h1")


@pytest.fixture
async def rig():
    async with api_rig() as found:
        yield found


async def set_(rig: ApiRig, *, ref=WEB, restart=False, beside=None, **fields) -> types_pb2.VE:
    """Fields of the spec; `beside` go to the request."""
    env, command = fields.pop("env", {}), fields.pop("command", ())
    named = [*fields, *(["env"] if env else []), *(["command"] if command else [])]
    request = api_pb2.SetVERequest(
        ve=ref,
        spec=types_pb2.VESpec(env=env, command=command, **fields),
        fields=named,
        restart=restart,
        **(beside or {}),
    )
    return await rig.ve.Set(request, NO_CONTEXT)


def stored(rig: ApiRig, ve: types_pb2.VE):
    return rig.mirror.view.ves[Uid(ve.uid)].value


async def test_named_fields_are_set_and_count_a_generation(rig: ApiRig) -> None:
    ve = await rig.running()
    found = await set_(rig, cpu=0.5, memory_bytes=GIB, net_in_bps=10**8, cpu_weight=7)
    assert (found.spec.cpu, found.spec.memory_bytes, found.spec.cpu_weight) == (0.5, GIB, 7)
    assert (found.generation, stored(rig, ve).restart_seq) == (2, 0)
    assert found.spec.pids == ve.spec.pids


async def test_a_named_field_is_set_to_nothing_and_an_unnamed_one_stays(rig: ApiRig) -> None:
    await rig.running()
    await set_(rig, net_in_bps=10**8, swap_bytes=GIB)
    found = await set_(rig, net_in_bps=0)
    assert (found.spec.net_in_bps, found.spec.swap_bytes) == (0, GIB)


async def test_what_it_has_already_writes_nothing_and_restarts_nothing(rig: ApiRig) -> None:
    ve = await rig.running()
    await rig.report(ve.uid, VEState.RUNNING, observed_generation=1)
    writes = rig.model.writes
    found = await set_(rig, cpu=1, memory_bytes=256 << 20, restart=True)
    assert (found.generation, rig.model.writes) == (1, writes)
    assert stored(rig, ve).restart_seq == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cpu": math.nan}, "spec.cpu"),
        ({"cpu": 0}, "spec.cpu"),
        ({"cpu": -1}, "spec.cpu"),
        ({"cpu": math.inf}, "spec.cpu"),
        ({"memory_bytes": 0}, "spec.memory_bytes"),
        ({"memory_bytes": 2**63 - 1}, "spec.memory_bytes"),
        ({"disk_bytes": -1}, "spec.disk_bytes"),
        ({"pids": 0}, "spec.pids"),
        ({"cpu_weight": 10_001}, "spec.cpu_weight"),
        ({"io_weight": -1}, "spec.io_weight"),
        ({"swap_bytes": -1}, "spec.swap_bytes"),
        ({"io_read_bps": 1}, "spec.io_read_bps"),
        ({"net_out_bps": 2**63 - 1}, "spec.net_out_bps"),
        ({"snapshot_schedule": "sometimes"}, "spec.snapshot_schedule"),
        ({"env": {"A": "\n"}}, "spec.env"),
        ({"command": ["a\0"]}, "spec.command"),
        ({"ip": ""}, "spec.ip"),
        ({"ip": "10.66.0.300"}, "spec.ip"),
        ({"on_host_loss": ""}, "spec.on_host_loss"),
        ({"image": "alpine"}, "spec.image"),
        ({"host": "h1"}, "spec.host"),
        ({"run": "stopped"}, "spec.run"),
        ({}, "nothing is to be set"),
    ],
)
async def test_a_bad_value_is_refused_by_its_field_and_changes_nothing(
    rig: ApiRig, fields, words: str
) -> None:
    await rig.running()
    with pytest.raises(InvalidInput) as refused:
        await set_(rig, **fields)
    assert words in refused.value.message
    assert refused.value.hint
    assert (await rig.ve.Get(WEB, NO_CONTEXT)).generation == 1


async def test_an_image_is_changed_by_a_rebuild(rig: ApiRig) -> None:
    await rig.running()
    with pytest.raises(InvalidInput) as refused:
        await set_(rig, image="alpine")
    assert "vectl rebuild" in refused.value.hint


async def test_an_unknown_field_is_refused(rig: ApiRig) -> None:
    await rig.running()
    request = api_pb2.SetVERequest(ve=WEB, fields=["memroy"])
    with pytest.raises(InvalidInput, match="memroy"):
        await rig.ve.Set(request, NO_CONTEXT)


async def test_labels_and_variables_are_set_and_removed_one_by_one(rig: ApiRig) -> None:
    await rig.ve.Create(
        create_request(labels={"a": "1", "b": "2"}, env={"A": "1", "B": "2"}), NO_CONTEXT
    )
    beside = {
        "labels": {"b": "3", "c": "4"}, "labels_removed": ["a"],
        "env": {"B": "3"}, "env_removed": ["A", "unknown"],
    }  # fmt: skip
    found = await set_(rig, beside=beside)
    assert dict(found.labels) == {"b": "3", "c": "4"}
    assert dict(found.spec.env) == {"B": "3"}


@pytest.mark.parametrize("key", ["", "-", "a b", "x" * 300])
async def test_a_label_key_that_is_none_is_refused(rig: ApiRig, key: str) -> None:
    await rig.running()
    with pytest.raises(InvalidInput, match="labels"):
        await set_(rig, beside={"labels": {key: "1"}})
    with pytest.raises(InvalidInput, match="labels"):
        await set_(rig, beside={"labels_removed": [key]})


async def test_more_than_the_host_has_free_is_refused_with_numbers(rig: ApiRig) -> None:
    await rig.running()
    for restart in (False, True):
        with pytest.raises(NoHostFits) as refused:
            await set_(rig, memory_bytes=64 * GIB, restart=restart)
        assert "host h1 has too little memory (free 15.8G, wanted 63.8G)" in refused.value.message
        assert refused.value.hint
    assert (await rig.ve.Get(WEB, NO_CONTEXT)).generation == 1


async def test_what_a_host_has_not_made_smaller_yet_is_not_given_away(rig: ApiRig) -> None:
    ve = await rig.running()
    had = Resources(cpu_millis=1000, memory_bytes=12 * GIB, disk_bytes=GIB, pids=100)
    await rig.report(ve.uid, VEState.RUNNING, in_force=had)
    assert committed(rig.mirror.view, H1).memory_bytes == 12 * GIB
    await rig.running("db")
    with pytest.raises(NoHostFits, match="memory"):
        await set_(rig, ref=api_pb2.VERef(name="db"), memory_bytes=5 * GIB)
    await set_(rig, memory_bytes=12 * GIB)  # which it takes already
    await set_(rig, memory_bytes=GIB)
    await rig.report(ve.uid, VEState.RUNNING, in_force=msgspec.structs.replace(had, memory_bytes=1))
    assert committed(rig.mirror.view, H1).memory_bytes < 3 * GIB
    await set_(rig, ref=api_pb2.VERef(name="db"), memory_bytes=5 * GIB)


async def test_less_is_never_refused_and_neither_is_the_same(rig: ApiRig) -> None:
    ve = await rig.running()
    await rig.put_host(disk_gib=1)  # the host shrank below what it gave away
    found = await set_(rig, disk_bytes=2 * GIB)
    assert found.spec.disk_bytes == 2 * GIB
    with pytest.raises(NoHostFits, match="disk"):
        await set_(rig, disk_bytes=3 * GIB)
    assert stored(rig, ve).spec.disk_bytes == 2 * GIB


async def test_images_and_deleted_ves_take_disk_of_the_host(rig: ApiRig) -> None:
    await rig.running()
    await rig.put_host(disk_gib=5)
    free = 5 * GIB - 4 * GIB
    with pytest.raises(NoHostFits, match="disk"):
        await set_(rig, disk_bytes=4 * GIB + free + 1)
    assert (await set_(rig, disk_bytes=4 * GIB + free)).spec.disk_bytes == 5 * GIB


async def test_room_that_is_given_away_at_the_moment_is_not_given_twice(rig: ApiRig) -> None:
    await rig.running()
    rig.scheduler.given["h1"] = [Resources(memory_bytes=10 * GIB)]
    with pytest.raises(NoHostFits, match=r"free 5\.8G"):
        await set_(rig, memory_bytes=8 * GIB)
    with (
        rig.deps.reserved.holding(H1, Resources(memory_bytes=4 * GIB)),
        pytest.raises(NoHostFits, match=r"free 1\.8G"),
    ):
        await set_(rig, memory_bytes=4 * GIB)
    assert (await set_(rig, memory_bytes=4 * GIB)).spec.memory_bytes == 4 * GIB
    assert rig.deps.reserved.on(H1) == []


async def test_room_stays_reserved_while_an_outcome_is_unknown(rig: ApiRig) -> None:
    await rig.running()
    rig.model.fail_writes(*[Fail.LOST] * (1 + FENCE_ATTEMPTS))
    with pytest.raises(Exception, match="lost on command"):
        await set_(rig, memory_bytes=GIB)
    assert rig.deps.reserved.on(H1) == [Resources(memory_bytes=GIB - (256 << 20))]
    rig.clock.now += 61
    assert rig.deps.reserved.on(H1) == []


async def test_a_ve_without_a_host_takes_room_of_nobody(rig: ApiRig) -> None:
    await rig.create()
    assert (await set_(rig, memory_bytes=64 * GIB)).spec.memory_bytes == 64 * GIB


async def test_a_ve_that_gets_a_host_while_it_grows_takes_no_room_that_is_not_there(
    rig: ApiRig, monkeypatch
) -> None:
    await rig.put_host(disk_gib=2)
    ve = await rig.create(disk_bytes=GIB)
    commit = rig.deps.writer.commit

    async def after_the_scheduler(*args, **options):
        monkeypatch.undo()
        await rig.place(ve.uid)
        return await commit(*args, **options)

    monkeypatch.setattr(rig.deps.writer, "commit", after_the_scheduler)
    with pytest.raises(NoHostFits):
        await set_(rig, disk_bytes=8 * GIB)
    assert stored(rig, ve).spec.disk_bytes == GIB


@pytest.mark.parametrize(
    "fields", [{"ip": "10.66.0.77"}, {"env": {"A": "1"}}, {"command": ["/bin/sh"]}]
)
async def test_what_can_not_change_live_names_the_restart(rig: ApiRig, fields) -> None:
    ve = await rig.running()
    with pytest.raises(Conflict) as refused:
        await set_(rig, **fields)
    assert next(iter(fields)) in refused.value.message
    assert "--restart" in refused.value.hint
    await set_(rig, restart=True, **fields)
    assert (stored(rig, ve).restart_seq, stored(rig, ve).generation) == (1, 2)


@pytest.mark.parametrize("down", ["pending", "stopped", "off"])
async def test_what_is_down_needs_no_restart(rig: ApiRig, down: str) -> None:
    ve = await (rig.create() if down == "pending" else rig.running())
    if down == "stopped":
        await rig.ve.SetRun(api_pb2.SetRunRequest(ve=WEB, run="stopped"), NO_CONTEXT)
    if down == "off":
        await rig.report(ve.uid, VEState.STOPPED, reason="PoweredOff")
    await set_(rig, env={"A": "1"}, restart=down == "off")
    assert stored(rig, ve).restart_seq == 0
    assert stored(rig, ve).run_generation == 0


async def test_a_new_address_is_taken_and_the_old_one_held_until_the_host_gave_it_up(
    rig: ApiRig,
) -> None:
    ve = await rig.running()
    before = stored(rig, ve)
    found = await set_(rig, ip="10.66.0.77", restart=True)
    view = rig.mirror.view
    assert view.addresses["default", "10.66.0.77"].value == ve.uid
    assert view.addresses["default", before.ip].value == ve.uid, "its host still uses it"
    assert stored(rig, ve).mac != before.mac
    assert found.spec.ip == "10.66.0.77"
    assert (await rig.create("db")).status.addresses != [before.ip]
    with pytest.raises(Conflict, match="taken by VE default/web"):
        await rig.create("mail", ip=before.ip)


async def test_of_a_ve_without_a_host_the_old_address_is_free_at_once(rig: ApiRig) -> None:
    ve = await rig.create()
    before = stored(rig, ve)
    await set_(rig, ip="10.66.0.77")
    assert rig.mirror.view.addresses_of == {Uid(ve.uid): {("default", "10.66.0.77")}}
    assert (await rig.create("db")).status.addresses == [before.ip]


async def test_a_ve_may_change_back_to_an_address_that_it_still_holds(rig: ApiRig) -> None:
    ve = await rig.running()
    before = stored(rig, ve)
    await set_(rig, ip="10.66.0.77", restart=True)
    await set_(rig, ip=before.ip, restart=True)
    assert (stored(rig, ve).ip, stored(rig, ve).mac) == (before.ip, before.mac)
    held = {("default", before.ip), ("default", "10.66.0.77")}
    assert rig.mirror.view.addresses_of[Uid(ve.uid)] == held


async def test_a_ve_of_a_silent_host_can_not_hold_ever_more_addresses(rig: ApiRig) -> None:
    await rig.running()
    for number in range(3):
        await set_(rig, ip=f"10.66.0.{77 + number}", restart=True)
    with pytest.raises(Conflict, match="still holds 4 addresses"):
        await set_(rig, ip="10.66.0.90", restart=True)


async def test_an_address_that_somebody_has_is_refused(rig: ApiRig) -> None:
    await rig.create("db", ip="10.66.0.77")
    await rig.running()
    with pytest.raises(Conflict, match="taken by VE default/db"):
        await set_(rig, ip="10.66.0.77", restart=True)
    with pytest.raises(InvalidInput, match="gateway"):
        await set_(rig, ip="10.66.0.1", restart=True)


async def test_an_address_taken_behind_our_back_is_found_by_the_transaction(rig: ApiRig) -> None:
    await rig.running()
    key = keys.address("default", "10.66.0.77")
    original = rig.deps.writer.commit

    async def commit(guards, writes, **options):
        if all(guard.key != key for guard in guards):
            return await original(guards, writes, **options)
        await rig.put(key, values.encode_ref(Uid("another")))
        return await original(guards, writes, **options)

    rig.deps.writer.commit = commit  # type: ignore[method-assign]
    with pytest.raises(Conflict, match="taken"):
        await set_(rig, ip="10.66.0.77", restart=True)


async def test_what_the_host_refused_live_is_carried_out_by_a_restart(rig: ApiRig) -> None:
    ve = await rig.running()
    await set_(rig, memory_bytes=64 << 20)
    await rig.report(ve.uid, VEState.RUNNING, reason="LimitsRefused", observed_generation=2)
    await set_(rig, memory_bytes=64 << 20, restart=True)
    assert (stored(rig, ve).restart_seq, stored(rig, ve).generation) == (1, 3)


async def test_a_set_starts_nothing_that_its_guest_switched_off(rig: ApiRig) -> None:
    ve = await rig.running()
    await rig.report(ve.uid, VEState.STOPPED, reason="PoweredOff")
    await set_(rig, memory_bytes=GIB)
    assert stored(rig, ve).run_generation == 0
    await rig.ve.SetRun(api_pb2.SetRunRequest(ve=WEB, run="running"), NO_CONTEXT)
    assert stored(rig, ve).run_generation == stored(rig, ve).generation == 3


async def test_a_ve_that_is_being_deleted_and_one_that_is_not_there(rig: ApiRig) -> None:
    await rig.running()
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=WEB), NO_CONTEXT)
    with pytest.raises(Conflict, match="being deleted"):
        await set_(rig, pids=99)
    with pytest.raises(NotFound) as refused:
        await set_(rig, pids=99, ref=api_pb2.VERef(name="wob"))
    assert "did you mean web?" in refused.value.hint


async def test_a_set_for_another_revision_is_refused(rig: ApiRig) -> None:
    ve = await rig.running()
    stale = api_pb2.VERef(name="web", resource_version=ve.resource_version - 1)
    with pytest.raises(Conflict, match="resource_version"):
        await set_(rig, pids=99, ref=stale)
