"""What is thought through: by the plan that the scheduler makes, on a changed copy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.placing import GIB, amount, host, host_lists, request, request_lists
from veapi.errors import InvalidInput, NotFound
from veapi.model import HostName, Resources
from vecontroller.placement import HostRow, Request, plan
from vecontroller.whatif import AddedHosts, Change, Changes, Known, Outcome, World, simulate


def world(*rows: HostRow, waiting: tuple[Request, ...] = ()) -> World:
    everybody = [*waiting, *(each for row in rows for each in row.tenants)]
    known = {each.uid: Known(project="default", name=each.uid) for each in everybody}
    return World(hosts=rows, waiting=waiting, known=known)


def full(name: str, *tenants: Request, rack: str = "r1", **options) -> HostRow:
    committed = sum((each.resources for each in tenants), Resources())
    return host(name, rack, tenants=tenants, committed=committed, placed=len(tenants), **options)


def hosts_of(outcome: Outcome) -> dict[str, str]:
    return {each.uid: each.host for each in outcome.fates}


def as_planned(outcome: Outcome, rows: list[HostRow], seekers: list[Request]) -> None:
    made = plan(rows, seekers)
    found = [(each.uid, each.host, each.message) for each in outcome.fates if each.host]
    assert found == [(each.uid, each.host, each.message) for each in made.assignments]
    assert [each.refusal for each in outcome.fates if not each.host] == list(made.refusals)


@given(host_lists, request_lists)
def test_without_changes_it_is_the_plan_of_those_who_wait(
    rows: list[HostRow], waiting: list[Request]
) -> None:
    as_planned(simulate(world(*rows, waiting=tuple(waiting)), Changes()), rows, waiting)


@given(host_lists, request_lists, st.data())
def test_removing_hosts_is_a_plan_for_their_ves_on_the_others(
    rows: list[HostRow], ves: list[Request], data: st.DataObject
) -> None:
    if not rows:
        return
    count = data.draw(st.integers(0, len(ves)))
    gone, *rest = rows
    lost = full(gone.name, *ves[:count], rack=gone.rack)
    found = simulate(
        world(lost, *rest, waiting=tuple(ves[count:])), Changes(remove_hosts=(gone.name,))
    )
    as_planned(found, rest, ves)
    displaced = {each.uid for each in found.fates if each.change is Change.DISPLACED}
    assert displaced == {each.uid for each in ves[:count]}


@given(host_lists, request_lists, request_lists)
def test_what_is_new_and_what_waits_is_served_in_one_turn(
    rows: list[HostRow], waiting: list[Request], more: list[Request]
) -> None:
    new = [request(f"n{index}", each.resources) for index, each in enumerate(more)]
    found = simulate(world(*rows, waiting=tuple(waiting)), Changes(apply=tuple(new)))
    as_planned(found, rows, [*waiting, *new])


@given(host_lists, request_lists)
def test_hosts_after_are_what_is_committed_then(
    rows: list[HostRow], waiting: list[Request]
) -> None:
    found = simulate(world(*rows, waiting=tuple(waiting)), Changes())
    sizes = {each.uid: each.resources for each in waiting}
    for row, change in zip(sorted(rows, key=lambda row: row.name), found.hosts, strict=True):
        came = [sizes[each.uid] for each in found.fates if each.host == row.name]
        assert (change.before, change.after) == (row.committed, sum(came, row.committed))
        assert change.ves_after == row.placed + len(came)


def test_a_rack_is_removed_whole() -> None:
    rows = [full("h1", request("a")), full("h2", request("b")), full("h3", rack="r2")]
    found = simulate(world(*rows), Changes(remove_racks=("r1",)))
    assert hosts_of(found) == {"a": "h3", "b": "h3"}
    assert [(each.name, each.change, each.able) for each in found.hosts] == [
        ("h1", "removed", False),
        ("h2", "removed", False),
        ("h3", "", True),
    ]
    assert found.hosts[0].after == Resources()


def test_added_hosts_are_empty_and_able_and_like_the_other() -> None:
    like = full("h1", request("a"), labels={"rack": "r1", "disk": "ssd"}, connected=False)
    waits = request("w", require=("disk in (ssd)",))
    wish = AddedHosts(count=2, like=HostName("h1"), rack="r3")
    found = simulate(world(like, waiting=(waits,)), Changes(add=(wish,)))
    assert hosts_of(found) == {"w": "new-1"}
    assert [(each.name, each.rack, each.change, each.room) for each in found.hosts[1:]] == [
        ("new-1", "r3", "added", like.capacity),
        ("new-2", "r3", "added", like.capacity),
    ]


def test_the_name_of_an_added_host_is_free() -> None:
    wish = AddedHosts(count=1, like=HostName("new-1"))
    found = simulate(world(host("new-1")), Changes(add=(wish,)))
    assert [each.name for each in found.hosts] == ["new-1", "new-2"]


def test_a_ve_that_is_to_have_more_stays_and_is_refused_where_there_is_no_room() -> None:
    small = host("h1", capacity=amount(4000, 4 * GIB, 9 * GIB, 999))
    a, b = request("a"), request("b")
    here = full("h1", a, b, capacity=small.capacity)
    want = [request(each, amount(memory=3 * GIB)) for each in "ab"]
    found = simulate(world(here), Changes(apply=tuple(want)))
    first, second = found.fates
    assert (first.change, first.was_on, first.host) == (Change.CHANGED, "h1", "h1")
    assert second.refusal is not None
    assert "too little memory (free 0, wanted 2G)" in second.refusal.message
    assert found.hosts[0].after.memory_bytes == 4 * GIB


def test_a_changed_ve_of_a_removed_host_is_placed_as_it_will_be() -> None:
    rows = (full("h1", request("a")), host("h2", capacity=amount(memory=2 * GIB)))
    big = request("a", amount(memory=3 * GIB))
    found = simulate(world(*rows), Changes(remove_hosts=("h1",), apply=(big,)))
    (fate,) = found.fates
    assert (fate.change, fate.host) == (Change.DISPLACED, "")


def test_tenants_still_keep_others_away_where_they_stay() -> None:
    apart = ("app=web over host",)
    web = [request(f"w{n}", labels={"app": "web"}, apart=apart) for n in range(3)]
    rows = (full("h1", web[0]), full("h2", web[1]), full("h3", web[2]))
    found = simulate(world(*rows), Changes(remove_hosts=("h3",)))
    (fate,) = found.fates
    assert fate.refusal is not None
    assert "app=web" in fate.refusal.message


@pytest.mark.parametrize(
    "changes",
    [
        Changes(remove_hosts=("h9",)),
        Changes(remove_racks=("r9",)),
        Changes(add=(AddedHosts(count=1, like=HostName("h9")),)),
    ],
)
def test_what_is_not_there_is_named_with_what_is(changes: Changes) -> None:
    with pytest.raises(NotFound, match="9") as raised:
        simulate(world(host("h1")), changes)
    assert "1" in raised.value.hint


@pytest.mark.parametrize("count", [0, 10_000])
def test_more_hosts_than_can_be_thought_through_are_refused(count: int) -> None:
    with pytest.raises(InvalidInput, match="add"):
        simulate(world(host("h1")), Changes(add=(AddedHosts(count=count, like=HostName("h1")),)))
