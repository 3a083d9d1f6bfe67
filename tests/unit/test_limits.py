"""What may be asked for beside placed resources: edges of every value, rates and schedules as people write them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veapi import limits, schedule, units, validate
from veapi.errors import InvalidInput
from veapi.model import Spec

SPEC = Spec(image="debian", cpu_millis=1000, memory_bytes=1 << 30, disk_bytes=1 << 30, pids=100)
HUGE = 2**63 - 1


def checked(**fields) -> Spec:
    return validate.spec(msgspec.structs.replace(SPEC, **fields))


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("cpu_weight", (0, 1, 10_000), (-1, 10_001, HUGE)),
        ("io_weight", (0, 1, 1000), (-1, 1001, HUGE)),
        ("swap_bytes", (0, 1, 64 << 40), (-1, (64 << 40) + 1, HUGE)),
        ("io_read_bps", (0, 64 << 10, 1 << 40), (-1, 1, (64 << 10) - 1, HUGE)),
        ("io_write_bps", (0, 64 << 10, 1 << 40), (-1, 1, (64 << 10) - 1, HUGE)),
        ("net_in_bps", (0, 64_000, 34 * 10**9), (-1, 1, 63_999, 34 * 10**9 + 1, HUGE)),
        ("net_out_bps", (0, 64_000, 34 * 10**9), (-1, 1, 63_999, 34 * 10**9 + 1, HUGE)),
        ("cpu_millis", (10, 1_024_000), (0, -1, HUGE)),
        ("memory_bytes", (8 << 20,), (0, -1, HUGE)),
        ("disk_bytes", (16 << 20,), (0, -1, HUGE)),
        ("pids", (8,), (0, -1, HUGE)),
    ],
)
def test_every_number_has_its_edges_and_says_which(field, good, bad):
    for number in good:
        assert getattr(checked(**{field: number}), field) == number
    for number in bad:
        with pytest.raises(InvalidInput, match=field.removesuffix("_millis")) as refused:
            checked(**{field: number})
        assert refused.value.hint


@pytest.mark.parametrize(
    "env",
    [
        {"A-B": "x"},
        {"": "x"},
        {"1A": "x"},
        {"A" * 256: "x"},
        {"A": "x\nlxc.hook.start = /bin/evil"},
        {"A": "x\0"},
        {"A": "\x1b[31m"},
        {"A": "x" * 5000},
        {f"A{number}": "" for number in range(65)},
    ],
)
def test_variables_that_could_say_more_than_a_variable_are_refused(env):
    with pytest.raises(InvalidInput, match=r"spec\.env"):
        checked(env=env)


@pytest.mark.parametrize(
    "command", [("",), ("", "x"), ("sh", "a\nb"), ("sh", "\0"), ("x",) * 65, ("x" * 5000,)]
)
def test_commands_that_are_none_are_refused(command):
    with pytest.raises(InvalidInput, match=r"spec\.command"):
        checked(command=command)


def test_usual_variables_and_commands_pass():
    env = {"PATH": "/bin:/usr/bin", "_x": "ünïcode = fine"}
    assert checked(env=env, command=("sh", "-c", "exit 1")).env == env
    assert checked(command=()).command == ()


@pytest.mark.parametrize(
    ("text", "bps"),
    [
        ("0", 0),
        ("none", 0),
        ("Unlimited", 0),
        ("65536", 65_536),
        ("10M", 10 << 20),
        ("1.5G", 3 << 29),
        ("512K/s", 512 << 10),
        ("10MiB/s", 10 << 20),
        ("10MBps", 10 << 20),
    ],
)
def test_rates_of_disks_are_bytes(text, bps):
    assert units.parse_byte_rate(text) == bps


@pytest.mark.parametrize(
    ("text", "bps"),
    [
        ("0", 0),
        ("none", 0),
        ("64000", 64_000),
        ("100M", 100_000_000),
        ("1.5G", 1_500_000_000),
        ("1Gbit", 10**9),
        ("10 mbit/s", 10**7),
        ("100Mbps", 10**8),
    ],
)
def test_rates_of_networks_are_bits_and_decimal(text, bps):
    assert units.parse_bit_rate(text) == bps


@pytest.mark.parametrize("read", [units.parse_byte_rate, units.parse_bit_rate])
@pytest.mark.parametrize(
    "text",
    ["", "-1", "nan", "inf", "10 apples", "1e3", "M", "1.5", "10M/m", "9223372036854775808", "٣M"],
)
def test_what_is_no_rate_is_refused_with_its_field(read, text):
    with pytest.raises(InvalidInput, match="net_in") as refused:
        read(text, field="net_in")
    assert refused.value.hint


@given(st.integers(0, 10**12))
def test_a_shown_rate_is_read_as_nearly_what_it_was(bps):
    again = units.parse_bit_rate(units.format_bits(bps))
    assert abs(again - bps) <= bps / 20


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("   ", ""),
        ("daily keep 7", "daily keep 7"),
        (" Every 06H  keep 4 ,WEEKLY keep 1", "every 6h keep 4, weekly keep 1"),
        ("every 1m keep 1", "every 1m keep 1"),
        ("every 366d keep 64", "every 366d keep 64"),
        ("hourly keep 24, every 30 m keep 2", "hourly keep 24, every 30m keep 2"),
    ],
)
def test_schedules_are_read_as_people_write_them(text, shown):
    rules = schedule.parse(text)
    assert schedule.canonical(rules) == shown
    assert schedule.parse(shown) == rules


def test_a_rule_says_how_often_and_how_many():
    rules = schedule.parse("every 6h keep 4, weekly keep 2")
    assert [(rule.name, rule.every_s, rule.keep) for rule in rules] == [
        ("every 6h", 21_600, 4),
        ("weekly", 604_800, 2),
    ]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("daily", "'daily' is not a rule"),
        ("daily keep", "not a rule"),
        ("daily keep 0", "keep 0"),
        ("daily keep 65", "keep 65"),
        ("daily keep -1", "not a rule"),
        ("daily keep 1.5", "not a rule"),
        ("daily keep 9223372036854775807", "not a rule"),
        ("every 0h keep 1", "every 0h"),
        ("every 367d keep 1", "every 367d"),
        ("every 30s keep 1", "not a rule"),
        ("every six hours keep 1", "not a rule"),
        ("yearly keep 1", "not a rule"),
        ("daily keep 7,", "'' is not a rule"),
        ("daily keep 7; weekly keep 1", "not a rule"),
        ("daily keep 7, daily keep 3", "there twice"),
        ("hourly keep 64, daily keep 64", "128 snapshots"),
        (", ".join(f"every {n}h keep 1" for n in range(1, 10)), "9 rules"),
        ("x" * 500, "500 characters"),
        ("daily keep ٣", "not a rule"),
        ("daily keep 7\0", "not a rule"),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_is_wrong(text, word):
    with pytest.raises(InvalidInput, match="snapshots: ") as refused:
        schedule.parse(text)
    assert word in refused.value.message
    assert refused.value.hint
    with pytest.raises(InvalidInput, match=r"spec\.snapshot_schedule"):
        checked(snapshot_schedule=text)


def test_limits_are_checked_as_part_of_a_spec():
    limits.check(SPEC)
