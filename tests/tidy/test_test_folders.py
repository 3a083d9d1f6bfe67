"""Each test is in the folder that says what it needs; tests/unit needs nothing."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
UNIT = sorted((TESTS / "unit").glob("*.py"))
NOT_PURE = {
    "cryptography",
    "kit.apirig",
    "kit.certs",
    "kit.cgrouptree",
    "kit.etcds",
    "multiprocessing",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "vecontroller.identity",
}
CALLS_OUT = {
    "asyncio.create_subprocess_exec",
    "asyncio.open_connection",
    "asyncio.start_server",
    "os.fork",
    "os.mkfifo",
    "os.pipe",
    "os.symlink",
}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", UNIT, ids=lambda path: path.stem)
def test_a_unit_test_touches_no_store_socket_process_key_or_tree(path: Path) -> None:
    tree = ast.parse(path.read_text())
    tops = {name.partition(".")[0] for name in imported(tree)} | set(imported(tree))
    calls = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    hint = f"{path.name} belongs into tests/component"
    assert NOT_PURE & tops == set(), hint
    assert CALLS_OUT & calls == set(), hint


def test_no_two_test_files_have_one_name() -> None:
    names = Counter(path.name for path in TESTS.glob("*/test_*.py"))
    assert [name for name, times in names.items() if times > 1] == []
