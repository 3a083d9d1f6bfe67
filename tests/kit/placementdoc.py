"""Examples in docs/placement: hosts, manifests, and what comes of them."""

import re
from dataclasses import replace
from pathlib import Path

from kit.placing import host
from veapi.model import VE, Resources, Uid
from vecontroller.api import specs
from vecontroller.placement import HostRow
from vectl import manifest
from vectl.verbs import spec_message
from vectl.wanted import Wanted, WantedGroup

PAGES = sorted(
    page
    for page in (Path(__file__).parents[2] / "docs" / "placement").glob("*.md")
    if page.name not in ("README.md", "quotas.md")
)
ONE = specs.DEFAULTS.request
CAPACITY = {"full": Resources(), "small": ONE, "": sum([ONE] * 16, Resources())}


def block(page: str, kind: str) -> str:
    found: str
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return found


def host_of(line: str) -> HostRow:
    """`NAME k=v... taint:TEXT... full|small`."""
    name, *words = line.split()
    labels = dict(word.split("=", 1) for word in words if "=" in word and word[:6] != "taint:")
    taints = tuple(word.removeprefix("taint:") for word in words if word.startswith("taint:"))
    size = next((word for word in words if word in CAPACITY), "")
    rack = labels.get("rack", "")
    return host(name, rack, labels=labels, taints=taints, capacity=CAPACITY[size])


def ves_of(text: str) -> list[VE]:
    """Those of groups too."""
    return [
        VE(
            uid=Uid(wanted.name),
            name=wanted.name,
            project="default",
            labels=wanted.labels,
            generation=1,
            spec=specs.merged(spec_message(wanted.spec()), specs.DEFAULTS),
            created_at=0.0,
        )
        for _, found in manifest.parse_all(text.encode(), "page")
        for wanted in each_of(found)
    ]


def each_of(found: Wanted | WantedGroup) -> list[Wanted]:
    if isinstance(found, Wanted):
        return [found]
    names = [f"{found.name}-{ordinal}" for ordinal in range(found.replicas or 1)]
    return [replace(found.template, name=name) for name in names]
