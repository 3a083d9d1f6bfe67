"""Rules on the tree itself: a banned call names its replacement."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for folder in ("proto", "controller", "agent")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))
]

PURE = {
    "controller/vecontroller/lifecycle.py",
    "controller/vecontroller/hostset.py",
    "controller/vecontroller/view.py",
    "agent/veagent/cpusets.py",
    "agent/veagent/plan.py",
    "agent/veagent/reconcile.py",
    "agent/veagent/snapshots.py",
    "proto/veapi/model/basics.py",
    "proto/veapi/model/cluster.py",
    "proto/veapi/model/hostset.py",
    "proto/veapi/model/ve.py",
    "proto/veapi/units.py",
    "proto/veapi/validate.py",
    "proto/veapi/selector.py",
}
PURE_FOLDERS = ("controller/vecontroller/placement/", "controller/vecontroller/whatif/")
IMPURE_MODULES = {
    "asyncio",
    "time",
    "random",
    "os",
    "subprocess",
    "socket",
    "grpc",
    "pyroute2",
    "datetime",
}

BANS: list[tuple[str, str, set[str]]] = [
    (r"asyncio\.TaskGroup\(\)", "veapi.groups.TaskGroup", set()),
    (r"asyncio\.wait_for\(", "asyncio.timeout: before Python 3.12 wait_for loses a cancellation that comes with the result", set()),
    (r"\bos\.fork\(", "spawn a program (veapi.process)", {"agent/veagent/storage/sandbox.py", "agent/veagent/inside/enter.py", "agent/veagent/inside/export.py"}),
    (r"preexec_fn", "wrap the program instead: children of a gRPC process die of it", set()),
    (r"shell=True", "argument lists only (veapi.process.run)", set()),
    (r"\btime\.(time|monotonic)\(", "take a veapi.clock.Clock", {"proto/veapi/clock.py"}),
    (r"\bdatetime\.now\(", "take a veapi.clock.Clock", set()),
    (r"\bimport tarfile|\bfrom tarfile", "real tar in a sandbox: tarfile's filters can be got round", set()),
    (r"\byaml\.load\(", "yaml.safe_load, or a SafeLoader of ours", set()),
    (r"insecure_channel|add_insecure_port", "mTLS always (veapi.channel)", set()),
]  # fmt: skip


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_banned_call(path: Path) -> None:
    text = path.read_text()
    for pattern, instead, allowed in BANS:
        if relative(path) not in allowed:
            found = re.search(pattern, text)
            assert found is None, f"{relative(path)}: {found and found[0]}: instead: {instead}"


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if relative(path) in PURE or relative(path).startswith(PURE_FOLDERS)],
    ids=relative,
)
def test_pure_modules_know_no_clock_no_chance_no_disk(path: Path) -> None:
    assert not IMPURE_MODULES & set(imported(path))


def test_only_one_package_knows_pyroute2() -> None:
    knowing = {relative(path) for path in SOURCES if "pyroute2" in set(imported(path))}
    assert all(name.startswith("agent/veagent/net/") for name in knowing), knowing


def test_no_file_owns_everything() -> None:
    long = {relative(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


def test_no_function_needs_scrolling() -> None:
    long = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 50:
                    long[f"{relative(path)}:{node.name}"] = lines
    assert long == {}
