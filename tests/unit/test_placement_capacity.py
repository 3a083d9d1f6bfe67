"""Capacity says what placing would come to."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kit.placing import GIB, amount, host, host_lists, request
from veapi.model import HostState, Resources
from vecontroller.placement import Board, capacity, more, plan

SIZES = st.sampled_from([amount(memory=GIB // 2), amount(cpu=3000, memory=1), amount(pids=40)])


def full(name: str, rack: str = "r1", *tenants, capacity=None):
    """With tenants, and no room but theirs unless a capacity is given."""
    total = sum((each.resources for each in tenants), Resources())
    return host(
        name,
        rack,
        capacity=capacity or total,
        committed=total,
        placed=len(tenants),
        tenants=tenants,
    )


@given(host_lists, SIZES)
def test_as_many_fit_as_can_be_placed(hosts, size):
    wanted = [request(f"u{index:03}", size, since=index) for index in range(200)]
    placed = len(plan(hosts, wanted).assignments)
    found = more(Board(hosts), size)
    assert placed == min(found, 200)
    assert capacity(Board(hosts), [size]).flavors[0].now == found


@given(host_lists, st.lists(SIZES, max_size=6))
def test_a_loss_strands_whom_a_plan_would_refuse_without_those_hosts(hosts, sizes):
    able = [row.name for row in hosts if row.able]
    tenants = [request(f"t{index}", size, since=index) for index, size in enumerate(sizes)]
    if not able:
        return
    hosts = [
        msgspec.structs.replace(row, tenants=tuple(tenants)) if row.name == able[0] else row
        for row in hosts
    ]
    (loss,) = [
        loss
        for loss in capacity(Board(hosts), [amount()]).losses
        if (loss.kind, loss.name) == ("host", able[0])
    ]
    without = [
        msgspec.structs.replace(row, state=HostState.SILENT) if row.name == able[0] else row
        for row in hosts
    ]
    made = plan(without, tenants)
    assert [each.uid for each in loss.stranded] == [each.uid for each in made.refusals]


@given(host_lists, SIZES)
def test_after_a_loss_never_more_fit_than_before(hosts, size):
    board = Board(hosts)
    before = board.free.copy()
    found = capacity(board, [size])
    assert all(loss.more[0] <= found.flavors[0].now for loss in found.losses)
    assert (board.free == before).all()


def test_a_rack_is_lost_with_all_its_hosts():
    big = amount(4000, 4 * GIB, 4 * GIB, 400)
    hosts = [
        full("h1", "r1", request("a")),
        full("h2", "r1", request("b")),
        full("h3", "r2", request("c"), capacity=amount(2000, 2 * GIB, 2 * GIB, 200)),
        host("h4", "r3", capacity=big, committed=big),
    ]
    losses = {
        (loss.kind, loss.name): len(loss.stranded)
        for loss in capacity(Board(hosts), [amount()]).losses
    }
    assert losses == {
        ("host", "h1"): 0,
        ("host", "h2"): 0,
        ("host", "h3"): 1,
        ("host", "h4"): 0,
        ("rack", "r1"): 1,
        ("rack", "r2"): 1,
        ("rack", "r3"): 0,
    }


def test_a_ve_for_one_host_is_stranded_by_its_loss():
    hosts = [full("h1", "r1", request("a", host="h1")), host("h2")]
    loss = capacity(Board(hosts), [amount()]).losses[0]
    assert loss.stranded[0].message == "host h1, which was asked for, is lost"


def test_the_worst_loss_is_the_one_that_leaves_least():
    hosts = [host("h1", capacity=amount(9000, 9 * GIB, 9 * GIB, 900)), host("h2")]
    found = capacity(Board(hosts), [amount()])
    assert found.flavors[0].now == 9 + 64
    worst = found.worst("host", 0)
    assert worst is not None
    assert (worst.name, worst.more) == ("h2", (9,))
    assert found.worst("power", 0) is None
