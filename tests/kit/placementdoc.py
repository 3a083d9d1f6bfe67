"""Examples in docs/placement: hosts, manifests, and what comes of them."""

import re
from pathlib import Path

from kit.placing import host
from veapi.model import VE, Resources, Uid
from vecontroller.api import specs
from vecontroller.placement import HostRow
from vectl import manifest
from vectl.verbs import spec_message

PAGES = sorted(
    page
    for page in (Path(__file__).parents[2] / "docs" / "placement").glob("*.md")
    if page.name != "README.md"
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
        for _, wanted in manifest.parse(text.encode(), "page")
    ]
