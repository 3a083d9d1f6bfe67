"""vectl's images: what is uploaded, and what is refused."""

import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit import fakeapi
from kit.fakeapi import FakeApi
from kit.vectlrun import Vectl


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[FakeApi]:
    async with fakeapi.serve(tmp_path) as served:
        yield served


@pytest.fixture
def vectl(api: FakeApi, tmp_path: Path) -> Vectl:
    return Vectl(api, tmp_path)


async def test_a_file_is_uploaded_as_it_is(vectl: Vectl, api: FakeApi, tmp_path: Path) -> None:
    content = b"x" * (5 << 19)
    (tmp_path / "image.tar").write_bytes(content)
    ran = await vectl("image", "import", "new", str(tmp_path / "image.tar"))
    assert ran.out.startswith("image/new imported: sha256:abab")
    assert ran.err.splitlines() == ["uploading", "replicating"]
    assert api.cluster.uploads["new"] == content


async def test_a_folder_is_packed_the_same_way_each_time(
    vectl: Vectl, api: FakeApi, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for name in ("b", "a", "c" * 120):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text(name)
    await vectl("image", "import", "first", str(root))
    (root / "a" / "file").read_text()
    await vectl("image", "import", "second", str(root))
    assert api.cluster.uploads["first"] == api.cluster.uploads["second"]
    (tmp_path / "made.tar").write_bytes(api.cluster.uploads["first"])
    with tarfile.open(tmp_path / "made.tar") as made:
        assert made.getnames()[:4] == [".", "./a", "./a/file", "./b"]


async def test_a_pack_that_breaks_off_makes_no_image(
    vectl: Vectl, api: FakeApi, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "tar").write_text("#!/bin/sh\necho half\necho 'tar: read error' >&2\nexit 2\n")
    (tools / "tar").chmod(0o755)
    vectl.env["PATH"] = f"{tools}:{vectl.env['PATH']}"
    ran = await vectl("image", "import", "half", str(tools), code=8)
    assert "tar could not read all" in ran.err
    assert "half" not in api.cluster.images


async def test_what_is_no_image_is_refused(vectl: Vectl, tmp_path: Path) -> None:
    for name, content in (("text", b"hello" * 1000), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        ran = await vectl("image", "import", name, str(tmp_path / name), code=2)
        assert "Hint: " in ran.err
