"""vectl simulate against the real API, whose store is a model."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from kit.apirig import GIB, ApiRig
from kit.apiserved import Served, identity, make_identities, serving
from kit.fakeapi import FakeApi
from kit.vectlrun import Vectl

MANIFEST = b"kind: VE\nmetadata: {name: new}\nspec: {image: debian, memory: 4G}\n"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_identities(tmp_path_factory.mktemp("identity"))


@pytest.fixture
async def served(ca: Path) -> AsyncIterator[Served]:
    """Two hosts of 16G; `a` (10G) is on h1, `b` (2G) on h2."""
    async with serving(ca) as served:
        rig = served.rig
        await rig.put_host("h2")
        for name, host, gib in (("a", "h1", 10), ("b", "h2", 2)):
            ve = await rig.create(name, memory_bytes=gib * GIB)
            await rig.place(ve.uid, host)
        yield served


@pytest.fixture
def rig(served: Served) -> ApiRig:
    return served.rig


@pytest.fixture
def vectl(served: Served, ca: Path, tmp_path: Path) -> Vectl:
    nothing = cast("Any", None)
    return Vectl(FakeApi(nothing, served.target, ca, nothing, identity(ca / "user")), tmp_path)


async def test_the_loss_of_a_host_is_told_ve_by_ve_and_host_by_host(vectl: Vectl) -> None:
    lines = (await vectl("simulate", "--remove-host", "h1")).out.splitlines()
    assert lines[0].split() == ["VE", "PROJECT", "WHY", "FROM", "TO", "SAYS"]
    assert lines[1].split()[:5] == ["a", "default", "displaced", "h1", "h2"]
    assert lines[2].split() == ["HOST", "RACK", "CHANGE", "VES", "CPU", "MEM", "DISK"]
    assert lines[3].split()[:6] == ["h1", "r1", "removed", "1", ">", "0"]
    assert "2G > 12G of 16G" in lines[4]
    assert lines[-1] == "1 of 1 VEs fit, 0 don't."


async def test_what_would_not_fit_ends_with_5_and_says_what_to_do(vectl: Vectl) -> None:
    ran = await vectl("simulate", "--remove-rack", "r1", code=5)
    assert "there is no host yet" in ran.out
    ran = await vectl(
        "simulate", "--remove-host", "h2", "--apply", "-", code=5,
        text=MANIFEST.replace(b"4G", b"7G"),
    )  # fmt: skip
    assert "1 too little memory (largest free 4G)" in ran.out
    assert "ask for less, or add a host" in ran.out


async def test_added_hosts_take_what_did_not_fit(vectl: Vectl) -> None:
    more = ("--add", "2", "--like", "h1", "--rack", "r3")
    found = (
        await vectl("simulate", "--remove-rack", "r1", *more, "--apply", "-", "-o", "json", text=MANIFEST)
    ).json()  # fmt: skip
    assert {ve["name"]: ve["to_host"] for ve in found["ves"]} == {
        "a": "new-1", "b": "new-2", "new": "new-2",
    }  # fmt: skip
    assert [(host["name"], host["change"]) for host in found["hosts"]] == [
        ("h1", "removed"), ("h2", "removed"), ("new-1", "added"), ("new-2", "added"),
    ]  # fmt: skip


GROUP = b"""
kind: Group
metadata: {name: web}
spec:
  replicas: 3
  template: {labels: {app: web}, spec: {image: debian, apart: ["app=web over host"]}}
"""


async def test_a_group_counts_as_its_ves(vectl: Vectl) -> None:
    ran = await vectl("simulate", "--apply", "-", "-o", "json", code=5, text=GROUP)
    ves = ran.json()["ves"]
    assert [(ve["name"], ve["why"], ve["to_host"]) for ve in ves] == [
        ("web-0", "new", "h2"), ("web-1", "new", "h1"), ("web-2", "new", ""),
    ]  # fmt: skip
    assert ves[2]["message"] == "2 hosts: 2 with app=web in their host"
    text = GROUP.replace(b"  replicas: 3\n", b"")
    assert "replicas: 3" in (await vectl("simulate", "--apply", "-", code=2, text=text)).err


async def test_a_view_is_carried_away_and_asked_when_the_cluster_has_moved_on(
    vectl: Vectl, rig: ApiRig, tmp_path: Path
) -> None:
    path = tmp_path / "view.json"
    saved = await vectl("simulate", "--save-view", str(path))
    assert ": 2 hosts, 2 VEs at revision" in saved.out
    assert path.stat().st_mode & 0o77 == 0
    live = await vectl("simulate", "--remove-host", "h1")
    later = await rig.create("later", memory_bytes=8 * GIB)
    await rig.place(later.uid, "h2")
    await vectl("simulate", "--remove-host", "h1", code=5)
    assert await vectl("simulate", "--view", str(path), "--remove-host", "h1") == live


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "simulate what"),
        (("--add", "2"), 2, "--like"),
        (("--rack", "r1", "--remove-host", "h1"), 2, "--like"),
        (("--save-view", "x", "--remove-host", "h1"), 2, "stands alone"),
        (("--remove-host", "h9"), 3, "no host h9"),
        (("--remove-rack", "r9"), 3, "rack r9"),
        (("--add", "1", "--like", "h9"), 3, "h9"),
        (("--view", "/nonexistent"), 2, "can't read"),
        (("--view", "/dev/null"), 2, "is no view"),
        (("--save-view", "/nonexistent/x"), 2, "can't write"),
    ],
)
async def test_what_can_not_be_simulated_is_refused_with_a_hint(
    vectl: Vectl, arguments: tuple[str, ...], code: int, says: str
) -> None:
    ran = await vectl("simulate", *arguments, code=code)
    assert says in ran.err
    assert "Hint: " in ran.err
