"""The example of docs/placement/simulate.md comes out as it says: from the words of the command to the hosts."""

import shlex

import msgspec
import pytest

from kit.placementdoc import PAGES, block, host_of, ves_of
from veapi.model import HostName, Uid
from vecontroller.placement import plan, request
from vecontroller.view import Held, View
from vecontroller.whatif import AddedHosts, Changes, Known, World, simulate

[PAGE] = [page.read_text() for page in PAGES if page.stem == "simulate"]
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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.splitlines()[0])
def test_the_example_comes_out_as_the_page_says(case: str) -> None:
    command, *expected = case.splitlines()
    found = simulate(world(), changes(command))
    lines = [
        f"{fate.uid} {fate.was_on} {fate.host or f'no host: {fate.refusal.message}'}"
        for fate in found.fates
        if fate.host or fate.refusal is not None
    ]
    assert sorted(lines) == sorted(expected)
