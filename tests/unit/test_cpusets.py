"""Which processors each VE gets."""

from hypothesis import given
from hypothesis import strategies as st

from veagent.cpusets import MOVES_AT_ONCE, Cpusets
from veapi.model import Uid

A, B, C, D = (Uid(name) for name in "abcd")


def test_a_ve_gets_as_many_as_its_quota_fills() -> None:
    host = Cpusets(range(4))
    assert len(host.place(A, 1)) == 1
    assert len(host.place(B, 1000)) == 1
    assert len(host.place(C, 1001)) == 2
    assert len(host.place(D, 99_000)) == 4


def test_without_a_quota_it_gets_all() -> None:
    assert Cpusets(range(3)).place(A, 0) == (0, 1, 2)


def test_they_are_spread_over_the_least_committed() -> None:
    host = Cpusets((2, 3))
    assert host.place(A, 1000) == (2,)
    assert host.place(B, 500) == (3,)
    assert host.place(C, 500) == (3,)
    assert host.load(2) == host.load(3) == 1000


def test_a_place_is_kept_over_a_change_of_the_quota() -> None:
    host = Cpusets(range(4))
    host.place(A, 1000)
    host.place(B, 2000)
    assert host.place(A, 2000) == (0, 3)
    assert host.place(A, 1000) in {(0,), (3,)}
    assert host.of(B) == (1, 2)


def test_who_comes_back_gets_the_place_that_it_held() -> None:
    host = Cpusets(range(4))
    assert host.place(A, 2000, held=(1, 3)) == (1, 3)
    assert host.place(B, 1000, held=(9,)) == (0,)


def test_when_one_goes_another_moves_to_where_room_is_and_is_told() -> None:
    host = Cpusets((0, 1))
    moved: list[Uid] = []
    host.listen(moved.append)
    for uid in (A, B, C, D):
        host.place(uid, 500)
    assert (host.of(A), host.of(C)) == ((0,), (0,))
    host.release(B)
    assert moved == []
    host.release(D)
    assert len(moved) == 1
    assert {host.of(A), host.of(C)} == {(0,), (1,)}


def test_nobody_is_pinned_when_it_is_switched_off() -> None:
    host = Cpusets(range(4), enabled=False)
    assert host.place(A, 1000) == ()
    host.release(A)
    assert host.of(A) == ()


changes = st.lists(
    st.tuples(st.integers(0, 11), st.none() | st.integers(0, 9000)), min_size=1, max_size=40
)


@given(cpus=st.integers(1, 8), steps=changes)
def test_places_fit_loads_add_up_and_few_move(
    cpus: int, steps: list[tuple[int, int | None]]
) -> None:
    moved: list[Uid] = []
    host, there = Cpusets(range(cpus)), dict[Uid, int]()
    host.listen(moved.append)
    for number, millis in steps:
        uid = Uid(str(number))
        before = {each: host.of(each) for each in there if each != uid}
        moved.clear()
        if millis is None:
            there.pop(uid, None)
            host.release(uid)
        else:
            there[uid] = millis
            host.place(uid, millis)
        changed = {each for each, place in before.items() if host.of(each) != place}
        assert changed <= set(moved)
        assert len(moved) <= MOVES_AT_ONCE
        for each, quota in there.items():
            size = min(cpus, -(-quota // 1000) or cpus)
            assert len(set(host.of(each))) == len(host.of(each)) == size
            assert set(host.of(each)) <= set(range(cpus))
    committed = sum(host.load(cpu) for cpu in range(cpus))
    assert abs(committed - sum(there.values())) < 1e-6


@given(count=st.integers(1, 30))
def test_equal_ves_are_spread_evenly(count: int) -> None:
    host = Cpusets(range(4))
    for number in range(count):
        host.place(Uid(str(number)), 500)
    loads = [host.load(cpu) for cpu in range(4)]
    assert max(loads) - min(loads) <= 500
