"""The examples of docs/placement come out as they say: from the manifest to the host."""

from pathlib import Path

import pytest

from kit.placementdoc import PAGES, block, host_of, ves_of
from veapi import wishes
from vecontroller.placement import plan, request
from vecontroller.view import Held, View


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
