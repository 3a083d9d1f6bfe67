"""A lost host in an otherwise quiet cluster: its fenced VEs, and only those, run elsewhere, in time."""

import re

import pytest

from sim.story import MOVE_AFTER, Event, Knobs, Story
from sim.world import play

LOST_AT_S = 20.0
CREATES = [Event(1.0 + number, "create", (number, 11 + number, number)) for number in range(4)]
POWER, CUT, DEAD = 0, 1, 2


def lines(*, fenced: int, how: int, seed: int, more: tuple[Event, ...] = ()) -> list[str]:
    """What is told of a story in which h0 to h2 are lost in turn by seed, for a minute."""
    loss = Event(LOST_AT_S, "host is lost", (seed, 999, how))
    knobs = Knobs(hosts=4, room=5, replicas=3, fenced=fenced, rate_error=0.0, loss=0.0, pace=0.5)
    events = tuple(sorted((*CREATES, loss, *more), key=lambda event: event.at))
    told: list[str] = []
    outcome = play(Story(seed, knobs, events), listener=told.append)
    assert outcome.violation is None
    return told


def at(line: str) -> float:
    return float(line.split(maxsplit=1)[0])


@pytest.mark.parametrize("how", [POWER, CUT, DEAD])
def test_fenced_ves_of_a_lost_host_run_elsewhere_within_m_and_three_seconds(how: int) -> None:
    moved = 0
    for seed in range(4):
        told = lines(fenced=100, how=how, seed=seed)
        for line in told:
            found = re.search(r"MOVED (\S+) from (\S+) to (\S+)", line)
            if found is None:
                continue
            moved += 1
            start = f"{found[3]} start {found[1]}"
            begun = next(at(each) for each in told if each.endswith(start))
            assert LOST_AT_S < at(line) <= begun <= LOST_AT_S + MOVE_AFTER * 0.5 + 3
    assert moved >= 2


def test_ves_of_policy_stay_are_never_moved() -> None:
    for seed in range(2):
        assert not [line for line in lines(fenced=0, how=POWER, seed=seed) if "MOVED" in line]


def test_nothing_is_moved_when_half_of_the_hosts_are_lost_at_once() -> None:
    for seed in range(2):
        other = Event(LOST_AT_S + 0.2, "host is lost", (seed + 1, 999, POWER))
        told = lines(fenced=100, how=POWER, seed=seed, more=(other,))
        assert not [line for line in told if "MOVED" in line]
