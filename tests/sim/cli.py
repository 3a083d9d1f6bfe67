"""The commands of the simulation. Every failure ends with the one line that repeats it."""

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import SystemRandom

TESTS = Path(__file__).resolve().parents[1]
HASH_SEED = "0"
"""Sets of words are in the same order in each run."""


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        return subprocess.call(command(arguments), env=environment())
    options = _parser().parse_args(arguments)
    code: int = options.call(options)
    return code


def command(arguments: Sequence[str]) -> list[str]:
    """What runs one of the commands in a process of its own."""
    return [sys.executable, "-W", "ignore::RuntimeWarning", "-m", "sim", *arguments]


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONHASHSEED": HASH_SEED, "PYTHONPATH": path}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sim", description="simulates whole clusters")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="plays fresh stories")
    run.add_argument("--count", type=int, default=0, help="stories; 0: as many as the time allows")
    run.add_argument("--seconds", type=float, default=float("inf"), help="for how long")
    run.add_argument("--base", type=int, default=None, help="first seed; a random one if not given")
    run.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    run.add_argument("--no-shrink", action="store_true", help="only tell what failed")
    run.set_defaults(call=_run)
    worker = commands.add_parser("worker")
    worker.add_argument("--base", type=int, required=True)
    worker.add_argument("--step", type=int, required=True)
    worker.add_argument("--count", type=int, required=True)
    worker.add_argument("--until", type=float, required=True)
    worker.set_defaults(call=_worker)
    replay = commands.add_parser("replay", help="plays one story and tells it")
    replay.add_argument("story", help="a seed, or a file with a story")
    replay.add_argument("--logs", action="store_true", help="with what the programs log")
    replay.add_argument("--mutant", default="", help="with this bug in it")
    replay.set_defaults(call=_replay)
    shrink = commands.add_parser("shrink", help="makes a failing story short")
    shrink.add_argument("story", help="a seed, or a file with a story")
    shrink.add_argument("--mutant", default="", help="with this bug in it")
    shrink.set_defaults(call=_shrink)
    mutants = commands.add_parser("mutants", help="finds seeded bugs")
    mutants.add_argument("names", nargs="*", help="only these")
    mutants.add_argument("--most", type=int, default=400, help="stories for each")
    mutants.add_argument("--base", type=int, default=1)
    mutants.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    mutants.set_defaults(call=_mutants)
    mutant = commands.add_parser("mutant")
    mutant.add_argument("names", nargs="+")
    mutant.add_argument("--most", type=int, required=True)
    mutant.add_argument("--base", type=int, required=True)
    mutant.set_defaults(call=_mutant)
    return parser


def _run(options: argparse.Namespace) -> int:
    """Shares the seeds among processes; shrinks the first failure."""
    base = options.base if options.base is not None else SystemRandom().randrange(1 << 40)
    began = time.monotonic()
    print(f"stories from seed {base} on", flush=True)
    workers = [
        subprocess.Popen(
            command(
                [
                    "worker",
                    *("--base", str(base + number), "--step", str(options.workers)),
                    *("--count", str(_share(options.count, number, options.workers))),
                    *("--until", str(options.seconds)),
                ]
            ),
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(options.workers)
    ]
    played, moves, failed, broken = 0, 0, [], 0
    for worker in workers:
        told, _ = worker.communicate()
        broken += worker.returncode not in (0, 1)
        for line in told.splitlines():
            word, _, rest = line.partition(" ")
            if word == "FAILED":
                failed.append(rest)
            elif word == "PLAYED":
                played += int(rest.split()[0])
                moves += int(rest.split()[1])
            else:
                print(line)
    took = time.monotonic() - began
    print(f"{played} stories in {took:.0f} s, {played / took:.1f} a second, {len(failed)} failed")
    print(f"{moves} VEs were moved from lost hosts")
    for line in failed[:20]:
        print(f"FAILED seed {line}\n  python -m sim replay {line.split()[0]}")
    if failed and not options.no_shrink:
        _shrink(argparse.Namespace(story=failed[0].split()[0], mutant=""))
    return 1 if failed or broken else 0


def _share(count: int, number: int, workers: int) -> int:
    return 0 if count == 0 else count // workers + (number < count % workers)


def _worker(options: argparse.Namespace) -> int:
    from sim import story, world  # noqa: PLC0415 - after the hash seed is set

    began, played, failed, moves = time.monotonic(), 0, 0, 0
    for seed in _seeds(options):
        if time.monotonic() - began > options.until:
            break
        outcome = world.play(story.make(seed))
        played += 1
        moves += outcome.moves
        if outcome.violation is not None:
            failed += 1
            print(f"FAILED {seed} {outcome.violation}", flush=True)
    print(f"PLAYED {played} {moves}", flush=True)
    return 1 if failed else 0


def _seeds(options: argparse.Namespace) -> Iterator[int]:
    seeds = itertools.count(options.base, options.step)
    return itertools.islice(seeds, options.count) if options.count else seeds


def _replay(options: argparse.Namespace) -> int:
    from sim import world  # noqa: PLC0415

    with _mutated(options.mutant):
        outcome = world.play(_story(options.story), listener=print, logs=options.logs)
    print(f"digest {outcome.digest}, {outcome.steps} steps, {outcome.revisions} revisions")
    return 1 if outcome.violation is not None else 0


def _shrink(options: argparse.Namespace) -> int:
    from sim import shrink  # noqa: PLC0415

    with _mutated(options.mutant):
        found = shrink.shrink(_story(options.story))
    if found is None:
        print("it does not fail")
        return 0
    print(f"shrunk to {len(found.story.events)} events: {found.violation}")
    for event in found.story.events:
        print(f"  {event.at:8.3f} {event.what} {event.numbers}")
    print(f"STORY {found.story.dumps()}")
    return 1


def _story(name: str):
    from sim import story  # noqa: PLC0415

    if name.isdecimal():
        return story.make(int(name))
    return story.loads(Path(name).read_text().splitlines()[-1])


def _mutated(name: str):
    from sim import mutants  # noqa: PLC0415

    return mutants.applied(name)


def _mutants(options: argparse.Namespace) -> int:
    """In as many processes as asked; tells how many stories each took."""
    from sim.mutants import MUTANTS  # noqa: PLC0415

    names = options.names or list(MUTANTS)
    shares = [names[number :: options.workers] for number in range(options.workers)]
    workers = [
        subprocess.Popen(
            command(["mutant", *share, "--most", str(options.most), "--base", str(options.base)]),
            env=environment(),
        )
        for share in shares
        if share
    ]
    return max(worker.wait() for worker in workers)


def _mutant(options: argparse.Namespace) -> int:
    from sim import mutants, story, world  # noqa: PLC0415

    escaped = 0
    for name in options.names:
        caught = None
        with mutants.applied(name):
            for number in range(options.most):
                outcome = world.play(story.make(options.base + number))
                if outcome.violation is not None:
                    caught = outcome.violation
                    break
        if caught is None:
            escaped += 1
            print(f"ESCAPED {name}: in {options.most} stories", flush=True)
        else:
            print(f"caught  {name}: {number + 1} stories; {caught.invariant}", flush=True)
    return 1 if escaped else 0
