"""Many VEs of one kind placed at once: host by host and word by word as one after the other."""

from hypothesis import given
from hypothesis import strategies as st

from kit.placing import GIB, amount, host, request
from vecontroller.placement import Board, HostRow, Request, place
from vecontroller.placement.kind import Kind
from vecontroller.placement.run import run_of

ALL = 1_000_000
SIZES = [amount(1000, GIB), amount(500, GIB // 2), amount(100, 0, 0, 1), amount(3000, GIB, 1, 1)]


@st.composite
def uneven_hosts(draw: st.DrawFn) -> list[HostRow]:
    """Of very different sizes, some nearly full, in racks of different lengths."""
    found = []
    for index in range(draw(st.integers(1, 12))):
        cores = draw(st.sampled_from([1, 4, 16, 64]))
        taken = draw(st.sampled_from([0, 0, 500, cores * 900]))
        found.append(
            host(
                f"h{index:02}",
                draw(st.sampled_from(["r1", "r1", "r2", "r3"])),
                capacity=amount(cores * 1000, cores * GIB, 640 * GIB, 9_000),
                committed=amount(taken, 0, 0, 0),
                placed=draw(st.integers(0, 9)),
                connected=draw(st.sampled_from([True, True, True, False])),
                labels=draw(st.sampled_from([{}, {"disk": "ssd"}])),
                images=draw(st.sampled_from([frozenset(), frozenset({"sha256:a"})])),
            )
        )
    return found


@st.composite
def batches(draw: st.DrawFn) -> list[Request]:
    """Up to three kinds, up to 150 of each."""
    found: list[Request] = []
    for size in draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=3)):
        image = draw(st.sampled_from(["", "sha256:a"]))
        prefer = draw(st.sampled_from([(), ("disk=ssd weight 3",)]))
        for _ in range(draw(st.integers(1, 150))):
            uid = f"u{len(found):04}"
            found.append(request(uid, size, since=len(found), image=image, prefer=prefer))
    return found


@given(uneven_hosts(), batches())
def test_all_at_once_is_as_one_after_the_other(hosts: list[HostRow], wanted: list[Request]) -> None:
    assert place(Board(hosts), wanted, run_at=1) == place(Board(hosts), wanted, run_at=ALL)


@given(uneven_hosts(), batches())
def test_the_board_is_the_same_after_it_and_can_be_rewound(
    hosts: list[HostRow], wanted: list[Request]
) -> None:
    at_once, one_by_one, before = Board(hosts), Board(hosts), Board(hosts)
    place(at_once, wanted, run_at=1)
    place(one_by_one, wanted, run_at=ALL)
    assert (at_once.columns == one_by_one.columns).all()
    assert (at_once.rack_placed == one_by_one.rack_placed).all()
    at_once.rewind()
    assert (at_once.columns == before.columns).all()
    assert (at_once.rack_placed == before.rack_placed).all()


def test_a_host_that_takes_nearly_all_is_looked_at_as_deep_as_it_must() -> None:
    small = [host(f"s{index:03}", "r1", placed=400) for index in range(200)]
    rows = [*small, host("big", "r2", capacity=amount(900_000, 900 * GIB, 9000 * GIB, 90_000))]
    wanted = [request(f"u{index:04}", since=index) for index in range(300)]
    made = place(Board(rows), wanted, run_at=1)
    assert {each.host for each in made.assignments} == {"big"}
    assert made == place(Board(rows), wanted, run_at=ALL)


def test_fewer_are_taken_when_no_more_fit() -> None:
    rows = [host("h1", capacity=amount(2000)), host("h2", "r2", capacity=amount(1000))]
    kind = Kind(Board(rows), request("u"))
    run = run_of(kind, 9)
    assert (run.hosts.tolist(), run.fitting.tolist()) == ([0, 1], [2, 1])
    assert run_of(Kind(Board([]), request("u")), 9).hosts.tolist() == []
