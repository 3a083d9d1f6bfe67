import pytest

from veapi import access
from veapi.errors import InvalidInput


@pytest.mark.parametrize(
    "value", ["", "root", "0", "alice", "_apt", "a.b-c", "host$", "1000:1000", "alice:adm", "65535"]
)
def test_users_that_can_be(value: str) -> None:
    assert access.user("user", value) == value


@pytest.mark.parametrize(
    "value",
    [
        *("-u", "a b", "a\n", "a\0", ":", "a:", ":adm", "a:b:c", "a/b", "..", "é", "65536"),
        *("1:65536", "x" * 65, "9" * 30, "root;id", "$(id)"),
    ],
)
def test_users_that_can_not(value: str) -> None:
    with pytest.raises(InvalidInput, match="user: ") as refused:
        access.user("user", value)
    assert refused.value.hint


@pytest.mark.parametrize("value", ["/", "/a/../b", "/-x", "/a\nb", "/é", "/" + "a" * 255])
def test_paths_that_can_be(value: str) -> None:
    assert access.path("path", value) == value


@pytest.mark.parametrize(
    "value",
    [
        *("", "a", "-r", "./a", "../a", "~", "/a\0b", "/" + "a" * 256, "/a" * 2100, "/\udcff"),
    ],
)
def test_paths_that_can_not(value: str) -> None:
    with pytest.raises(InvalidInput, match="path: ") as refused:
        access.path("path", value)
    assert refused.value.hint
