import asyncio

import pytest

from kit.apirig import ALPINE, DEBIAN, GIB, NO_CONTEXT, ApiRig, api_rig, create_request
from veapi.errors import Conflict, InvalidInput, NoHostFits
from veapi.v1 import api_pb2, types_pb2

Outcome = api_pb2.ApplyVEResponse


@pytest.fixture
async def rig():
    async with api_rig() as rig:
        yield rig


def manifest(name: str = "web", *, dry_run: bool = False, labels=None, uid="", **spec):
    ve = types_pb2.VE(name=name, labels=labels or {}, uid=uid, spec=types_pb2.VESpec(**spec))
    return api_pb2.ApplyVERequest(ve=ve, dry_run=dry_run)


def fields(response: api_pb2.ApplyVEResponse) -> dict[str, tuple[str, str]]:
    return {change.field: (change.before, change.after) for change in response.changes}


async def test_what_is_not_there_is_created(rig: ApiRig) -> None:
    made = await rig.ve.Apply(manifest(image="debian", labels={"tier": "web"}), NO_CONTEXT)
    assert made.outcome == Outcome.OUTCOME_CREATED
    assert fields(made)["spec.image"] == ("", "debian")
    assert fields(made)["metadata.labels.tier"] == ("", "web")
    assert made.ve.labels["tier"] == "web"


async def test_applying_again_finds_nothing_to_do(rig: ApiRig) -> None:
    await rig.ve.Apply(manifest(image="debian", cpu=2, labels={"tier": "web"}), NO_CONTEXT)
    writes = rig.model.writes
    again = await rig.ve.Apply(manifest(image="debian", cpu=2, labels={"tier": "web"}), NO_CONTEXT)
    assert (again.outcome, list(again.changes)) == (Outcome.OUTCOME_UNCHANGED, [])
    assert rig.model.writes == writes


async def test_a_change_names_the_fields_and_keeps_what_the_manifest_leaves_out(
    rig: ApiRig,
) -> None:
    await rig.ve.Apply(manifest(image="debian", cpu=2, pids=100, labels={"a": "1"}), NO_CONTEXT)
    changed = await rig.ve.Apply(manifest(image="debian", cpu=0.5), NO_CONTEXT)
    assert changed.outcome == Outcome.OUTCOME_CHANGED
    assert fields(changed) == {"spec.cpu": ("2", "0.5")}
    assert (changed.ve.spec.pids, changed.ve.generation) == (100, 2)
    assert dict(changed.ve.labels) == {"a": "1"}


async def test_labels_of_a_manifest_replace_all_labels(rig: ApiRig) -> None:
    await rig.ve.Apply(manifest(image="debian", labels={"a": "1", "b": "2"}), NO_CONTEXT)
    changed = await rig.ve.Apply(manifest(labels={"b": "3", "c": ""}), NO_CONTEXT)
    assert fields(changed) == {
        "metadata.labels.a": ("1", ""),
        "metadata.labels.b": ("2", "3"),
        "metadata.labels.c": ("", ""),
    }
    assert dict(changed.ve.labels) == {"b": "3", "c": ""}


async def test_a_dry_run_says_what_would_change_and_writes_nothing(rig: ApiRig) -> None:
    writes = rig.model.writes
    would = await rig.ve.Apply(manifest(image="debian", dry_run=True), NO_CONTEXT)
    assert would.outcome == Outcome.OUTCOME_CREATED
    assert rig.model.writes == writes
    await rig.create("web")
    writes = rig.model.writes
    would = await rig.ve.Apply(manifest(cpu=4, dry_run=True), NO_CONTEXT)
    assert fields(would) == {"spec.cpu": ("1", "4")}
    assert would.outcome == Outcome.OUTCOME_CHANGED
    assert rig.model.writes == writes


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("spec.image", {"image": "alpine"}),
        ("spec.ip", {"ip": "10.66.0.99"}),
        ("spec.host", {"host": "h1"}),
    ],
)
async def test_what_can_not_be_changed_is_refused_by_field(rig: ApiRig, field: str, spec) -> None:
    await rig.put_image("alpine", ALPINE)
    await rig.create("web")
    for dry_run in (True, False):
        with pytest.raises(Conflict, match=field) as refused:
            await rig.ve.Apply(manifest(dry_run=dry_run, **spec), NO_CONTEXT)
        assert refused.value.hint


async def test_another_name_of_the_same_image_is_no_change(rig: ApiRig) -> None:
    await rig.create("web")
    same = await rig.ve.Apply(manifest(image=DEBIAN), NO_CONTEXT)
    assert same.outcome == Outcome.OUTCOME_UNCHANGED


async def test_the_address_that_a_ve_has_is_no_change(rig: ApiRig) -> None:
    await rig.create("web")
    same = await rig.ve.Apply(manifest(ip="10.66.0.2"), NO_CONTEXT)
    assert same.outcome == Outcome.OUTCOME_UNCHANGED


async def test_a_dry_run_refuses_what_the_real_one_would(rig: ApiRig) -> None:
    with pytest.raises(InvalidInput, match=r"^spec\.memory_bytes"):
        await rig.ve.Apply(manifest(image="debian", memory_bytes=1, dry_run=True), NO_CONTEXT)
    await rig.create("db", ip="10.66.0.50")
    with pytest.raises(Conflict, match="taken"):
        await rig.ve.Apply(manifest(image="debian", ip="10.66.0.50", dry_run=True), NO_CONTEXT)


async def test_a_ve_that_is_being_deleted_is_not_changed(rig: ApiRig) -> None:
    await rig.running()
    await rig.ve.Delete(api_pb2.DeleteVERequest(ve=api_pb2.VERef(name="web")), NO_CONTEXT)
    with pytest.raises(Conflict, match="being deleted"):
        await rig.ve.Apply(manifest(cpu=2), NO_CONTEXT)


async def test_a_manifest_of_a_ve_that_was_replaced_is_refused(rig: ApiRig) -> None:
    await rig.create("web")
    with pytest.raises(Conflict, match="another one"):
        await rig.ve.Apply(manifest(uid="old"), NO_CONTEXT)


async def test_applies_at_the_same_time_create_one_ve_and_all_succeed(rig: ApiRig) -> None:
    answers = await asyncio.gather(
        *(rig.ve.Apply(manifest(image="debian", cpu=2), NO_CONTEXT) for _ in range(4))
    )
    assert len({answer.ve.uid for answer in answers}) == 1
    assert sorted(answer.outcome for answer in answers) == [
        Outcome.OUTCOME_UNCHANGED,
        Outcome.OUTCOME_UNCHANGED,
        Outcome.OUTCOME_UNCHANGED,
        Outcome.OUTCOME_CREATED,
    ]


async def test_what_is_named_is_applied_also_when_it_is_nothing(rig: ApiRig) -> None:
    await rig.create(net_in_bps=10**8, swap_bytes=GIB)
    named = api_pb2.ApplyVERequest(ve=create_request().ve, fields=["net_in_bps", "env"])
    answer = await rig.ve.Apply(named, NO_CONTEXT)
    assert [(c.field, c.before, c.after) for c in answer.changes] == [
        ("spec.net_in_bps", "100000000", "")
    ]
    assert answer.ve.spec.swap_bytes == GIB


async def test_growing_beyond_its_host_and_changing_init_live_are_refused(rig: ApiRig) -> None:
    await rig.running()
    for dry_run in (True, False):
        for spec, error in (
            ({"memory_bytes": 64 * GIB}, NoHostFits),
            ({"env": {"A": "1"}}, Conflict),
        ):
            asked = api_pb2.ApplyVERequest(ve=create_request(**spec).ve, dry_run=dry_run)
            with pytest.raises(error) as refused:
                await rig.ve.Apply(asked, NO_CONTEXT)
            assert refused.value.hint
    assert (await rig.ve.Get(api_pb2.VERef(name="web"), NO_CONTEXT)).generation == 1
