"""What VEs wish of hosts and of each other: never against what must be, and just as it is told in words."""

import re
from collections import Counter
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.bruteplan import brute_plan
from kit.placing import GIB, amount, host, request
from veapi.model import HostState, Uid
from vecontroller.placement import Board, Request, Strategy, explain, place, plan

WEB = {"app": "web"}


def rack(name: str, *hosts: str, **labels):
    return [host(each, name, labels={"rack": name, **labels}) for each in hosts]


def room_for(count: int):
    return amount(count * 1000, count * GIB, count * GIB, count * 100)


RACKS = [*rack("r1", "h1", "h2"), *rack("r2", "h3", "h4"), *rack("r3", "h5")]


def web(uid: str, **wishes):
    return request(uid, labels=WEB, project="p", **wishes)


def webs(count: int, **wishes):
    return [web(f"u{index:02}", since=index, **wishes) for index in range(count)]


def racks_of(result) -> Counter:
    racks = {row.name: row.rack for row in RACKS}
    return Counter(racks[each.host] for each in result.assignments)


def hosts_of(result) -> Counter:
    return Counter(each.host for each in result.assignments)


def test_required_labels_decide_where_a_ve_may_be():
    hosts = [
        host("h1", labels={"disk": "ssd", "gen": "3"}),
        host("h2", labels={"disk": "hdd", "gen": "9"}),
        host("h3"),
    ]
    for require, expected in [
        ("disk in (nvme,ssd)", "h1"),
        ("gen>3", "h2"),
        ("!gen", "h3"),
        ("disk notin (ssd),disk", "h2"),
    ]:
        result = plan(hosts, [request("u", require=(require,))])
        assert [each.host for each in result.assignments] == [expected], require


def test_a_refusal_and_explain_name_the_label():
    hosts = [host("h1", labels={"disk": "hdd"}), host("h2", taints=("gpu",))]
    wanted = request("u", require=("disk=ssd",))
    (refusal,) = plan(hosts, [wanted]).refusals
    assert refusal.message == "2 hosts: 1 tainted `gpu`, 2 without disk=ssd"
    assert "vectl explain" in refusal.hint
    found = explain(Board(hosts), wanted)
    assert [each.why for each in found.verdicts[0].failing] == [
        "wants disk=ssd; the host has disk=hdd"
    ]
    assert found.changes[0] == "require no disk=ssd, or label h1 so"


def test_preferred_labels_are_followed_while_they_can_be():
    small = room_for(2)
    hosts = [host("h1", placed=9, labels={"disk": "ssd"}, capacity=small), host("h2")]
    wanted = [request(f"u{index}", since=index, prefer=("disk=ssd weight 5",)) for index in "123"]
    assert hosts_of(plan(hosts, wanted)) == {"h1": 2, "h2": 1}


def test_the_heavier_wish_wins():
    hosts = [host("h1", labels={"a": "1"}), host("h2", labels={"b": "1"})]
    wanted = request("u", prefer=("a weight 10", "b weight 11"))
    assert plan(hosts, [wanted]).assignments[0].host == "h2"


def test_allowing_more_helps_once_all_of_them_allow_it():
    apart, both = ("app=web over rack",), ("app=web over rack max 2",)
    for others, fits in ((apart, False), (both, True)):
        there = [
            host(row.name, row.rack, labels=row.labels, tenants=(web(row.name, apart=others),))
            for row in (RACKS[0], RACKS[4])
        ]
        assert bool(plan(there, [web("u", apart=both)]).assignments) is fits


@pytest.mark.parametrize(
    ("tolerate", "fits"), [((), 0), (("gpu",), 1), (("gpu=a100",), 1), (("gpu=b",), 0)]
)
def test_a_taint_keeps_away_who_does_not_tolerate_it(tolerate, fits):
    result = plan([host("h1", taints=("gpu=a100",))], [request("u", tolerate=tolerate)])
    assert len(result.assignments) == fits
    assert all("tainted `gpu=a100`" in refusal.message for refusal in result.refusals)


def test_a_preferred_taint_only_counts_while_others_fit():
    hosts = [host("h1", taints=("old:prefer",)), host("h2", placed=9, capacity=amount())]
    assert hosts_of(plan(hosts, [request("a"), request("b", since=1)])) == {"h1": 1, "h2": 1}


def test_apart_over_racks_puts_one_into_each_and_refuses_the_next():
    result = plan(RACKS, webs(4, apart=("app=web over rack",)))
    assert racks_of(result) == {"r1": 1, "r2": 1, "r3": 1}
    (refusal,) = result.refusals
    assert refusal.message == "5 hosts: 5 with app=web in their rack"
    assert racks_of(plan(RACKS, webs(9, apart=("app=web over rack max 2",)))) == {
        "r1": 2,
        "r2": 2,
        "r3": 2,
    }


def test_explain_says_how_many_would_have_to_be_allowed():
    full = [
        host(row.name, row.rack, labels=row.labels, tenants=(web(f"t{row.name}"),), placed=1)
        for row in RACKS
    ]
    found = explain(Board(full), web("u", apart=("app=web over rack",)))
    assert found.changes[0] == "allow 2 of app=web per rack, for all of them"
    verdict = next(each for each in found.verdicts if each.host == "h1")
    assert verdict.failing[0].why == "2 of app=web in rack r1, at most 1"


def test_who_wishes_to_be_apart_is_left_alone_by_those_who_come_later():
    alone = web("t", apart=("app=noisy",))
    hosts = [host("h1", tenants=(alone,), placed=0), host("h2", placed=50)]
    noisy = request("u", labels={"app": "noisy"}, project="p")
    result = plan(hosts, [noisy])
    assert result.assignments[0].host == "h2"
    (refusal,) = plan(hosts[:1], [noisy]).refusals
    assert "1 where others are apart from app=noisy over host" in refusal.message
    elsewhere = request("u", labels={"app": "noisy"}, project="q")
    assert plan(hosts[:1], [elsewhere]).assignments


def test_near_follows_also_what_is_placed_in_the_same_plan():
    db = request("z", labels={"app": "db"}, project="p", since=9)
    result = plan(RACKS, [*webs(3, near=("app=db over rack",)), db])
    assert len(racks_of(result)) == 1
    assert not result.refusals


def test_the_first_of_those_that_are_to_be_near_each_other_may_go_anywhere():
    result = plan(RACKS, webs(4, near=("app=web over rack",)))
    assert len(result.assignments) == 4
    assert len(racks_of(result)) == 1


def test_a_spread_is_never_more_uneven_than_allowed():
    hosts = [*rack("r1", "h1"), *rack("r2", "h2"), host("h3")]
    tight = [
        host("h1", "r1", labels={"rack": "r1"}, capacity=room_for(2)),
        *hosts[1:],
    ]
    result = plan(tight, webs(9, spread=("app=web over rack",)))
    assert hosts_of(result) == {"h1": 2, "h2": 3}
    assert "made uneven by app=web over rack (skew 1)" in result.refusals[0].message
    found = explain(Board(tight), web("u", spread=("app=web over rack",)))
    assert sorted(each.host for each in found.verdicts if each.rank) == ["h1", "h2"]


def test_a_rack_that_is_lost_does_not_hold_up_a_spread():
    dead = host("h9", "r9", labels={"rack": "r9"}, state=HostState.SILENT)
    result = plan([*rack("r1", "h1"), dead], webs(5, spread=("app=web over rack",)))
    assert len(result.assignments) == 5


def test_a_host_with_the_image_is_taken_unless_it_is_much_fuller():
    holds = host("h2", images=frozenset({"sha256:a"}), committed=amount(2000, GIB))
    assert plan([host("h1"), holds], [request("u", image="sha256:a")]).assignments[0].host == "h2"
    fuller = host("h2", images=frozenset({"sha256:a"}), committed=amount(9000, GIB))
    assert plan([host("h1"), fuller], [request("u", image="sha256:a")]).assignments[0].host == "h1"


def test_packed_ves_fill_one_host_after_the_other():
    hosts = [host(f"h{index}", capacity=room_for(4)) for index in range(4)]
    wanted = [request(f"u{index}", strategy=Strategy.PACK) for index in range(6)]
    assert sorted(hosts_of(plan(hosts, wanted)).values()) == [2, 4]


def test_a_wish_that_can_not_be_read_is_not_taken_for_none():
    (refusal,) = plan([host("h1")], [request("u", require=("from the future ~ 7",))]).refusals
    assert "can't be read" in refusal.message


labels = st.fixed_dictionaries(
    {},
    optional={
        "rack": st.sampled_from(["r1", "r2"]),
        "zone": st.sampled_from(["a", "b", "c"]),
        "gen": st.sampled_from(["1", "5", "x"]),
    },
)
some = partial(st.lists, max_size=2, unique=True)
over = st.sampled_from(["host", "rack", "zone"])
match = st.sampled_from(["app=web", "app=db", "app", "tier!=x"])
soft = st.sampled_from(["", "", " prefer 10", " prefer 60"])
ve_labels = st.fixed_dictionaries({}, optional={"app": st.sampled_from(["web", "db"])})
wishes = {
    "require": some(st.sampled_from(["zone", "gen>2", "zone in (a,b)", "!gen"])),
    "prefer": some(st.sampled_from(["zone=a weight 7", "gen<3 weight 60", "!rack weight 1"])),
    "tolerate": some(st.sampled_from(["gpu", "gpu=a", "old"])),
    "near": some(st.builds("{} over {}{}".format, match, over, soft)),
    "apart": some(st.builds("{} over {} max {}{}".format, match, over, st.integers(1, 3), soft)),
    "spread": some(st.builds("{} over {} skew {}{}".format, match, over, st.integers(1, 2), soft)),
}
kinds = st.builds(
    partial,
    st.just(request),
    resources=st.sampled_from([amount(), amount(cpu=250), amount(memory=3 * GIB)]),
    project=st.sampled_from(["p", "q"]),
    labels=ve_labels,
    image=st.sampled_from(["", "sha256:a"]),
    strategy=st.sampled_from([Strategy.SPREAD, Strategy.SPREAD, Strategy.PACK]),
    since=st.integers(0, 3),
    priority=st.sampled_from([0, 0, 5]),
    **{kind: found.map(tuple) for kind, found in wishes.items()},
)
tenants = st.lists(kinds, max_size=2)
host_makers = st.builds(
    partial,
    st.just(host),
    rack=st.sampled_from(["r1", "r2", "r3"]),
    capacity=st.sampled_from(
        [amount(4000, 4 * GIB, 9 * GIB, 900), amount(9000, 8 * GIB, 20 * GIB)]
    ),
    state=st.sampled_from([HostState.READY] * 6 + [HostState.SILENT]),
    labels=labels,
    taints=st.lists(st.sampled_from(["gpu=a", "old:prefer"]), max_size=1).map(tuple),
    images=st.sampled_from([frozenset(), frozenset({"sha256:a"})]),
)


@st.composite
def worlds(draw):
    """Hosts, some with tenants, and requests of a few kinds."""
    hosts = []
    for index, make in enumerate(draw(st.lists(host_makers, max_size=6))):
        there = tuple(
            make_one(uid=f"t{index}-{number}") for number, make_one in enumerate(draw(tenants))
        )
        total = sum((each.resources for each in there), amount(0, 0, 0, 0))
        hosts.append(make(name=f"h{index}", tenants=there, placed=len(there), committed=total))
    some_kinds = draw(st.lists(kinds, min_size=1, max_size=3))
    order = draw(st.lists(st.sampled_from(some_kinds), max_size=10))
    return hosts, [make(uid=f"u{index:02}") for index, make in enumerate(order)]


@given(worlds())
def test_every_placement_is_the_one_that_a_look_at_every_host_would_choose(world):
    hosts, wanted = world
    result = plan(hosts, wanted)
    assert {each.uid: each.host for each in result.assignments} == brute_plan(hosts, wanted)


@given(worlds(), st.integers(1, 4))
def test_a_run_of_alike_ves_gives_what_one_at_a_time_gives(world, times):
    hosts, wanted = world
    many = [
        msgspec.structs.replace(each, uid=Uid(f"{each.uid}-{number}"), since=index * 9 + number)
        for index, each in enumerate(wanted)
        for number in range(times)
    ]
    assert place(Board(hosts), many, run_at=1) == place(Board(hosts), many, run_at=10_000)


@given(worlds())
def test_a_second_plan_adds_nothing(world):
    hosts, wanted = world
    first = plan(hosts, wanted)
    board, refused = Board(hosts), {each.uid for each in first.refusals}
    by_uid = {each.uid: each for each in wanted}
    for each in first.assignments:
        board.take(board.index[each.host], by_uid[each.uid])
    left = [each for each in wanted if each.uid in refused]
    for each in left:
        assert explain(board, each).refusal is not None


@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_the_parts_does_not_count_with_wishes_either(world, random):
    hosts, wanted = world
    first = plan(hosts, wanted)
    random.shuffle(hosts)
    random.shuffle(wanted)
    assert plan(hosts, wanted) == first


@given(worlds())
def test_explain_agrees_with_plan_also_with_wishes(world):
    hosts, wanted = world
    for each in wanted[:2]:
        made, found = plan(hosts, [each]), explain(Board(hosts), each)
        first = [verdict.host for verdict in found.verdicts if verdict.rank == 1]
        assert [assignment.host for assignment in made.assignments] == first
        assert made.refusals == (() if found.refusal is None else (found.refusal,))
        assert all(bool(v.rank) != bool(v.failing) for v in found.verdicts)
        assert found.refusal is None or found.refusal.message


def loosened(request: Request, change: str) -> Request | None:
    """The request as a change of explain says, where that is about the request alone; None: it is about something else."""
    skew = re.fullmatch(r"allow a skew of (\d+) of (.+) over (\w+)", change)
    if skew is not None:
        wish = f"{skew[2]} over {skew[3]} skew {skew[1]}"
        others = [
            each for each in request.spread if not each.startswith(f"{skew[2]} over {skew[3]}")
        ]
        return msgspec.structs.replace(request, spread=(*others, wish))
    tolerated = re.fullmatch(r"tolerate (\S+)", change)
    if tolerated is not None:
        return msgspec.structs.replace(request, tolerate=(*request.tolerate, tolerated[1]))
    label = re.fullmatch(r"require no (.+), or label \w+ so", change)
    if label is not None:
        left = tuple(each for each in request.require if each != label[1])
        return msgspec.structs.replace(request, require=left)
    return None


@given(worlds())
def test_loosening_what_explain_says_makes_it_fit(world):
    hosts, wanted = world
    for each in wanted[:2]:
        for change in explain(Board(hosts), each).changes:
            looser: Request | None = each
            for part in change.split(" and "):
                looser = looser and loosened(looser, part)
            # Other wishes to spread measure by the places that are allowed: these may be more by then.
            if looser is not None and not (each.spread and looser.spread == each.spread):
                assert plan(hosts, [looser]).assignments, change
