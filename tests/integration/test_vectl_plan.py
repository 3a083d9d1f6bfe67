"""vectl plan and apply --plan against the real API, whose store is a model."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from kit.apirig import GIB, ApiRig
from kit.apiserved import Served, identity, make_identities, serving
from kit.fakeapi import FakeApi
from kit.vectlrun import Vectl

MANIFEST = b"""
kind: VE
metadata: {name: new}
spec: {image: debian, memory: 4G}
---
kind: VE
metadata: {name: web}
spec: {image: debian, memory: 2G}
"""


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_identities(tmp_path_factory.mktemp("identity"))


@pytest.fixture
async def served(ca: Path) -> AsyncIterator[Served]:
    """A host of 16G, where `web` (1G) is."""
    async with serving(ca) as served:
        ve = await served.rig.create("web", memory_bytes=GIB)
        await served.rig.place(ve.uid, "h1")
        yield served


@pytest.fixture
def rig(served: Served) -> ApiRig:
    return served.rig


@pytest.fixture
def vectl(served: Served, ca: Path, tmp_path: Path) -> Vectl:
    nothing = cast("Any", None)
    return Vectl(FakeApi(nothing, served.target, ca, nothing, identity(ca / "user")), tmp_path)


async def test_a_plan_has_a_line_for_each_ve_and_the_sums(vectl: Vectl, rig: ApiRig) -> None:
    before = rig.mirror.view.revision
    lines = (await vectl("plan", "-f", "-", text=MANIFEST)).out.splitlines()
    assert lines[0].split() == ["VE", "PROJECT", "ACTION", "HOST", "SAYS"]
    assert lines[1].split()[:4] == ["new", "default", "create", "h1"]
    assert lines[1].endswith("the only host")
    assert lines[2].split()[:4] == ["web", "default", "change", "h1"]
    assert lines[2].endswith("memory_bytes: 1073741824 > 2147483648")
    assert lines[3:] == ["1 to create, 1 to change."]
    assert rig.mirror.view.revision == before


async def test_a_plan_in_a_file_is_applied_once_and_then_the_cluster_has_moved_on(
    vectl: Vectl, rig: ApiRig, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    await vectl("plan", "-f", "-", "--out", str(path), text=MANIFEST)
    ran = await vectl("apply", "--plan", str(path), "--detach")
    assert ran.out == "ve/new will be created\nve/web will be changed\n"
    view = rig.mirror.view
    new = view.ves[view.names["default", "new"].value].value
    assert (new.planned_host, new.spec.host) == ("h1", "")
    web = view.ves[view.names["default", "web"].value].value
    assert web.spec.memory_bytes == 2 * GIB
    again = await vectl("apply", "--plan", str(path), code=4)
    assert again.err.splitlines() == [
        "Error: the cluster has moved on since the plan was made: new is there by now; web was changed",
        "Hint: make a new plan: `vectl plan -f FILE --out FILE`; nothing was done",
    ]


async def test_what_fits_nowhere_ends_with_5_and_can_not_be_applied(
    vectl: Vectl, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    text = MANIFEST.replace(b"4G", b"15G")
    ran = await vectl("plan", "-f", "-", "--out", str(path), code=5, text=text)
    assert "no host fits: 1 host: 1 too little memory" in ran.out
    assert ran.out.endswith("1 to create, 1 to change; 1 of them fit nowhere.\n")
    refused = await vectl("apply", "--plan", str(path), code=2)
    assert "new is refused in it, or fits nowhere" in refused.err


async def test_one_refusal_ends_with_its_code(vectl: Vectl) -> None:
    text = MANIFEST.replace(b"name: web}\nspec: {image: debian", b"name: web}\nspec: {image: nix")
    ran = await vectl("plan", "-f", "-", code=3, text=text)
    assert "1 to create, 1 refused." in ran.out
    assert "no image nix" in ran.out


async def test_what_failed_half_way_is_told_once(vectl: Vectl, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    text = b"".join(
        b"---\nkind: VE\nmetadata: {name: %b}\nspec: {image: debian, ip: 10.66.0.99}\n" % name
        for name in (b"a", b"b", b"c")
    )
    await vectl("plan", "-f", "-", "--out", str(path), text=text)
    ran = await vectl("apply", "--plan", str(path), "--detach", code=4)
    assert ran.out == "ve/a will be created\n"
    assert ran.err.count("Error:") == 1
    assert "2 VEs of the plan, from this one on, were left as they were" in ran.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("apply",), "-f FILE or --plan"),
        (("apply", "-f", "x", "--plan", "y"), "-f FILE or --plan"),
        (("apply", "--plan", "/nonexistent"), "can't read"),
        (("apply", "--plan", "/dev/null"), "is no plan"),
    ],
)
async def test_what_is_no_plan_is_refused(
    vectl: Vectl, arguments: tuple[str, ...], says: str
) -> None:
    assert says in (await vectl(*arguments, code=2)).err
