"""Many stories, those that once failed for ever, and the promise that a seed is a story."""

import subprocess
from pathlib import Path

import pytest

from sim.cli import command, environment

PINNED = sorted((Path(__file__).parent / "pinned").glob("*.json"))
PLAYED_S = 50
"""For how long stories are played here."""
FIRST = 240380282297
"""The same ones each time, so that one that fails tells of the change that it was tried with; `make sim` plays fresh ones, and many more."""
MOST = 500


def sim(*arguments: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.timeout(600)
def test_stories_violate_nothing() -> None:
    told = sim("run", "--base", str(FIRST), "--count", str(MOST), "--seconds", str(PLAYED_S))
    print(told.stdout)
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.stem)
def test_what_once_failed_holds(path: Path) -> None:
    told = sim("replay", str(path))
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("seed", ["7", "2258", "1000"])
def test_a_seed_is_a_story_to_the_byte(seed: str) -> None:
    first, second = sim("replay", seed), sim("replay", seed)
    assert first.stdout == second.stdout
    assert len(first.stdout.splitlines()) > 50
