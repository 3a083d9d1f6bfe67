import pytest
from hypothesis import given
from hypothesis import strategies as st

from veapi import units
from veapi.errors import InvalidInput

NOT_NUMBERS = [
    "",
    " ",
    "-1",
    "+1",
    "nan",
    "inf",
    "-inf",
    "10 apples",
    "1e3",
    "0x10",
    "1,5",
    "1_000",
    "\N{ARABIC-INDIC DIGIT THREE}",
    "\N{FULLWIDTH DIGIT ONE}",
    "½",
    "1\n",
    "1\x00",
    "G",
    ".",
    "1.",
    ".5",
    float("nan"),
    float("inf"),
    float("-inf"),
    -1,
    -0.5,
    True,
    "9" * 400,
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        (0, 0),
        (1024, 1024),
        (2.0, 2),
        ("1K", 1024),
        ("1k", 1024),
        ("1Ki", 1024),
        ("1KiB", 1024),
        ("1KB", 1024),
        ("7B", 7),
        ("512M", 512 << 20),
        ("1.5G", 3 << 29),
        ("1.5GiB", 3 << 29),
        ("1 GiB", 1 << 30),
        (" 1G ", 1 << 30),
        ("2T", 2 << 40),
        ("1P", 1 << 50),
        (2**63 - 1, 2**63 - 1),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_sizes_are_read_in_binary_units(text: str | float, expected: int) -> None:
    assert units.parse_size(text) == expected


@pytest.mark.parametrize(
    "text", [*NOT_NUMBERS, 2**63, "8192P", "1.5", 1.5, "1i", "1iB", "1KK", "1  G", "1m5"]
)
def test_what_is_no_size_is_refused_by_field_with_a_hint(text: str | float) -> None:
    with pytest.raises(InvalidInput, match=r"^memory: ") as refused:
        units.parse_size(text, field="memory")
    assert refused.value.hint


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1K"),
        (512 << 20, "512M"),
        (3 << 29, "1.5G"),
        (-(1 << 30), "-1G"),
        (2**63 - 1, "8192P"),
    ],
)
def test_sizes_are_shown_in_the_largest_unit(size: int, expected: str) -> None:
    assert units.format_size(size) == expected


@given(st.integers(1, 1023), st.sampled_from("KMGTP"))
def test_whole_units_survive_formatting(count: int, unit: str) -> None:
    assert units.format_size(units.parse_size(f"{count}{unit}")) == f"{count}{unit}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2", 2000), (2, 2000), ("0.5", 500), (0.25, 250), ("500m", 500), ("0", 0), ("1.001", 1001)],
)
def test_cpu_is_read_as_thousandths_of_a_core(text: str | float, expected: int) -> None:
    assert units.parse_cpu(text) == expected


@pytest.mark.parametrize("text", [*NOT_NUMBERS, "1.0005", "0.5m", "2 cores", "1M"])
def test_what_is_no_cpu_is_refused_by_field_with_a_hint(text: str | float) -> None:
    with pytest.raises(InvalidInput, match=r"^spec\.cpu: ") as refused:
        units.parse_cpu(text, field="spec.cpu")
    assert refused.value.hint


@pytest.mark.parametrize(
    ("millis", "expected"), [(2000, "2"), (500, "0.5"), (125, "0.125"), (0, "0"), (10_000, "10")]
)
def test_cpu_is_shown_in_cores(millis: int, expected: str) -> None:
    assert units.format_cpu(millis) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", 30.0),
        (30, 30.0),
        ("0", 0.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("1.5h", 5400.0),
        ("2d", 172_800.0),
    ],
)
def test_durations_are_read_in_seconds(text: str | float, expected: float) -> None:
    assert units.parse_duration(text) == expected


@pytest.mark.parametrize("text", [*NOT_NUMBERS, "5 m", "1y", "1h-3m", "99999d"])
def test_what_is_no_duration_is_refused_by_field_with_a_hint(text: str | float) -> None:
    with pytest.raises(InvalidInput, match=r"^timeout: ") as refused:
        units.parse_duration(text, field="timeout")
    assert refused.value.hint
