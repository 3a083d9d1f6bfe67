"""Nothing that can't be taken back is done where nobody can be asked."""

import io

import pytest

from vectl.main import run
from vectl.sure import some


@pytest.mark.parametrize(
    "words",
    [
        "delete web",
        "purge web",
        "rebuild web",
        "restore web before",
        "orphan purge 0b5e2f7c",
        "group delete web",
        "host fence h1 --powered-off",
        "host replace h1",
        "host remove h1 --forget-ves",
    ],
)
def test_without_a_terminal_yes_must_be_said(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run(words.split()) == 2
    told = capsys.readouterr().err
    assert "without being sure" in told
    assert "say --yes" in told


def test_of_many_names_the_first_are_told_and_how_many_more() -> None:
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c, d, e"
    assert some(["a", "b", "c", "d", "e", "f", "g"]) == "a, b, c, d, e and 2 more"
