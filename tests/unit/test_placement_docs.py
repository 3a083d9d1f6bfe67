"""The examples of docs/placement come out as they say: from the manifest to the host."""

import re
from pathlib import Path

import pytest

from kit.placing import host
from veapi import wishes
from veapi.model import VE, Resources, Uid
from vecontroller.api import specs
from vecontroller.placement import HostRow, plan, request
from vecontroller.view import Held, View
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_example_of_a_page_comes_out_as_it_says(page: Path) -> None:
    text = page.read_text()
    hosts = [host_of(line) for line in block(text, "hosts").splitlines()]
    ves = ves_of(block(text, "yaml"))
    wanted = [request(View(), Held(ve, 0, index)) for index, ve in enumerate(ves)]
    made = plan(hosts, wanted)
    lines = [f"{each.uid} {each.host}" for each in made.assignments]
    lines += [f"{each.uid} no host: {each.message}" for each in made.refusals]
    assert lines == block(text, "result").splitlines()


def test_every_wish_has_a_page_that_shows_it() -> None:
    shown = "".join(block(page.read_text(), "yaml") for page in PAGES)
    assert all(f"{kind}: [" in shown for kind in wishes.READERS)
