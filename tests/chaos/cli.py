"""`make chaos`: the cases, then random rounds, with what to type to see a failure again."""

import argparse
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

from chaos import checks
from chaos.cases import CASES
from chaos.checks import Ledger, Violation
from chaos.rig import Rig, rig_of
from chaos.rounds import play


@dataclass(slots=True)
class Sum:
    """What is told at the end."""

    cases: dict[str, str] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def main(words: list[str]) -> int:
    """0: all promises held."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("verb", choices=["run"])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--ves", type=int, default=100)
    parser.add_argument("--cases", default=",".join(CASES), help="with commas; none: ''")
    parser.add_argument(
        "--minutes", type=float, default=0, help="no new round after these; 0: no end"
    )
    asked = parser.parse_args(words)
    total = Sum()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(130))  # the rack is taken down on the way out
    print(f"seed {asked.seed}, {asked.ves} VEs", flush=True)
    with rig_of(asked.ves) as rig:
        try:
            _cases(rig, [name for name in asked.cases.split(",") if name], total)
            _rounds(rig, asked, total)
            if not total.broken:
                checks.nothing_left(rig)
        except (Violation, AssertionError) as error:
            _broken(rig, total, f"{error}")
    return _told(asked.seed, total)


def _cases(rig: Rig, names: list[str], total: Sum) -> None:
    for name in names:
        title, case = CASES[name]
        rig.say(f"{name}: {title}")
        try:
            total.cases[name] = case(rig)
            checks.never_twice(rig)
        except (Violation, AssertionError) as error:
            _broken(rig, total, f"{name} ({title}): {error}")
            rig.mend()
            checks.converged(rig)
        else:
            rig.say(f"{name}: {total.cases[name]}")


def _rounds(rig: Rig, asked: argparse.Namespace, total: Sum) -> None:
    ledger, began = Ledger(), time.monotonic()
    for number in range(asked.first, asked.first + asked.rounds):
        if asked.minutes and time.monotonic() - began > asked.minutes * 60:
            return
        try:
            total.times.append(play(rig, asked.seed, number, ledger))
        except (Violation, AssertionError) as error:
            again = f"--seed {asked.seed} --first {number} --rounds 1 --cases ''"
            _broken(rig, total, f"round {number}: {error}\n  alone: {again}")
            return


def _broken(rig: Rig, total: Sum, what: str) -> None:
    where = Path(mkdtemp(prefix="verack-chaos-logs-", dir="/var/tmp"))
    rig.say(f"BROKEN {what}\n  logs: {where}")
    rig.keep_logs(where)
    total.broken.append(what)


def _told(seed: int, total: Sum) -> int:
    worst = f", all as asked after {max(total.times):.1f} s at most" if total.times else ""
    print(f"seed {seed}: {len(total.cases)} cases, {len(total.times)} rounds{worst}")
    for what in total.broken:
        print(f"BROKEN {what}", file=sys.stderr)
    return 1 if total.broken else 0
