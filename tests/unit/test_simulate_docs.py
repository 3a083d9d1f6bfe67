"""The examples of docs/placement/simulate.md and plan.md come out as they say."""

import shlex

import msgspec
import pytest

from kit.placementdoc import PAGES, block, host_of, ves_of
from veapi import codec
from veapi.model import Digest, HostName, Uid
from veapi.v1 import api_pb2, plan_pb2, types_pb2
from vecontroller.api.planmaking import CREATE, placed
from vecontroller.placement import Refusal, plan, request
from vecontroller.placement.rules import PLAIN
from vecontroller.view import Held, View
from vecontroller.whatif import AddedHosts, Changes, Known, World, simulate

[PAGE] = [page.read_text() for page in PAGES if page.stem == "simulate"]
[PLAN] = [page.read_text() for page in PAGES if page.stem == "plan"]
CASES = block(PAGE, "simulate").split("\n\n")


def world() -> World:
    """With the VEs of the page where they go."""
    rows = {row.name: row for row in map(host_of, block(PAGE, "hosts").splitlines())}
    ves = ves_of(block(PAGE, "yaml"))
    wanted = {ve.uid: request(View(), Held(ve, 0, index)) for index, ve in enumerate(ves)}
    for each in plan(rows.values(), wanted.values()).assignments:
        row, tenant = rows[each.host], wanted[each.uid]
        rows[each.host] = msgspec.structs.replace(
            row,
            tenants=(*row.tenants, tenant),
            committed=row.committed + tenant.resources,
            placed=row.placed + 1,
        )
    known = {Uid(ve.name): Known(project="default", name=ve.name) for ve in ves}
    return World(hosts=tuple(rows.values()), waiting=(), known=known)


def changes(command: str) -> Changes:
    _, _, *words = shlex.split(command)
    given: dict[str, str] = dict(zip(words[::2], words[1::2], strict=True))
    add = AddedHosts(
        count=int(given.get("--add", 0)),
        like=HostName(given.get("--like", "")),
        rack=given.get("--rack", ""),
    )
    return Changes(
        remove_hosts=tuple(filter(None, [given.get("--remove-host")])),
        remove_racks=tuple(filter(None, [given.get("--remove-rack")])),
        add=(add,) if add.count else (),
    )


def refused(refusal: Refusal | None) -> str:
    return f"no host: {refusal.message}" if refusal is not None else ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.splitlines()[0])
def test_the_example_comes_out_as_the_page_says(case: str) -> None:
    command, *expected = case.splitlines()
    found = simulate(world(), changes(command))
    lines = [
        f"{fate.uid} {fate.was_on} {fate.host or refused(fate.refusal)}"
        for fate in found.fates
        if fate.host or fate.refusal is not None
    ]
    assert sorted(lines) == sorted(expected)


def test_a_plan_says_what_the_page_of_plans_says() -> None:
    rows = tuple(map(host_of, block(PLAN, "hosts").splitlines()))
    empty = World(hosts=rows, waiting=(), known={}, images={"debian": Digest("sha256:d")})
    ves = [
        plan_pb2.PlannedVE(
            project="default",
            name=ve.name,
            action=CREATE,
            apply=api_pb2.ApplyVERequest(
                ve=types_pb2.VE(name=ve.name, labels=ve.labels, spec=codec.spec_out(ve.spec))
            ),
        )
        for ve in ves_of(block(PLAN, "yaml"))
    ]
    placed(empty, ves, PLAIN)
    lines = [f"{ve.name} {ve.host or ve.message.replace(' fits', '')}" for ve in ves]
    assert lines == block(PLAN, "result").splitlines()
