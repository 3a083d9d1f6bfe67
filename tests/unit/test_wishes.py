"""What a VE may wish, as people write it."""

import pytest

from veapi import wishes
from veapi.errors import InvalidInput


@pytest.mark.parametrize(
    ("kind", "text", "canonical"),
    [
        ("require", "disk in (ssd, nvme) , gen > 3,!old", "disk in (nvme,ssd),gen>3,!old"),
        ("require", "gen<-1", "gen<-1"),
        ("prefer", "zone=a", "zone=a weight 10"),
        ("prefer", "zone notin (b)  weight 100", "zone notin (b) weight 100"),
        ("tolerate", "gpu", "gpu"),
        ("tolerate", "example.org/gpu=a100", "example.org/gpu=a100"),
        ("near", "app=db", "app=db over host"),
        ("near", "app=db,tier over rack prefer 50", "app=db,tier over rack prefer 50"),
        ("apart", "app=web over rack max 1", "app=web over rack"),
        ("apart", "app in (a, b) over zone max 2 prefer", "app in (a,b) over zone max 2 prefer 10"),
        ("spread", "app=web over rack skew 3", "app=web over rack skew 3"),
    ],
)
def test_a_wish_has_one_canonical_text(kind: str, text: str, canonical: str) -> None:
    assert wishes.read(kind, [text, f" {text} "]) == (canonical,)
    assert wishes.read(kind, [canonical]) == (canonical,)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("require", ""),
        ("require", "a b"),
        ("require", "gen>x"),
        ("require", "a in ()"),
        ("require", "a in (b"),
        ("require", "x" * 600),
        ("prefer", "zone=a weight 0"),
        ("prefer", "zone=a weight 101"),
        ("prefer", "weight 3"),
        ("tolerate", ""),
        ("tolerate", "gpu="),
        ("tolerate", "=x"),
        ("near", "app=db max 2"),
        ("near", "over rack"),
        ("near", "app=db over"),
        ("apart", "app=db over a b"),
        ("apart", "app=db over rack max 0"),
        ("apart", "app=db over rack skew 1"),
        ("spread", "app=db over rack skew 99999"),
        ("spread", "app=db over rack prefer 0"),
    ],
)
def test_what_can_not_be_read_is_refused_with_its_field(kind: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^spec\.{kind}: ") as refused:
        wishes.read(kind, [text])
    assert refused.value.hint


def test_there_is_an_end_to_wishing() -> None:
    with pytest.raises(InvalidInput, match="17; at most 16"):
        wishes.read("tolerate", [f"k{number}" for number in range(17)])


@pytest.mark.parametrize(
    ("taint", "tolerations", "tolerated"),
    [
        ("gpu=a", (), False),
        ("gpu=a", ("gpu",), True),
        ("gpu=a", ("gpu=a",), True),
        ("gpu=a", ("gpu=b",), False),
        ("gpu:prefer", ("gpu",), True),
        ("gpu", ("gpu=a",), False),
    ],
)
def test_a_taint_is_tolerated_by_key_or_by_key_and_value(
    taint: str, tolerations: tuple[str, ...], *, tolerated: bool
) -> None:
    assert wishes.taint("taint", taint) == taint
    assert wishes.taint_of(taint).tolerated(tolerations) is tolerated


@pytest.mark.parametrize("text", ["", "=", "gpu=", ":prefer", "gpu:never", "a b"])
def test_what_is_no_taint_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^taint: "):
        wishes.taint("taint", text)
