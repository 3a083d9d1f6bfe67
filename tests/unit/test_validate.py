import math

import msgspec
import pytest

from veapi import validate
from veapi.errors import InvalidInput
from veapi.model import Spec

GOOD = Spec(image="debian", cpu_millis=1000, memory_bytes=1 << 30, disk_bytes=1 << 32, pids=64)
NOT_NAMES = [
    "",
    " ",
    "-a",
    "a-",
    "A",
    "a_b",
    "a.b",
    "a/b",
    "../x",
    "a b",
    "a\n",
    "\na",
    "a\x00",
    "é",
    "\N{CYRILLIC SMALL LETTER A}",
    "\N{FULLWIDTH DIGIT ONE}",
    "\N{ARABIC-INDIC DIGIT THREE}",
    "a" * 64,
]


@pytest.mark.parametrize("value", ["a", "0", "web-1", "a" * 63, "a--b"])
def test_rfc_1123_labels_are_names(value: str) -> None:
    assert validate.name("name", value) == value


@pytest.mark.parametrize("value", NOT_NAMES)
def test_anything_else_is_no_name(value: str) -> None:
    with pytest.raises(InvalidInput, match=r"^name: ") as refused:
        validate.name("name", value)
    assert refused.value.hint


@pytest.mark.parametrize("value", ["tier", "Tier_1.x", "example.org/tier", "a" * 63])
def test_label_keys(value: str) -> None:
    assert validate.label_key("labels", value) == value


@pytest.mark.parametrize(
    "value",
    ["", "/", "a/", "/a", "A_/x", "-a", "a-", "a b", "a" * 64, "x" * 254 + "/a", "é", "a\n"],
)
def test_bad_label_keys_are_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match=r"^labels: ") as refused:
        validate.label_key("labels", value)
    assert refused.value.hint


@pytest.mark.parametrize("value", ["-a", "a b", "a" * 64, "a=b", "é", "a\n", "a,b"])
def test_bad_label_values_are_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match=r"^labels\.k: "):
        validate.labels("labels", {"k": value})


def test_an_empty_label_value_is_fine() -> None:
    assert validate.labels("labels", {"k": ""}) == {"k": ""}


def test_too_many_labels_are_refused() -> None:
    with pytest.raises(InvalidInput, match="65 labels; at most 64"):
        validate.labels("labels", {f"k{n}": "" for n in range(65)})


@pytest.mark.parametrize("value", ["debian", "debian:12", "web_1.2-x:v1.0", "a" * 128])
def test_image_names(value: str) -> None:
    assert validate.image_ref("image", value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Debian",
        "a/b",
        "a:",
        ":a",
        "a::b",
        "a:b:c",
        "../a",
        "a" * 129,
        "a b",
        "a\n",
        "sha256:ab",
    ],
)
def test_bad_image_names_are_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match=r"^image: ") as refused:
        validate.image_ref("image", value)
    assert refused.value.hint


def test_a_digest_is_an_image_but_never_the_name_of_one() -> None:
    value = "sha256:" + "0" * 64
    assert validate.image_ref("image", value) == value
    with pytest.raises(InvalidInput):
        validate.image_name("image", value)


@pytest.mark.parametrize(
    ("cores", "millis"), [(0.01, 10), (0.5, 500), (2, 2000), (1024, 1_024_000)]
)
def test_cores_become_millis(cores: float, millis: int) -> None:
    assert validate.cpu_millis("spec.cpu", cores) == millis


@pytest.mark.parametrize(
    "cores", [0, -1, 0.009, 1024.1, 1e300, math.nan, math.inf, -math.inf, float(2**63)]
)
def test_cores_out_of_range_are_refused(cores: float) -> None:
    with pytest.raises(InvalidInput, match=r"^spec\.cpu: ") as refused:
        validate.cpu_millis("spec.cpu", cores)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", ""),
        ("cpu", 0),
        ("cpu", 2**62),
        ("memory_bytes", 0),
        ("memory_bytes", -1),
        ("memory_bytes", (8 << 20) - 1),
        ("memory_bytes", 2**63 - 1),
        ("disk_bytes", 0),
        ("disk_bytes", -1),
        ("disk_bytes", 2**63 - 1),
        ("pids", 0),
        ("pids", 7),
        ("pids", -(2**63)),
        ("pids", 4_194_305),
        ("ip", "10.66.0"),
        ("ip", "10.66.0.07"),
        ("ip", "::1"),
        ("ip", "10.66.0.1/24"),
        ("ip", "\N{ARABIC-INDIC DIGIT ONE}0.66.0.1"),
        ("host", "H1"),
    ],
)
def test_a_spec_out_of_limits_is_refused_by_field(field: str, value: object) -> None:
    attribute = "cpu_millis" if field == "cpu" else field
    with pytest.raises(InvalidInput, match=rf"^spec\.{field}: ") as refused:
        validate.spec(msgspec.structs.replace(GOOD, **{attribute: value}))
    assert refused.value.hint


def test_a_spec_within_limits_is_accepted() -> None:
    assert validate.spec(GOOD) == GOOD


@pytest.mark.parametrize("value", ["", "on", "RUNNING", "Running "])
def test_an_unknown_word_names_the_known_ones(value: str) -> None:
    with pytest.raises(InvalidInput, match=r"^spec\.run: ") as refused:
        validate.run("spec.run", value)
    assert "running, stopped" in refused.value.hint


@pytest.mark.parametrize("value", [-1, 3601, math.nan, math.inf])
def test_stop_timeouts_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(InvalidInput, match=r"^stop_timeout_s: "):
        validate.stop_timeout_s("stop_timeout_s", value)


@pytest.mark.parametrize("words", [[], [""], ["a\0"], ["x" * (128 << 10)], ["x"] * 5000, ["", "a"]])
def test_commands_that_can_not_run_are_refused(words: list[str]) -> None:
    with pytest.raises(InvalidInput, match=r"^command: "):
        validate.command("command", words)


def test_an_empty_argument_is_fine() -> None:
    assert validate.command("command", ["echo", ""]) == ("echo", "")


@pytest.mark.parametrize("values", [{"": "x"}, {"A=B": "x"}, {"A": "\0"}, {"1A": "x"}])
def test_bad_environments_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=r"^env: "):
        validate.environment("env", values)
