"""Bad input gets a clear error with a hint and the right exit code, and changes nothing."""

from pathlib import Path

import pytest

from kit.rack import Rack

CASES = [
    (("create", "x1", "--image", "no-such-image"), 3, "no-such-image"),
    (("create", "Bad_Name", "--image", "busybox"), 2, "name"),
    (("create", "-x", "--image", "busybox"), 2, ""),
    (("create", "x1", "--image", "busybox", "--memory", "10 apples"), 2, "10 apples"),
    (("create", "x1", "--image", "busybox", "--memory", "0"), 2, "memory"),
    (("create", "x1", "--image", "busybox", "--memory", "-1"), 2, "memory"),
    (("create", "x1", "--image", "busybox", "--cpu", "nan"), 2, "cpu"),
    (("create", "x1", "--image", "busybox", "--pids", "9223372036854775807"), 2, "pids"),
    (("create", "x1", "--image", "busybox", "--label", "=v"), 2, "label"),
    (("create", "x1", "--image", "busybox", "--label", "a b=c"), 2, "label"),
    (("create", "x1", "--image", "busybox", "--ip", "10.66.0.0/33"), 2, "ip"),
    (("create", "x1", "--image", "busybox", "--ip", "192.0.2.1"), 2, "ip"),
    (("create", "x1", "--image", "busybox", "--host", "h9"), 3, "h9"),
    (("create", "x1", "--image", "busybox", "-p", "nowhere"), 3, "nowhere"),
    (("create", "x1"), 2, "--image"),
    (("create", "x1", "--image", "busybox", "--colour", "red"), 2, "--colour"),
    (("lsit",), 2, "list"),
    (("show", "nobody"), 3, "nobody"),
    (("start", "nobody"), 3, "nobody"),
    (("exec", "nobody", "--", "true"), 125, "nobody"),
    (("delete", "nobody", "--yes"), 3, "nobody"),
    (("list", "-l", "a in b in c"), 2, "selector"),
    (("list", "-o", "xml"), 2, "xml"),
    (("wait", "nobody", "--for", "colour=red"), 2, "colour"),
]


@pytest.mark.parametrize(("arguments", "code", "word"), CASES, ids=lambda value: str(value)[:50])
def test_bad_input_is_refused_and_changes_nothing(
    rack: Rack, arguments: tuple[str, ...], code: int, word: str
) -> None:
    before = rack.vectl("list", "-o", "json").out
    result = rack.vectl(*arguments, code=code)
    assert result.out == ""
    assert word in result.err
    assert "Error" in result.err
    assert "int" not in result.err.split("Hint")[0] or "Hint" in result.err
    assert rack.vectl("list", "-o", "json").out == before


def test_a_taken_name_is_a_conflict(clean: Rack) -> None:
    clean.vectl("create", "taken", "--image", "busybox")
    result = clean.vectl("create", "taken", "--image", "busybox", code=4)
    assert "taken" in result.err
    assert "Hint" in result.err


def test_what_fits_nowhere_is_kept_pending_and_says_why(clean: Rack) -> None:
    result = clean.vectl("create", "giant", "--image", "busybox", "--memory", "900G", code=5)
    assert "memory" in result.err
    assert "delete" in result.err
    assert clean.ve("giant")["status"]["state"] == "Pending"
    shown = clean.vectl("show", "giant").out
    assert "memory" in shown


def test_a_file_that_is_no_image_leaves_nothing(rack: Rack, tmp_path: Path) -> None:
    for name, content in {
        "text": b"hello" * 1000,
        "empty": b"",
        "gzip": b"\x1f\x8b" + b"x" * 500,
    }.items():
        file = tmp_path / name
        file.write_bytes(content)
        result = rack.vectl("image", "import", f"bad-{name}", str(file), code=2)
        assert "Hint" in result.err
    names = rack.vectl("image", "list", "-o", "name").out
    assert "bad" not in names
    for host in rack.plan.hosts:
        folder = rack.plan.host_state(host) / "pool" / "tmp"
        assert not folder.exists() or list(folder.iterdir()) == []


def test_broken_yaml_names_the_line(rack: Rack) -> None:
    result = rack.vectl("apply", "-f", "-", text_in="kind: VE\nmetadata: {name: a\n", code=2)
    assert "line" in result.err


def test_an_unknown_field_is_named_with_its_line(rack: Rack) -> None:
    text = "kind: VE\nmetadata:\n  name: a\nspec:\n  image: busybox\n  memroy: 1G\n"
    result = rack.vectl("apply", "-f", "-", text_in=text, code=2)
    assert "memroy" in result.err
    assert "6" in result.err


def test_an_unreachable_controller_is_said_with_its_address(rack: Rack) -> None:
    result = rack.vectl("--endpoint", "unix:/nonexistent/controller.sock", "list", code=8)
    assert "/nonexistent/controller.sock" in result.err
    assert "Hint" in result.err
