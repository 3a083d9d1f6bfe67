"""Who gets a host first, and when it is worth to look again."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kit.placing import GIB, amount, host, host_lists, one_request, request
from veapi.model import HostState, Resources
from vecontroller.placement import change, plan
from vecontroller.placement.turns import in_turn


def uids(*requests):
    return [each.uid for each in in_turn(requests)]


def test_the_higher_priority_comes_first_then_the_older():
    assert uids(
        request("a", since=1), request("b", since=9, priority=5), request("c", since=0)
    ) == ["b", "c", "a"]


def test_projects_take_turns():
    many = [request(f"m{index}", since=index, project="many") for index in range(4)]
    few = [request(f"f{index}", since=9 + index, project="few") for index in range(2)]
    assert uids(*many, *few) == ["m0", "f0", "m1", "f1", "m2", "m3"]


def test_a_project_that_asks_for_a_thousand_does_not_take_the_last_place_of_another():
    small = host("h1", capacity=amount(2000, 2 * GIB, 2 * GIB, 200))
    wanted = [request(f"m{index}", since=index, project="many") for index in range(9)]
    wanted.append(request("f", since=99, project="few"))
    assert {each.uid for each in plan([small], wanted).assignments} == {"m0", "f"}


def test_turns_are_taken_within_a_priority_only():
    urgent = [request(f"u{i}", since=i, project="a", priority=1) for i in range(2)]
    assert uids(*urgent, request("b", project="b")) == ["u0", "u1", "b"]


FULL = host("h1", committed=amount(64_000))


def after(**changes):
    return change([FULL], [msgspec.structs.replace(FULL, **changes)])


def test_less_room_helps_nobody_and_more_may():
    assert not after(committed=amount(64_001)).may_help(request("u"))
    assert not after(placed=3).may_help(request("u"))
    assert after(committed=amount(63_999)).may_help(request("u"))
    assert after(capacity=FULL.capacity + Resources(pids=1)).may_help(request("u"))


def test_other_labels_taints_and_hosts_may_help():
    assert after(labels={"a": "b"}).may_help(request("u"))
    assert after(taints=("a",)).may_help(request("u"))
    assert change([], [FULL]).may_help(request("u"))
    assert not change([FULL], []).may_help(request("u"))


def test_a_vefence_that_runs_again_may_help():
    unfenced = msgspec.structs.replace(FULL, unfenced=True)
    assert change([unfenced], [FULL]).may_help(request("u", fenced=True))
    assert not change([FULL], [unfenced]).may_help(request("u", fenced=True))


def test_a_host_helps_when_it_comes_back_and_not_when_it_goes():
    silent = msgspec.structs.replace(FULL, state=HostState.SILENT)
    assert change([silent], [FULL]).may_help(request("u"))
    assert not change([FULL], [silent]).may_help(request("u"))
    assert not change([silent], [silent]).may_help(request("u", near=("a over host",)))


def test_company_may_be_all_that_was_missing():
    near = request("u", near=("app=db over host",))
    came = (request("db", labels={"app": "db"}),)
    more = after(tenants=came, committed=amount(64_001))
    assert more.may_help(near)
    assert not more.may_help(request("u"))


@given(host_lists, st.lists(st.integers(0, 3), min_size=6, max_size=6), one_request)
def test_nobody_waits_who_would_fit(hosts, kinds, wanted):
    """What is not worth a look would be refused again."""
    later = []
    for row, kind in zip(hosts, kinds, strict=False):
        changed = {
            0: {},
            1: {"committed": row.committed + Resources(memory_bytes=1)},
            2: {"state": HostState.READY, "connected": True},
            3: {"committed": Resources()},
        }[kind]
        later.append(msgspec.structs.replace(row, **changed))
    if plan(hosts, [wanted]).refusals and not change(hosts, later).may_help(wanted):
        assert plan(later, [wanted]).refusals
