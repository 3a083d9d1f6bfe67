from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.placing import GIB, amount, host, host_lists, request, request_lists
from veapi.model import HostState, Resources
from vecontroller.placement import HostRow, Plan, Request, plan, shortage


def requests(count: int) -> list[Request]:
    return [request(f"u{index:03}", since=index) for index in range(count)]


def counts(result: Plan) -> Counter:
    return Counter(assignment.host for assignment in result.assignments)


def only_refusal(result: Plan):
    assert not result.assignments
    (refusal,) = result.refusals
    return refusal


def test_twelve_ves_spread_evenly_over_three_hosts_in_two_racks():
    result = plan([host("h1", "r1"), host("h2", "r1"), host("h3", "r2")], requests(12))
    assert counts(result) == {"h1": 4, "h2": 4, "h3": 4}


def test_the_second_of_two_goes_to_another_rack():
    result = plan([host("h1", "r1"), host("h2", "r1"), host("h3", "r2")], requests(2))
    assert counts(result) == {"h1": 1, "h3": 1}


def test_racks_come_before_hosts():
    full_rack = [host("h1", "r1", placed=6), host("h2", "r1")]
    result = plan([*full_rack, host("h3", "r2", placed=2)], [request("u")])
    assert result.assignments[0].host == "h3"


def test_within_a_rack_the_least_committed_host_wins():
    busy = host("h1", committed=amount(cpu=32_000))
    assert plan([busy, host("h2")], [request("u")]).assignments[0].host == "h2"


def test_equal_hosts_are_taken_by_name():
    assert plan([host("h2"), host("h1")], [request("u")]).assignments[0].host == "h1"


def test_a_pinned_request_goes_to_its_host():
    result = plan([host("h1"), host("h2", placed=9)], [request("u", host="h2")])
    assert result.assignments[0].host == "h2"


def test_a_silent_or_disconnected_host_gets_nothing():
    hosts = [host("h1", state=HostState.SILENT), host("h2", connected=False)]
    refusal = only_refusal(plan(hosts, [request("u")]))
    assert refusal.reason == "NoHostFits"
    assert refusal.message == "2 hosts: 1 reconnecting, 1 silent"


def test_a_refusal_sums_the_reasons_of_all_hosts():
    small = amount(64_000, 3 * GIB // 2, 640 * GIB, 32_768)
    hosts = [
        host("h1", capacity=small),
        host("h2", capacity=small, committed=Resources(memory_bytes=GIB)),
        host("h3", state=HostState.SILENT),
    ]
    refusal = only_refusal(plan(hosts, [request("u", amount(memory=2 * GIB))]))
    assert refusal.message == "3 hosts: 2 too little memory (largest free 1.5G), 1 silent"
    assert "ask for less" in refusal.hint


def test_a_request_larger_than_any_host_is_told_the_limit():
    refusal = only_refusal(plan([host("h1")], [request("u", amount(memory=900 * GIB))]))
    assert "no host is that large" in refusal.hint
    assert "64G" in refusal.hint


def test_an_unknown_pinned_host_is_named():
    refusal = only_refusal(plan([host("h1")], [request("u", host="h9")]))
    assert refusal.message == "host h9 is not known"
    assert "h1" in refusal.hint


def test_a_full_pinned_host_says_what_it_lacks():
    full = host("h1", committed=amount(cpu=64_000))
    refusal = only_refusal(plan([full, host("h2")], [request("u", host="h1")]))
    assert "too little cpu (free 0 cores)" in refusal.message


def test_without_hosts_the_refusal_says_so():
    assert only_refusal(plan([], [request("u")])).message == "there is no host yet"


def test_the_older_request_gets_the_last_place():
    small = host("h1", capacity=amount())
    result = plan([small], [request("a", since=7), request("z", since=3)])
    assert [assignment.uid for assignment in result.assignments] == ["z"]


def test_a_small_request_fits_after_a_large_one_was_refused():
    result = plan([host("h1")], [request("a", amount(memory=900 * GIB)), request("b")])
    assert [assignment.uid for assignment in result.assignments] == ["b"]


def test_an_overfull_host_gets_nothing_more():
    shrunk = host("h1", capacity=amount(), committed=amount(memory=9 * GIB))
    assert "largest free 0" in only_refusal(plan([shrunk], [request("u")])).message


def used(resources: Resources) -> tuple[int, ...]:
    return (
        resources.cpu_millis,
        resources.memory_bytes,
        resources.disk_bytes,
        resources.pids,
    )


@given(host_lists, request_lists)
def test_never_overfills_a_host(hosts, wanted):
    result = plan(hosts, wanted)
    sizes = {each.uid: each.resources for each in wanted}
    for row in hosts:
        given_out = [sizes[a.uid] for a in result.assignments if a.host == row.name]
        if given_out:
            total = used(sum(given_out, row.committed))
            assert all(u <= c for u, c in zip(total, used(row.capacity), strict=True))
            assert row.able


@given(host_lists, request_lists)
def test_every_request_is_answered_exactly_once_with_a_reason(hosts, wanted):
    result = plan(hosts, wanted)
    answered = [assignment.uid for assignment in result.assignments]
    answered += [refusal.uid for refusal in result.refusals]
    assert sorted(answered) == sorted(each.uid for each in wanted)
    assert all(refusal.message and refusal.hint for refusal in result.refusals)


@given(host_lists, request_lists, st.randoms(use_true_random=False))
def test_the_order_of_the_parts_does_not_count(hosts, wanted, random):
    first = plan(hosts, wanted)
    random.shuffle(hosts)
    random.shuffle(wanted)
    assert plan(hosts, wanted) == first


@given(host_lists, request_lists)
def test_a_pinned_request_never_lands_elsewhere(hosts, wanted):
    pins = {each.uid: each.host for each in wanted if each.host}
    for assignment in plan(hosts, wanted).assignments:
        assert pins.get(assignment.uid, assignment.host) == assignment.host


@given(host_lists, request_lists)
def test_what_is_refused_would_not_fit_at_the_end_either(hosts, wanted):
    result = plan(hosts, wanted)
    sizes = {each.uid: each.resources for each in wanted}
    after = [
        HostRow(
            name=row.name,
            rack=row.rack,
            capacity=row.capacity,
            committed=sum(
                (sizes[a.uid] for a in result.assignments if a.host == row.name), row.committed
            ),
            placed=row.placed,
            state=row.state,
            connected=row.connected,
        )
        for row in hosts
    ]
    refused = {refusal.uid for refusal in result.refusals}
    assert not plan(after, [each for each in wanted if each.uid in refused]).assignments


@given(st.integers(1, 60), st.integers(1, 6))
def test_equal_hosts_never_differ_by_more_than_one(count, hosts):
    found = counts(plan([host(f"h{index}") for index in range(hosts)], requests(count)))
    spread = [found[f"h{index}"] for index in range(hosts)]
    assert max(spread) - min(spread) <= 1


@pytest.mark.parametrize("step", [1, 3])
def test_one_at_a_time_gives_the_same_counts_as_all_at_once(step):
    rows = [host("h1", "r1"), host("h2", "r1"), host("h3", "r2")]
    everything = requests(12)
    placed: Counter = Counter()
    for start, end in pairwise(range(0, 12 + step, step)):
        now = [
            HostRow(
                name=row.name,
                rack=row.rack,
                capacity=row.capacity,
                committed=sum([amount()] * placed[row.name], Resources()),
                placed=placed[row.name],
            )
            for row in rows
        ]
        placed.update(counts(plan(now, everything[start:end])))
    assert placed == counts(plan(rows, everything))


FULL = "its pool is full"


def test_a_host_that_refuses_new_ves_gets_none_and_says_why():
    hosts = [host("h1", refuses=FULL), host("h2", "r2", refuses=FULL)]
    refusal = only_refusal(plan(hosts, [request("u")]))
    assert f"2 taking no new VEs ({FULL})" in refusal.message
    assert plan([*hosts, host("h3")], [request("u")]).assignments[0].host == "h3"


def test_a_full_host_that_was_asked_for_says_why():
    refusal = only_refusal(plan([host("h1", refuses=FULL), host("h2")], [request("u", host="h1")]))
    assert refusal.message == f"host h1, which was asked for, is taking no new VEs ({FULL})"


def test_a_clone_goes_where_its_source_is_or_nowhere():
    why = "which holds the VE that it is cloned from"
    clone = request("u", host="h2", host_why=why)
    placed = plan([host("h1"), host("h2", placed=9)], [clone]).assignments[0]
    assert (placed.host, placed.message) == ("h2", f"this is the host {why}")
    full = host("h2", committed=amount(cpu=64_000))
    refusal = only_refusal(plan([host("h1"), full], [clone]))
    assert f"host h2, {why}, has too little cpu (free 0 cores)" in refusal.message
    assert "let the controller choose" not in refusal.hint


def test_a_clone_whose_source_is_gone_gets_no_host():
    refusal = only_refusal(plan([host("h1")], [request("u", gone="it is gone")]))
    assert (refusal.message, refusal.hint) == ("it is gone", "delete it")


def test_what_is_too_little_is_told_with_what_there_is():
    free, wanted = amount(cpu=500, memory=GIB), amount(cpu=1000, memory=GIB, disk=0, pids=0)
    assert shortage(free, wanted) == ["cpu (free 0.5 cores, wanted 1 cores)"]
    assert shortage(amount(memory=-GIB), amount(cpu=0, memory=1, disk=0, pids=0)) == [
        "memory (free 0, wanted 1)"
    ]
