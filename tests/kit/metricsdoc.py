"""Writes docs/reference/metrics.md from the families that the programs declare: `python -m kit.metricsdoc`."""

from collections.abc import Iterable
from pathlib import Path

from veagent import metrics as agent
from veapi import rpcmetrics
from veapi.series import Family
from vecontroller import metrics as controller

PATH = Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md"
_HEAD = """\
# Metrics

Controllers and agents serve Prometheus' text format at `/metrics`, and `/healthz`, on the address that their configuration
names (`metrics` of the controller, `[metrics] listen` of the agent). There is neither a certificate nor a password: let
only the monitoring reach it. `deploy/prometheus/` has a configuration with alerts, `deploy/grafana/` a dashboard.

**Agents tell of use**, each of the VEs on its host. **The leading controller tells of the cluster**: what is wanted and seen,
also of VEs that have no host and of hosts that are silent. Both use the labels `ve`, `project` and `host`, so that they join:

    rate(verack_ve_cpu_seconds_total[5m]) * on (ve, project, host) group_left (image) verack_ve_info

Bytes, seconds and cores everywhere; `_total` only grows (usage counters begin again with each start of a VE); a limit of
-1 is none. A *stateset* has one series for each state, 1 for the one that holds; an *info* is always 1 and is there for its
labels. Both come as gauges. Programs also export `process_*` and `python_*` of themselves.

This page is generated (`python -m kit.metricsdoc` in tests/), and a test compares it with the programs.
"""


def page() -> str:
    return "\n".join(
        [
            _HEAD,
            *_section("Agent", agent.FAMILIES),
            *_section("Controller", controller.FAMILIES),
            *_section("gRPC servers (both)", rpcmetrics.FAMILIES),
        ]
    )


def exported() -> dict[str, Family]:
    """Every family by name."""
    families = (*agent.FAMILIES, *controller.FAMILIES, *rpcmetrics.FAMILIES)
    return {family.name: family for family in families}


def _section(title: str, families: Iterable[Family]) -> Iterable[str]:
    yield f"## {title}\n"
    yield "| metric | kind | labels | |"
    yield "|---|---|---|---|"
    for family in families:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        yield f"| `{family.name}` | {family.kind} | {labels} | {family.help} |"
    yield ""


if __name__ == "__main__":
    PATH.write_text(page())
