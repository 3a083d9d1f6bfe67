"""Simulation finds seeded bugs, and makes the stories short that find them."""

import json

import pytest

from sim.mutants import MUTANTS, applied
from sim.test_sim_stories import sim

QUICK = (
    "writes-are-not-guarded-on-the-leader",
    "a-heartbeat-is-answered-without-a-beat",
    "an-unknown-write-counts-as-written",
    "a-delete-frees-all-at-once",
    "keep-is-taken-for-purge",
    "a-standby-does-not-wait",
    "what-is-kept-is-purged-at-once",
    "a-host-that-is-silent-gets-ves-twice",
    "a-host-fences-itself-later-than-m",
    "a-host-is-lost-after-f",
    "half-of-the-hosts-may-be-lost-at-once",
)
"""Those that are found at once; `make sim-mutants` finds all of them."""


@pytest.mark.timeout(600)
def test_seeded_bugs_are_found() -> None:
    told = sim("mutants", *QUICK, "--most", "40")
    print(told.stdout)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("caught") == len(QUICK)


def test_there_is_a_seeded_bug_of_each_kind_that_is_promised() -> None:
    assert set(QUICK) <= set(MUTANTS)
    assert len(MUTANTS) >= 40


@pytest.mark.parametrize("name", MUTANTS)
def test_a_seeded_bug_still_finds_its_place_in_the_product(name: str) -> None:
    with applied(name):
        pass


@pytest.mark.timeout(300)
def test_a_failing_story_is_made_short() -> None:
    told = sim("shrink", "1", "--mutant", "keep-is-taken-for-purge")
    story = json.loads(told.stdout.splitlines()[-1].removeprefix("STORY "))
    assert told.returncode == 1
    assert 1 <= len(story["events"]) <= 4
