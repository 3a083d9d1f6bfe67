"""Images from a registry: whole by their digest, or not there, however the pull ends."""

import asyncio
import json
import os
import tempfile
from pathlib import Path

import pytest

from kit.eventually import eventually
from kit.oci import MANIFEST, Layout, digest_of, registry
from kit.ociimages import ROOT, RUN, assert_nothing_is_left, root_of, running_as, tree
from kit.spoiltlayouts import broken, damaged
from kit.storage import BASE, ID_BASE, MIB, Member, make_storage, storage_folder, stream, tar_of
from veagent.ports import RegistrySource
from veagent.storage.images import ImageLimits
from veapi.errors import InvalidInput, NotFound, TimedOut, Unavailable, VerackError


@pytest.fixture
def place(tmp_path):
    with storage_folder(tmp_path / "vstor") as made:
        yield made


@pytest.fixture
async def storage(place):
    made = make_storage(place)
    await made.images.setup()
    return made


@pytest.fixture
async def small(place):
    limits = ImageLimits(blob_bytes=4 * MIB, unpacked_bytes=16 * MIB, unpack_s=60, stall_s=0.5)
    made = make_storage(place, limits)
    await made.images.setup()
    return made


class Progress:
    def __init__(self):
        self.told = []

    async def __call__(self, size_bytes):
        self.told.append(size_bytes)


def source(server, name="team/app:1", *, insecure=True):
    return RegistrySource(f"docker://{server.address}/{name}", insecure=insecure)


async def test_a_pull_gives_the_image_that_the_registry_names(storage):
    layout = Layout()
    digest = layout.add_image([ROOT, tar_of((Member("more", b"m"),))], run=RUN)
    with registry(layout) as server:
        image = await storage.images.pull(source(server), Progress())
        again = await storage.images.pull(source(server, "other:2"), Progress())
    assert image.digest == digest == again.digest
    assert storage.images.held() == (image,)
    assert tree(root_of(storage, digest)) == {"more": "m"}
    blob = b"".join([piece async for piece in storage.images.read_blob(image.digest)])
    assert digest_of(blob) == image.blob_digest
    await storage.images.delete(image.digest)
    assert (await storage.images.add(stream(blob), expect=image.digest)).config == image.config


async def test_a_registry_without_tls_is_refused_unless_asked_for(storage):
    layout = Layout()
    layout.add_image([ROOT])
    with registry(layout) as server:
        with pytest.raises(Unavailable) as refused:
            await storage.images.pull(source(server, insecure=False), Progress())
        assert not any("/manifests/" in path for path in server.served)
    assert "--insecure" in refused.value.hint
    assert_nothing_is_left(storage)


async def test_what_a_registry_does_not_have_is_not_found(storage):
    layout = Layout()
    layout.add_image([ROOT])
    with registry(layout) as server, pytest.raises(NotFound):
        await storage.images.pull(source(server, "app:missing"), Progress())
    assert_nothing_is_left(storage)


async def test_a_registry_that_is_not_there_is_an_error_that_says_so(storage):
    with pytest.raises(Unavailable, match="connection refused"):
        await storage.images.pull(RegistrySource("docker://127.0.0.1:1/app"), Progress())
    assert_nothing_is_left(storage)


@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
async def test_a_registry_that_lies_about_a_digest_is_refused(storage, which):
    with registry(broken(damaged(which))) as server, pytest.raises(VerackError):
        await storage.images.pull(source(server), Progress())
    assert_nothing_is_left(storage)


async def test_a_pull_larger_than_the_host_takes_stops_at_the_limit(place):
    storage = make_storage(place)
    await storage.images.setup()
    room = 32 * MIB
    storage.images._room_bytes = lambda: room  # type: ignore[method-assign]
    layout = Layout()
    layout.add_image([tar_of((*BASE, Member("big", os.urandom(64 * MIB))))])
    with registry(layout) as server, pytest.raises(VerackError) as refused:
        await storage.images.pull(source(server), Progress())
    assert "quota" in refused.value.message
    assert_nothing_is_left(storage)


async def test_a_pull_that_stalls_is_ended(small):
    layout = Layout()
    layout.add_image([tar_of((*BASE, Member("big", os.urandom(3 * MIB))))])
    with registry(layout) as server:
        server.stall.set()
        with pytest.raises(TimedOut):
            await small.images.pull(source(server), Progress())
    assert_nothing_is_left(small)
    await eventually(lambda: running_as(ID_BASE) == [])


async def test_a_pull_that_is_cancelled_leaves_nothing_and_tells_how_far_it_was(storage):
    layout = Layout()
    layout.add_image([tar_of((*BASE, Member("big", os.urandom(3 * MIB))))])
    progress = Progress()
    with registry(layout) as server:
        server.stall.set()
        task = asyncio.create_task(storage.images.pull(source(server), progress))
        await eventually(lambda: progress.told)
        assert running_as(ID_BASE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert progress.told[-1] > 0
    assert_nothing_is_left(storage)
    await eventually(lambda: running_as(ID_BASE) == [])


@pytest.mark.parametrize(
    "reference",
    [
        "docker://",
        "oci:/etc",
        "dir:/etc",
        "docker-daemon:x",
        "docker://-x/y",
        "docker://h/../y",
        "docker://h/Y",
        "docker://h/y:t x",
        "docker://h/y\n",
        "docker://u:p@h/y",
        "docker://" + "y" * 600,
    ],
)
async def test_odd_sources_never_become_an_argument(storage, reference):
    with pytest.raises(InvalidInput):
        await storage.images.pull(RegistrySource(reference), Progress())
    assert_nothing_is_left(storage)


async def test_without_skopeo_the_package_is_named(storage, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(VerackError) as refused:
        await storage.images.pull(RegistrySource("docker://127.0.0.1:1/app"), Progress())
    assert "apt install" in refused.value.hint


def test_the_layouts_here_are_what_skopeo_reads(tmp_path):
    """The registry and the layouts of these tests are no private dialect."""
    import subprocess  # noqa: PLC0415

    layout = Layout()
    digest = layout.add_image([ROOT], run=RUN)
    done = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{layout.write(tmp_path / 'oci')}"],
        check=True,
        capture_output=True,
    )
    assert digest_of(done.stdout) == digest
    assert json.loads(done.stdout)["mediaType"] == MANIFEST


async def test_nothing_that_a_pull_began_outlives_it(storage, monkeypatch):
    """The program that talks to the registry may be taken over by it."""
    with tempfile.TemporaryDirectory() as folder:
        fake = Path(folder) / "skopeo"
        fake.write_text("#!/bin/sh\nsleep 1000 </dev/null >/dev/null 2>&1 &\nexit 1\n")
        for path in (fake, fake.parent):
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        with pytest.raises(VerackError):
            await storage.images.pull(RegistrySource("docker://127.0.0.1:1/app"), Progress())
    assert running_as(ID_BASE) == []
    assert_nothing_is_left(storage)
