"""What extended headers of a tar may say: nothing that reaches the host, and no attribute that means something to it."""

import io
import os
import tarfile

import pytest

from kit.storage import BASE, everything_below, make_storage, storage_folder, stream, tar_of
from veapi.errors import InvalidInput


@pytest.fixture
async def storage(tmp_path):
    with storage_folder(tmp_path / "vstor") as place:
        made = make_storage(place)
        await made.images.setup()
        yield made


def with_headers(**headers):
    """A root with a file `plain` whose extended header has these records."""
    out = io.BytesIO()
    info = tarfile.TarInfo("plain")
    info.size, info.pax_headers = 1, headers
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"x"))
    base = tar_of(BASE)
    return base[: _end_of(base)] + out.getvalue()


def _end_of(tar):
    """Where the last member ends."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as found:
        last = found.getmembers()[-1]
    return last.offset_data + -(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


async def test_attributes_that_the_host_would_heed_are_left_out(storage):
    names = ("trusted.overlay.opaque", "trusted.x", "security.selinux", "security.ima", "user.kept")
    blob = with_headers(**{f"SCHILY.xattr.{name}": "y" for name in names})
    image = await storage.images.add(stream(blob))
    root = storage.pool.images / image.digest.removeprefix("sha256:") / "root"
    assert os.listxattr(root / "plain") == ["user.kept"]


@pytest.mark.parametrize("where", ["{}/owned", "../../../../../../../../../..{}/owned"])
@pytest.mark.parametrize("header", ["path", "GNU.sparse.name"])
async def test_a_path_in_an_extended_header_lands_inside_or_is_refused(
    storage, tmp_path, where, header
):
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    try:
        await storage.images.add(stream(with_headers(**{header: where.format(outside)})))
    except InvalidInput as refused:
        assert refused.hint
    assert everything_below(outside) == set()


@pytest.mark.parametrize(
    "headers",
    [
        {"uid": str(2**31)},
        {"uid": "-1"},
        {"size": str(2**62)},
        {"mtime": "1e400"},
        {"path": ""},
        {"linkpath": "x" * 5000},
    ],
    ids=str,
)
async def test_odd_numbers_and_names_do_no_harm(storage, headers):
    try:
        image = await storage.images.add(stream(with_headers(**headers)))
        await storage.images.delete(image.digest)
    except InvalidInput as refused:
        assert refused.message.isprintable()
    assert list(storage.pool.tmp.iterdir()) == []
