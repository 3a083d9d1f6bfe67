import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.world import make_placement
from veapi.model import HostName, Stay
from vecontroller.failover.brakes import (
    FIRST_DELAY_S,
    HOST_PAUSE_S,
    LONGEST_DELAY_S,
    STARTS_A_SECOND,
    WITHIN_S,
    Starts,
    damped_s,
    flaps,
    storm,
)

NOW = 1_700_000_000.0
H1 = HostName("h1")


@pytest.mark.parametrize(
    ("hosts", "silent", "stops"),
    [(2, 1, True), (3, 1, False), (3, 2, True), (4, 2, True), (5, 2, False), (1, 1, True)],
)
def test_half_of_the_hosts_or_more_are_a_storm(hosts, silent, stops):
    known = [HostName(f"h{n}") for n in range(hosts)]
    assert bool(storm(known, known[:silent])) is stops


def test_hosts_that_are_long_gone_neither_make_a_storm_nor_prevent_one():
    known = [HostName("a"), HostName("b"), HostName("c")]
    gone = [HostName("x"), HostName("y")]
    assert storm(known, [HostName("a"), *gone]) == ""
    assert "2 of 3" in storm(known, [HostName("a"), HostName("b"), *gone])


def moved(*ago):
    stays = tuple(
        Stay(host=H1, generation=n, began_at=0.0, ended_at=NOW - at) for n, at in enumerate(ago)
    )
    return make_placement("h2", past=stays)


def test_the_first_move_of_an_hour_delays_nothing_and_each_later_one_more():
    assert damped_s(moved(), NOW) == 0
    assert damped_s(moved(1), NOW) == 0
    assert damped_s(moved(50, 0), NOW) == FIRST_DELAY_S
    assert damped_s(moved(90, 50, 0), NOW) == 2 * FIRST_DELAY_S
    assert damped_s(moved(90, 50, 20), NOW) == 2 * FIRST_DELAY_S - 20
    assert damped_s(moved(*range(20)), NOW) == LONGEST_DELAY_S


def test_what_was_moved_over_an_hour_ago_is_forgotten():
    assert damped_s(moved(WITHIN_S + 1, WITHIN_S + 2, 0), NOW) == 0


@given(st.lists(st.floats(0, 2 * WITHIN_S), max_size=20))
def test_liveness_no_ve_waits_for_longer_than_a_quarter_of_an_hour(ago):
    assert 0 <= damped_s(moved(*sorted(ago, reverse=True)), NOW) <= LONGEST_DELAY_S


def test_a_host_that_flaps_takes_no_moved_ves_for_a_while():
    assert not flaps(())
    assert not flaps((5.0,))
    assert "2 times" in flaps((300.0, 5.0))
    assert not flaps((3000.0, HOST_PAUSE_S + 1))


def test_a_host_gets_twenty_starts_a_second():
    starts = Starts()
    starts.take({H1: 15}, 10.0)
    assert starts.room(H1, 10.5) == STARTS_A_SECOND - 15
    starts.take({H1: 5}, 10.5)
    assert starts.room(H1, 10.9) == 0
    assert starts.room(H1, 11.0) == 15
    assert starts.room(HostName("h2"), 10.9) == STARTS_A_SECOND
