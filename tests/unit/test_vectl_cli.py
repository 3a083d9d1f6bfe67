"""Command lines: what is understood, and what is refused."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from veapi.model import VEState
from vectl import main
from vectl.commands.wait import STATES, parse_condition
from vectl.lazy import LazyGroup
from vectl.session import Ended, Interrupted, Session

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "vectl.md"


def commands(group: LazyGroup, path: str = "vectl") -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        found = group.get_command(ctx, name)
        assert found is not None
        if isinstance(found, LazyGroup):
            yield from commands(found, f"{path} {name}")
        else:
            yield f"{path} {name}", found


ALL = dict(commands(main.root))


@pytest.fixture(autouse=True)
def no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")


@pytest.mark.parametrize("path", ALL)
def test_the_reference_has_every_command_with_an_example_and_every_option(path: str) -> None:
    text = DOCS.read_text()
    section = text.split(f"\n### {path}\n", 1)
    assert len(section) == 2, f"docs/reference/vectl.md has no section on {path}"
    body = section[1].split("\n### ")[0].split("\n## ")[0]
    assert f"\n{path}" in body.split("```")[1], f"{path} has no example"
    for param in ALL[path].params:
        if isinstance(param, click.Option) and not param.hidden:
            assert f"`{max(param.opts, key=len)}" in body, f"{path}: {param.opts} is not described"


@pytest.mark.parametrize("path", ALL)
def test_every_command_has_help_and_it_begins_with_its_line(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([*path.split()[1:], "--help"]) == 0
    assert "Usage: " + path in capsys.readouterr().out


def test_every_entry_of_the_tables_can_be_loaded_and_has_its_name() -> None:
    assert {path.split()[-1] for path in ALL} == {found.name for found in ALL.values()}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lsit", ["no such command: vectl lsit", "did you mean list?"]),
        ("image lst", ["vectl image lst", "did you mean list?"]),
        ("list --colour", ["--colour", "vectl list --help"]),
        ("list --selectr a", ["--selectr", "--selector"]),
        ("list -o xml", ["xml"]),
        ("create x", ["--image"]),
        ("create", ["NAME", "vectl create --help"]),
        ("create -x --image a", ["-x"]),
        ("create x --image a --memory 0", ["memory", "more than 0"]),
        ("create x --image a --memory=-1", ["memory", "'-1'"]),
        ("create x --image a --memory ten", ["memory", "'ten'"]),
        ("create x --image a --cpu nan", ["cpu", "'nan'"]),
        ("create x --image a --pids 9223372036854775807", ["pids", "1 to"]),
        ("create x --image a --pids ٣", ["pids"]),
        ("create x --image a --count 0", ["count"]),
        ("create x --image a --count 2 --ip 10.66.0.9", ["--ip", "--count"]),
        ("create x --image a --label =v", ["label"]),
        ("create x --image a --label v", ["label"]),
        ("create x --image a --timeout soon", ["timeout", "'soon'"]),
        ("stop x --timeout 0", ["timeout", "--force"]),
        ("delete", ["which VEs?"]),
        ("delete x -f y", ["which VEs?"]),
        ("exec x", ["command is missing"]),
        ("wait x", ["--for"]),
        ("wait x --for colour=red", ["colour", "state=Running"]),
        ("wait x --for state=runing", ["runing", "did you mean Running?"]),
        ("apply", ["-f FILE", "--plan"]),
        ("completion csh", ["csh"]),
        ("image import x /nonexistent", ["/nonexistent"]),
        ("list", ["contexts.toml does not exist", "make rack"]),
    ],
)
def test_a_wrong_line_is_two_lines_and_code_2(
    line: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(line.split()) == 2
    found = capsys.readouterr()
    assert found.out == ""
    error, hint = found.err.splitlines()
    assert error.startswith("Error: ")
    assert hint.startswith("Hint: ")
    for word in words:
        assert word in found.err


def test_a_delete_without_a_terminal_wants_to_be_sure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.run(["delete", "web"]) == 2
    assert "--yes" in capsys.readouterr().err


def test_aliases_are_understood_and_not_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["ls", "--help"]) == main.run(["rm", "--help"]) == 0
    capsys.readouterr()
    main.run(["--help"])
    assert "\n  ls " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Ended(7), 7, ""),
        (Interrupted("The request stands."), 130, "Interrupted. The request stands."),
        (RuntimeError("boom"), 8, "vectl itself failed: RuntimeError: boom"),
        (click.Abort(), 1, "nothing was changed"),
    ],
)
def test_every_ending_has_its_code_and_no_traceback(
    error: Exception,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Session, "context", fail)
    assert main.run(["list"]) == code
    found = capsys.readouterr()
    assert words in found.err
    assert "Traceback" not in found.err


def test_options_of_the_root_are_understood_behind_the_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "vectl").mkdir()
    (tmp_path / "vectl" / "contexts.toml").write_text("[contexts.a]\n")
    for line in (["--context", "b", "list"], ["list", "--context", "b"]):
        assert main.run(line) == 2
        assert "there is no context b" in capsys.readouterr().err


def test_conditions_of_wait() -> None:
    assert tuple(state for state in VEState if state is not VEState.DELETED) == STATES
    assert parse_condition("delete") == "delete"
    assert [parse_condition(f"state={state}") for state in STATES] == list(STATES)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["completion", shell]) == 0
    assert "_VECTL_COMPLETE" in capsys.readouterr().out
