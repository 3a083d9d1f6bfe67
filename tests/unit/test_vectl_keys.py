import pytest

from veapi.errors import InvalidInput
from vectl.attached import Detached
from vectl.detachkey import DetachKeys, parse_keys
from vectl.moment import parse_since

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-a,q", b"\x01q"),
        ("Ctrl-A,Q", b"\x01Q"),
        ("ctrl-]", b"\x1d"),
        ("ctrl-@", b"\x00"),
        ("~,.", b"~."),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
    ],
)
def test_keys_are_what_a_terminal_sends(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize(
    "text", ["", ",", "a,", "ctrl-", "ctrl-aa", "ctrl-1", "esc", "a b", "\n", "é", "a,b,c,d,e", " "]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="detach-key") as refused:
        parse_keys(text)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("typed", "passed"),
    [
        ([b"ls\r"], b"ls\r"),
        ([b"\x01", b"x"], b"\x01x"),
        ([b"\x01\x01"], b"\x01"),
        ([b"a\x01", b"\x01b"], b"a\x01b"),
        ([b"q\x01bq"], b"q\x01bq"),
    ],
)
def test_what_is_typed_goes_on(typed: list[bytes], passed: bytes) -> None:
    keys = DetachKeys(b"\x01q")
    assert b"".join(keys.feed(data) for data in typed) == passed


@pytest.mark.parametrize("typed", [[b"\x01q"], [b"abc\x01", b"q"], [b"\x01\x01", b"\x01q"]])
def test_the_keys_leave(typed: list[bytes]) -> None:
    keys = DetachKeys(b"\x01q")
    with pytest.raises(Detached):
        for data in typed:
            keys.feed(data)


def test_one_key_leaves_at_once() -> None:
    with pytest.raises(Detached):
        DetachKeys(b"\x1d").feed(b"abc\x1d")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("10m", NOW - 600),
        ("2h30m", NOW - 9000),
        ("30", NOW - 30),
        ("0s", NOW),
        ("2026-05-01T14:30:00Z", 1_777_645_800.0),
        ("2026-05-01T14:30:00+02:00", 1_777_638_600.0),
    ],
)
def test_since_is_so_long_ago_or_a_time(text: str, at: float) -> None:
    assert parse_since(text, now=NOW) == at


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-5m",
        "10 apples",
        "yesterday",
        "NaN",
        "inf",
        "1e9",
        "2026-13-01",
        "25:00",
        "2999-01-01",
        "10m\n",
        "\0",
    ],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="since") as refused:
        parse_since(text, now=NOW)
    assert refused.value.hint
