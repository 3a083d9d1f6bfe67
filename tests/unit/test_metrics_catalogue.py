"""Names and labels are kept once: documentation, dashboard and alerts use what the programs export."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.metricsdoc import PATH, exported, page
from veapi.series import Family, Kind

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "verack-overview.json"
RULES = DEPLOY / "prometheus" / "verack.rules.yml"
FAMILIES = exported()
_METRIC = re.compile(r"\b(verack_\w+)(?:\{([^}]*)\})?")
_PARTS = ("_bucket", "_sum", "_count")
ADDED_BY_SCRAPE = {"cluster", "instance", "job", "le"}


def family_of(name: str) -> Family | None:
    found = FAMILIES.get(name)
    for part in _PARTS:
        base = FAMILIES.get(name.removesuffix(part))
        if found is None and base is not None and base.kind is Kind.HISTOGRAM:
            return base
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Where, and what is asked."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", ()))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


def test_the_documentation_is_what_is_exported() -> None:
    assert PATH.read_text() == page(), "run: cd tests && python -m kit.metricsdoc"


def test_names_follow_the_conventions() -> None:
    for family in FAMILIES.values():
        assert family.name.startswith("verack_")
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER), family.name
        assert family.name.endswith("_info") == (family.kind is Kind.INFO), family.name
        assert (family.labels[-1:] == ("state",)) == (family.kind is Kind.STATE_SET), family.name
        assert family.help.endswith("."), family.name


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_dashboard_and_alerts_ask_for_what_is_exported(where: str, expression: str) -> None:
    asked = _METRIC.findall(expression)
    for name, selectors in asked:
        family = family_of(name)
        assert family is not None, f"{where}: nobody exports {name}"
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors))
        assert labels <= {*family.labels, *ADDED_BY_SCRAPE}, f"{where}: {name} has no such label"
    known = set.union(ADDED_BY_SCRAPE, *(set(f.labels) for n, _ in asked if (f := family_of(n))))
    for names in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {name.strip() for name in names.split(",")} <= known, where


def test_the_dashboard_works_with_any_data_source_and_has_no_overlaps() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels: list[dict[str, Any]] = dashboard["panels"]
    assert dashboard["uid"] == "verack-overview"
    assert len({panel["id"] for panel in panels}) == len(panels)
    sources = {panel["datasource"]["uid"] for panel in panels if "datasource" in panel}
    assert sources == {"${datasource}"}
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_every_alert_says_what_to_do() -> None:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"critical", "warning"}
            assert set(rule["annotations"]) == {"summary", "description"}
