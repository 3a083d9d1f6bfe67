"""Fresh stories each time, those that once failed for ever, and the promise that a seed is a story."""

import subprocess
from pathlib import Path

import pytest

from sim.cli import command, environment

PINNED = sorted((Path(__file__).parent / "pinned").glob("*.json"))
FRESH_S = 50
"""For how long fresh stories are played here; `make sim` plays many more."""


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
def test_fresh_stories_violate_nothing() -> None:
    told = sim("run", "--seconds", str(FRESH_S))
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
