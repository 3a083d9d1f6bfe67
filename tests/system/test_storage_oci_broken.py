"""Transfers of OCI images that break, wherever they do: what was there before is all that is left."""

import os

import pytest

from kit.oci import Layout
from kit.storage import BASE, Member, dies, make_storage, pack, storage_folder, stream, tar_of
from veapi.errors import InvalidInput, NotFound

ROOT = tar_of(BASE)
DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from kit.storage import make_storage, stream
from veagent.storage import btrfs, layers, oci, rootfs, unpack

def die(*_args, **_options):
    os.kill(os.getpid(), signal.SIGKILL)

places = {"run_tar": unpack, "read_layout": oci, "apply": layers, "check": rootfs}
setattr(places.get(sys.argv[3], btrfs), sys.argv[3], die)

async def main():
    storage = make_storage(Path(sys.argv[1]))
    await storage.images.setup()
    await storage.images.add(stream(Path(sys.argv[2]).read_bytes()))

asyncio.run(main())
"""


@pytest.fixture
def place(tmp_path):
    with storage_folder(tmp_path / "vstor") as made:
        yield made


def assert_nothing_is_left(storage):
    assert list(storage.pool.tmp.iterdir()) == []
    assert list(storage.pool.images.iterdir()) == []
    assert storage.images.held() == ()


@pytest.mark.parametrize("step", ["run_tar", "read_layout", "apply", "check", "delete_subvolume"])
async def test_taking_in_a_layout_converges_after_a_kill(place, tmp_path, step):
    layout = Layout()
    digest = layout.add_image([ROOT, tar_of((Member("more", b"m"),))])
    (tmp_path / "blob").write_bytes(layout.tar())
    dies(DIE, place, tmp_path / "blob", step)
    storage = make_storage(place)
    await storage.images.setup()
    assert_nothing_is_left(storage)
    assert (await storage.images.add(stream(layout.tar()))).digest == digest


@pytest.mark.parametrize("packed", [["cat"], ["gzip", "-c"], ["zstd", "-c", "-q"]])
async def test_a_transfer_that_is_cut_anywhere_leaves_nothing(place, packed):
    """Whether the sender says so (an error), or what came just ends too early."""
    storage = make_storage(place)
    await storage.images.setup()
    layout = Layout()
    layout.add_image([ROOT, tar_of((Member("more", os.urandom(20_000)),))])
    blob = pack(layout.tar(), *packed)

    async def broken(end):
        yield blob[:end]
        raise NotFound("the sender has gone", hint="")

    for part in range(8):
        end = len(blob.rstrip(b"\0")) * part // 8  # what follows is no content
        with pytest.raises(NotFound):
            await storage.images.add(broken(end))
        with pytest.raises(InvalidInput):
            await storage.images.add(stream(blob[:end]))
        assert_nothing_is_left(storage)
