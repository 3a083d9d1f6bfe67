import pytest

from veapi.errors import InvalidInput
from veapi.selector import selector

WEB = {"tier": "web", "rack": "r1", "empty": "", "n": "4"}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("  ", True),
        ("tier=web", True),
        ("tier==web", True),
        ("tier = web", True),
        ("tier=db", False),
        ("tier!=db", True),
        ("tier!=web", False),
        ("absent!=x", True),
        ("tier", True),
        ("absent", False),
        ("!absent", True),
        ("! tier", False),
        ("tier=web,rack=r1", True),
        ("tier=web, rack=r2", False),
        ("empty=", True),
        ("absent=", False),
        ("example.org/x!=y", True),
        ("tier in (web,db)", True),
        ("tier in (db), rack", False),
        ("tier notin (db)", True),
        ("absent notin (db)", True),
        ("absent in (db)", False),
        ("n>3", True),
        ("n > 4", False),
        ("n<5,n>-1", True),
        ("tier>3", False),
        ("absent<3", False),
    ],
)
def test_a_selector_selects(text: str, *, selected: bool) -> None:
    assert selector(text)(WEB) is selected


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "tier=web,",
        "=web",
        "!",
        "!=x",
        "a b",
        "tier=a b",
        "tier in (a",
        "tier in ()",
        "n>x",
        "a>1>2",
        "é",
        "a=b=c",
        "!a=b",
    ],
)
def test_what_is_no_selector_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^selector") as refused:
        selector(text)
    assert refused.value.hint


def test_a_selector_without_end_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at most 32"):
        selector(",".join(["a"] * 33))
