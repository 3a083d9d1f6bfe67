"""Placement alone, in memory: made-up racks of 100 to 10,000 hosts, streams of VEs with and without wishes.

Times are CPU seconds of this one thread, as other work on the machine must not count; wall times are printed beside them.
Every decision looks at all hosts. A sample of the mixed stream is compared with a look at every host in plain Python.
"""

import gc
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.madeup import alike, made_hosts, mixed, plain, stream
from kit.bruteplan import brute_plan
from vecontroller.placement import Board, HostRow, Request, capacity, explain, place
from vecontroller.placement.plan import RUN_AT

ONE_BY_ONE = 300
SAMPLE_HOSTS, SAMPLE_VES = 60, 150


class Spent:
    """CPU and wall seconds."""

    cpu = wall = 0.0


@contextmanager
def spending() -> Iterator[Spent]:
    gc.collect()
    spent, cpu, wall = Spent(), time.process_time(), time.perf_counter()
    yield spent
    spent.cpu, spent.wall = time.process_time() - cpu, time.perf_counter() - wall


def bench_placement(sizes: tuple[int, ...], ves: int) -> None:
    """Prints a line for each size and stream."""
    _agree()
    for hosts in sizes:
        rows = made_hosts(hosts)
        for name, make in (("no wishes", plain), ("mixed wishes", mixed)):
            _stream(rows, name, stream(make, min(ves, hosts * 10)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  most memory of the whole process: {memory:.0f} MiB")


def _agree() -> None:
    rows, wanted = made_hosts(SAMPLE_HOSTS), stream(mixed, SAMPLE_VES)
    made = place(Board(rows), wanted)
    assert {each.uid: each.host for each in made.assignments} == brute_plan(rows, wanted)
    print(
        f"  {SAMPLE_VES} mixed VEs on {SAMPLE_HOSTS} hosts: as a look at every host in plain Python"
    )


def _stream(rows: list[HostRow], name: str, wanted: list[Request]) -> None:
    board = Board(rows)
    with spending() as spent:
        made = place(board, wanted)
    placed = len(made.assignments)
    singles = _singles(board, wanted)
    print(
        f"  {len(rows):6} hosts, {name:12} {placed:6} placed, {len(made.refusals)} refused: "
        f"{placed / spent.cpu:8.0f}/s ({placed / spent.wall:.0f}/s wall); one more: "
        f"p50 {statistics.median(singles):.2f} p99 {statistics.quantiles(singles, n=100)[-1]:.2f} ms"
    )


def _singles(board: Board, wanted: list[Request]) -> list[float]:
    """Milliseconds of CPU of single decisions on a board that stands, each taken back."""
    board.settle()
    found = []
    for request in wanted[:ONE_BY_ONE]:
        began = time.process_time()
        place(board, [request])
        board.rewind()
        found.append((time.process_time() - began) * 1000)
    return found


def bench_mass(hosts: int, ves: int, kinds: int) -> None:
    """A create of many VEs of few kinds, beside the same one at a time."""
    rows, wanted = made_hosts(hosts), alike(ves, kinds)
    for name, run_at in (("together", RUN_AT), ("one at a time", ves + 1)):
        board = Board(rows)
        with spending() as spent:
            made = place(board, wanted, run_at=run_at)
        print(
            f"  {len(made.assignments)} VEs of {kinds} kinds on {hosts} hosts, {name}: {spent.cpu:.2f} s"
        )


def bench_words(hosts: int) -> None:
    """How long people wait for explain and capacity."""
    rows = made_hosts(hosts)
    board, wanted = Board(rows), stream(mixed, 1)
    with spending() as spent:
        explain(board, wanted[0])
    print(f"  {hosts:6} hosts: explain {spent.cpu * 1000:.0f} ms", end="")
    with spending() as spent:
        capacity(board, [wanted[0].resources])
    print(f", capacity with all losses {spent.cpu * 1000:.0f} ms")
