"""What cases wait for, and compare with."""

import time
from collections.abc import Callable

from chaos import checks
from chaos.checks import Violation
from chaos.rig import Rig


def untouched(rig: Rig, before: dict[str, int]) -> None:
    """No VE at all was started again."""
    after = rig.oracle.starts()
    again = {name: rig.oracle.lines(name) for name in before if after[name] != before[name]}
    if again:
        raise Violation(f"started again: {again}")


def seconds_until(probe: Callable[[], bool], within_s: float, what: str) -> float:
    began = time.monotonic()
    while not probe():
        if time.monotonic() - began > within_s:
            raise Violation(f"{what}: not within {within_s:g} s")
        time.sleep(0.05)
    return time.monotonic() - began


def whole(rig: Rig) -> float:
    rig.mend()
    return checks.converged(rig)


def all_again(rig: Rig, names: set[str], before: dict[str, int]) -> bool:
    starts = rig.oracle.starts()
    return all(starts[name] > before[name] for name in names)
