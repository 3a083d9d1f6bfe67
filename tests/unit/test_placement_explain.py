"""Explain agrees with plan, tells everything, and what it says would help does help."""

import re
from collections.abc import Callable

import msgspec
from hypothesis import given

from kit.placing import GIB, amount, host, host_lists, one_request, request
from veapi.model import HostState, Resources
from veapi.units import parse_cpu, parse_size
from vecontroller.placement import Board, explain, plan

FIELDS: dict[str, tuple[str, Callable[[str], int]]] = {
    "cpu": ("cpu_millis", lambda text: parse_cpu(text.removesuffix(" cores"))),
    "memory": ("memory_bytes", parse_size),
    "disk": ("disk_bytes", parse_size),
    "pids": ("pids", int),
}


def test_a_host_that_fails_tells_all_its_reasons_with_numbers():
    full = host("h1", committed=amount(cpu=63_500, memory=64 * GIB), state=HostState.SILENT)
    (verdict,) = explain(Board([full]), request("u")).verdicts
    assert [(each.check, each.why) for each in verdict.failing] == [
        ("cpu", "free 0.5 cores of 64 cores, wanted 1 cores: 0.5 cores too little"),
        ("memory", "free 0 of 64G, wanted 1G: 1G too little"),
        ("state", "silent"),
    ]


def test_a_fenced_ve_goes_only_where_vefence_runs():
    hosts = [host("h1", unfenced=True), host("h2", placed=9), host("h3", unfenced=True)]
    plain, fenced = request("u"), request("v", fenced=True)
    assert [explain(Board(hosts), each).verdicts[0].host for each in (plain, fenced)] == [
        "h1",
        "h2",
    ]
    found = explain(Board([hosts[0], hosts[2]]), fenced)
    assert [each.failing[0].why for each in found.verdicts] == ["its vefence does not run"] * 2
    assert found.changes == ("start vefence on h1",)
    assert found.refusal is not None
    assert found.refusal.message == "2 hosts: 2 whose vefence does not run"


def test_the_smallest_change_comes_first():
    hosts = [
        host("h1", committed=amount(memory=64 * GIB)),
        host("h2", committed=amount(memory=62 * GIB)),
        host("h3", state=HostState.SILENT),
    ]
    found = explain(Board(hosts), request("u", amount(memory=4 * GIB)))
    assert found.changes == ("free 2G of memory on h2", "make h3 ready: silent")
    assert [verdict.host for verdict in found.verdicts] == ["h2", "h1", "h3"]


def test_what_no_host_could_ever_hold_has_no_change():
    found = explain(Board([host("h1")]), request("u", amount(memory=65 * GIB)))
    assert found.changes == ()
    assert found.refusal is not None
    assert "no host is that large" in found.refusal.hint


def test_scores_are_told_with_their_parts():
    first, second = explain(
        Board([host("h1", committed=amount(memory=31 * GIB), placed=3), host("h2")]),
        request("u"),
    ).verdicts
    assert (first.host, second.host) == ("h2", "h1")
    assert [part.text for part in second.parts] == [
        "1.50 VEs per host in its rack",
        "50.0% of its memory committed then",
        "3 VEs",
    ]


@given(host_lists, one_request)
def test_explain_agrees_with_plan(hosts, wanted):
    found, made = explain(Board(hosts), wanted), plan(hosts, [wanted])
    fitting = [verdict for verdict in found.verdicts if verdict.rank]
    assert [a.host for a in made.assignments] == [each.host for each in fitting[:1]]
    assert made.refusals == (() if found.refusal is None else (found.refusal,))
    assert [each.rank for each in fitting] == list(range(1, len(fitting) + 1))


@given(host_lists, one_request)
def test_a_host_is_said_to_fit_exactly_if_it_would_be_taken_when_it_is_the_only_one(hosts, wanted):
    for verdict in explain(Board(hosts), wanted).verdicts:
        alone = [row for row in hosts if row.name == verdict.host]
        assert bool(plan(alone, [wanted]).assignments) == bool(verdict.rank)
        assert bool(verdict.failing) != bool(verdict.rank)


@given(host_lists, one_request)
def test_freeing_what_explain_says_makes_it_fit(hosts, wanted):
    for change in explain(Board(hosts), wanted).changes:
        asked = re.findall(r"free (\S+(?: cores)?) of (\w+) on (\w+)", change)
        if not asked or change.count("free ") != change.count(" and ") + 1:
            continue
        name = asked[0][2]
        freed = Resources(**{FIELDS[what][0]: FIELDS[what][1](size) for size, what, _ in asked})
        after = [
            msgspec.structs.replace(row, capacity=row.capacity + freed + _rounding())
            if row.name == name
            else row
            for row in hosts
        ]
        assert plan(after, [wanted]).assignments


def _rounding() -> Resources:
    """Sizes are told with one decimal."""
    return Resources(memory_bytes=GIB, disk_bytes=GIB)
