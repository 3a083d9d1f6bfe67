"""vefence is small, and goes on when all else is broken: it has nothing but Python's own library."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "agent" / "vefence"
SLOW = {"asyncio", "logging", "multiprocessing", "socket", "ssl", "subprocess", "threading"}
"""What it does without, to be small in memory and never to wait."""
MOST_LINES = 800


def modules() -> Iterator[tuple[str, str]]:
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path.name, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield path.name, node.module.partition(".")[0]


def test_it_imports_nothing_but_the_standard_library_and_itself():
    foreign = {
        (file, module)
        for file, module in modules()
        if module not in sys.stdlib_module_names and module != "vefence"
    }
    assert foreign == set()


def test_it_imports_nothing_that_may_wait_or_is_large():
    assert {(file, module) for file, module in modules() if module in SLOW} == set()


def test_its_core_knows_no_clock_and_no_disk():
    impure = {"os", "time", "signal", "select", "pathlib", "ctypes"}
    assert {module for file, module in modules() if file == "core.py"} & impure == set()


def test_it_is_small():
    assert sum(len(path.read_text().splitlines()) for path in FOLDER.glob("*.py")) < MOST_LINES
