"""The text that Prometheus reads, parsed back."""

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from veapi.series import Family, Kind, Page, labels

PIDS = Family("verack_ve_pids", Kind.GAUGE, "Processes.", ("ve",))
STATE = Family("verack_ve_state", Kind.STATE_SET, "State.", ("ve", "state"))


def parsed(page: Page) -> dict[str, list[tuple[dict[str, str], float]]]:
    return {
        family.name: [(dict(sample.labels), sample.value) for sample in family.samples]
        for family in text_string_to_metric_families(page.encode().decode())
    }


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028\u2029")))
def test_any_label_value_comes_back_as_it_was(value: str) -> None:
    page = Page()
    page.family(PIDS, [(labels(ve=value), 3)])
    assert parsed(page) == {"verack_ve_pids": [({"ve": value}, 3.0)]}


def test_numbers_come_back_exactly() -> None:
    values = [0, -1, 1 << 50, 0.1, 1.5e300, math.inf, -math.inf]
    page = Page()
    page.family(PIDS, [(labels(ve=str(value)), value) for value in values])
    assert [value for _, value in parsed(page)["verack_ve_pids"]] == values


def test_a_state_set_has_one_series_a_state_and_one_that_holds() -> None:
    page = Page()
    page.state_set(STATE, ("Running", "Stopped"), [(labels(ve="a"), "Stopped")])
    assert parsed(page)["verack_ve_state"] == [
        ({"ve": "a", "state": "Running"}, 0.0),
        ({"ve": "a", "state": "Stopped"}, 1.0),
    ]


def test_a_sample_without_labels_has_no_braces() -> None:
    page = Page()
    page.family(Family("verack_x", Kind.GAUGE, "X."), [("", 1)])
    assert page.encode() == b"# HELP verack_x X.\n# TYPE verack_x gauge\nverack_x 1\n"
