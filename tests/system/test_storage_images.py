"""Images: whole and checked, or not there; and hostile archives land nothing outside."""

import asyncio
import hashlib
import os
import stat
import tarfile
from pathlib import Path

import pytest

from kit.eventually import eventually
from kit.hostile import bomb, escapes, is_device
from kit.ociimages import assert_nothing_is_left, running_as
from kit.storage import (
    BASE,
    ID_BASE,
    INIT,
    MIB,
    UID,
    Member,
    dies,
    everything_below,
    folder,
    link,
    make_storage,
    pack,
    storage_folder,
    stream,
    tar_of,
)
from veagent.ports import RootSource
from veagent.storage import images
from veagent.storage.images import ImageLimits
from veapi.errors import Conflict, InvalidInput, NotFound, TimedOut
from veapi.model import Digest

DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from kit.storage import make_storage, stream
from veagent.storage import btrfs, images, rootfs, unpack

def die(*_args, **_options):
    os.kill(os.getpid(), signal.SIGKILL)

places = {"unpack": unpack, "check": rootfs, "set_read_only": btrfs, "sync": btrfs, "rename": Path}
setattr(places[sys.argv[3]], sys.argv[3], die)

async def main():
    storage = make_storage(Path(sys.argv[1]))
    await storage.images.setup()
    await storage.images.add(stream(Path(sys.argv[2]).read_bytes()))

asyncio.run(main())
"""
COMPRESSIONS = {
    "tar": ["cat"],
    "gz": ["gzip", "-c"],
    "xz": ["xz", "-c"],
    "zst": ["zstd", "-c", "-q"],
}


@pytest.fixture
def place(tmp_path):
    with storage_folder(tmp_path / "vstor") as made:
        yield made


@pytest.fixture
async def storage(place):
    made = make_storage(place)
    await made.images.setup()
    return made


def root_of(storage, image):
    return storage.pool.images / image.digest.removeprefix("sha256:") / "root"


def digest_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def read(pieces):
    return b"".join([piece async for piece in pieces])


@pytest.mark.parametrize("packed", COMPRESSIONS)
async def test_an_image_is_held_by_the_digest_of_its_tar_however_it_is_packed(storage, packed):
    content = tar_of((*BASE, Member("etc/motd", b"hello\n", uid=33)))
    blob = pack(content, *COMPRESSIONS[packed])
    image = await storage.images.add(stream(blob), expect=Digest(digest_of(content)))
    assert image.digest == digest_of(content)
    assert (image.blob_digest, image.blob_bytes) == (digest_of(blob), len(blob))
    assert image.size_bytes == len(content)
    assert storage.images.held() == (image,)
    assert await read(storage.images.read_blob(image.digest)) == blob
    motd = root_of(storage, image) / "etc/motd"
    assert motd.read_text() == "hello\n"
    assert motd.stat().st_uid == 33  # unshifted: the VE maps it
    assert list(storage.pool.tmp.iterdir()) == []


async def test_an_image_is_held_after_a_restart(place, storage):
    image = await storage.images.add(stream(tar_of()))
    again = make_storage(place)
    await again.roots.setup()
    assert again.images.held() == (image,)


async def test_the_same_image_is_held_once(storage):
    content = tar_of()
    one = await storage.images.add(stream(content))
    assert await storage.images.add(stream(content)) == one
    assert await storage.images.add(stream(pack(content, "gzip", "-c"))) == one
    assert storage.images.held() == (one,)


async def test_two_adds_of_the_same_image_at_once_both_succeed(storage):
    content = tar_of()
    one, two = await asyncio.gather(
        storage.images.add(stream(content)),
        storage.images.add(stream(pack(content, "gzip", "-c"))),
    )
    assert one.digest == two.digest
    assert len(storage.images.held()) == 1
    assert (root_of(storage, one) / "sbin/init").exists()


async def test_a_blob_with_another_digest_than_expected_is_refused(storage):
    with pytest.raises(InvalidInput, match="not sha256:000"):
        await storage.images.add(stream(tar_of()), expect=Digest("sha256:" + "0" * 64))
    assert_nothing_is_left(storage)


async def test_delete_keeps_roots_and_is_idempotent(storage):
    image = await storage.images.add(stream(tar_of()))
    root = await storage.roots.create(UID, RootSource(image=image.digest), 64 * MIB, "web")
    await storage.images.delete(image.digest)
    await storage.images.delete(image.digest)
    assert (root / "sbin/init").exists()
    with pytest.raises(NotFound):
        await read(storage.images.read_blob(image.digest))
    assert_nothing_is_left(storage)


async def test_setuid_links_fifos_and_attributes_survive(storage):
    members = (
        *BASE,
        folder("bin"),
        Member("bin/su", b"x", mode=0o4755),
        Member("bin/hard", kind=tarfile.LNKTYPE, target="bin/su"),
        Member("run.fifo", kind=tarfile.FIFOTYPE),
        link("bin/abs", "/etc/passwd"),
    )
    root = root_of(storage, await storage.images.add(stream(tar_of(members))))
    assert (root / "bin/su").stat().st_mode & 0o7777 == 0o4755
    assert (root / "bin/hard").stat().st_ino == (root / "bin/su").stat().st_ino
    assert stat.S_ISFIFO((root / "run.fifo").stat().st_mode)
    assert (root / "bin/abs").readlink().as_posix() == "/etc/passwd"


async def test_file_capabilities_survive(storage, tmp_path):
    tree = tmp_path / "tree"
    (tree / "sbin").mkdir(parents=True)
    (tree / "sbin/init").write_bytes(b"x")
    (tree / "sbin/init").chmod(0o755)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(tree / "sbin/init", "security.capability", capability)
    blob = pack(b"", "tar", "--xattrs", "--xattrs-include=*", "-C", str(tree), "-c", ".")
    root = root_of(storage, await storage.images.add(stream(blob)))
    assert os.getxattr(root / "sbin/init", "security.capability")[4:20] == capability[4:20]


async def test_device_nodes_below_dev_are_skipped_and_mount_points_are_made(storage):
    members = (
        *BASE,
        folder("dev"),
        Member("dev/null", kind=tarfile.CHRTYPE),
        Member("./dev/sda", kind=tarfile.BLKTYPE),
    )
    root = root_of(storage, await storage.images.add(stream(tar_of(members))))
    assert list((root / "dev").iterdir()) == []
    assert all((root / name).is_dir() for name in ("proc", "sys", "run"))


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "an empty file"),
        (b"hello world\n" * 100, "text"),
        (b"<!DOCTYPE html>" * 100, "HTML"),
        (b"PK\x03\x04" + bytes(2000), "a zip file"),
        (b"\x7fELF" + bytes(2000), "ELF"),
        (pack(b"hello world\n" * 100, "gzip", "-c"), "inside the gz is no tar but text"),
        (pack(tar_of(), "gzip", "-c")[:-60], "damaged"),
        (pack(os.urandom(5000), "zstd", "-c", "-q"), "inside the zst is no tar"),
        (tar_of((*BASE, Member("big", b"x" * 5000)))[:4200], "Unexpected EOF"),
        (bytes(10240), "no /sbin/init"),
        (tar_of((folder("etc"), Member("etc/passwd", b"x"))), "no /sbin/init"),
        (tar_of((folder("sbin"), Member("sbin/init", b"x", mode=0o644))), "no executable"),
        (tar_of((Member("init", b"x", mode=0o755),)), "only /init"),
        (tar_of((Member("manifest.json", b"[]"), Member("oci-layout", b"{}"))), "docker save"),
        (tar_of((*BASE, Member("big-owner", uid=65_536))), "ownership"),
    ],
)
async def test_what_is_no_image_is_refused_by_name_and_leaves_nothing(storage, blob, words):
    with pytest.raises(InvalidInput) as refused:
        await storage.images.add(stream(blob))
    assert words in refused.value.message
    assert refused.value.hint
    assert_nothing_is_left(storage)


@pytest.mark.parametrize(
    "member",
    [
        *(link(name, "/somewhere") for name in ("dev", "proc", "sys", "etc", "run")),
        *(Member(name, b"file") for name in ("dev", "proc", "sys")),
        Member("proc", kind=tarfile.FIFOTYPE),
        link("bin", "../../../../bin"),
        link("lib", "/../../outside"),
    ],
    ids=lambda m: f"{m.name}-{m.kind.decode()}",
)
async def test_top_folders_that_would_lead_the_host_elsewhere_are_refused(storage, member):
    with pytest.raises(InvalidInput, match=f"/{member.name}"):
        await storage.images.add(stream(tar_of((folder("sbin"), INIT, member))))
    assert_nothing_is_left(storage)


@pytest.mark.parametrize("trick", sorted(escapes(Path("/nowhere"))))
async def test_hostile_archives_land_nothing_outside(storage, tmp_path, trick):
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)  # so that only the sandbox stands between
    (outside / "victim").write_text("untouched")
    (outside / "victim").chmod(0o666)
    before = everything_below(tmp_path / "vstor") - everything_below(storage.pool.tmp)
    try:
        image = await storage.images.add(stream(tar_of((*BASE, *escapes(outside)[trick]))))
        nodes = [p for p in root_of(storage, image).rglob("*") if is_device(p)]
        assert nodes == []
        await storage.images.delete(image.digest)
    except InvalidInput as refused:
        assert refused.message.isprintable()
    assert everything_below(outside) == {"victim"}
    assert (outside / "victim").read_text() == "untouched"
    assert everything_below(tmp_path / "vstor") == before
    assert "owned" not in everything_below(Path("/usr/bin"))


async def test_devices_elsewhere_than_dev_are_refused(storage):
    members = (*BASE, Member("sd", kind=tarfile.BLKTYPE))
    with pytest.raises(InvalidInput, match="mknod") as refused:
        await storage.images.add(stream(tar_of(members)))
    assert "dev/" in refused.value.hint
    assert_nothing_is_left(storage)


@pytest.fixture
async def small(place):
    limits = ImageLimits(blob_bytes=4 * MIB, unpacked_bytes=16 * MIB, unpack_s=60, stall_s=0.3)
    made = make_storage(place, limits)
    await made.images.setup()
    return made


async def test_a_bomb_stops_at_the_limit(small):
    free = small.pool.free_bytes()
    with pytest.raises(InvalidInput, match="unpacks to more than"):
        await small.images.add(stream(bomb(64 * MIB)))
    assert_nothing_is_left(small)
    assert small.pool.free_bytes() > free - 40 * MIB


async def test_an_unpacking_that_takes_too_long_is_killed_whole(place):
    storage = make_storage(place, ImageLimits(unpack_s=0.15))
    await storage.images.setup()
    with pytest.raises(TimedOut):
        await storage.images.add(stream(bomb(256 * MIB, "zstd", "-c", "-q")))
    await eventually(lambda: running_as(ID_BASE) == [])
    assert_nothing_is_left(storage)


async def test_a_huge_sparse_file_is_refused(small):
    header = tarfile.TarInfo("sparse")
    header.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": "sparse",
        "GNU.sparse.size": str(1 << 60),
        "GNU.sparse.numblocks": "1",
        "GNU.sparse.map": "0,0",
        "GNU.sparse.realsize": str(1 << 60),
    }
    blob = header.tobuf(tarfile.PAX_FORMAT) + bytes(1024)
    with pytest.raises(InvalidInput):
        await small.images.add(stream(blob))
    assert_nothing_is_left(small)


async def test_a_blob_over_the_limit_is_refused(small):
    with pytest.raises(InvalidInput, match="larger than"):
        await small.images.add(stream(os.urandom(5 * MIB)))
    assert_nothing_is_left(small)


async def test_a_transfer_that_breaks_leaves_nothing(storage):
    async def broken():
        yield tar_of()[:3000]
        raise NotFound("the sender is gone", hint="")

    with pytest.raises(NotFound):
        await storage.images.add(broken())
    assert_nothing_is_left(storage)


async def test_a_transfer_that_stalls_is_ended(small):
    async def stalls():
        yield tar_of()[:3000]
        await asyncio.Event().wait()

    with pytest.raises(TimedOut, match="nothing of the image came"):
        await small.images.add(stalls())
    assert_nothing_is_left(small)


async def test_a_cancelled_add_leaves_nothing(storage):
    started = asyncio.Event()

    async def endless():
        yield tar_of()[:3000]
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(storage.images.add(endless()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_is_left(storage)


async def test_an_add_that_is_cancelled_while_it_unpacks_leaves_nothing(storage):
    task = asyncio.create_task(
        storage.images.add(stream(bomb(256 * MIB, "zstd", "-c", "-q"), 1 << 20))
    )
    await eventually(lambda: list(storage.pool.tmp.glob("*/root/zeros")))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_is_left(storage)
    await eventually(lambda: running_as(ID_BASE) == [])


@pytest.mark.parametrize("step", ["unpack", "check", "set_read_only", "sync", "rename"])
async def test_add_converges_after_a_kill(place, storage, tmp_path, step):
    (tmp_path / "blob").write_bytes(tar_of())
    dies(DIE, place, tmp_path / "blob", step)
    again = make_storage(place)
    await again.images.setup()
    assert_nothing_is_left(again)
    image = await again.images.add(stream(tar_of()))
    assert (root_of(again, image) / "sbin/init").exists()


async def test_an_image_that_a_power_loss_damaged_is_not_held(place, storage):
    image = await storage.images.add(stream(tar_of()))
    (root_of(storage, image).parent / "meta.json").write_bytes(b"{")
    again = make_storage(place)
    await again.images.setup()
    assert again.images.held() == ()
    assert await again.images.add(stream(tar_of())) == image


async def test_one_that_is_brought_again_is_as_new_and_outlives_a_removal_that_waits(storage):
    content = tar_of()
    image = await storage.images.add(stream(content))
    used = storage.pool.images / image.digest.removeprefix("sha256:") / "used"
    for again in (content, pack(content, "gzip", "-c")):
        used.touch()
        os.utime(used, (1, 1))
        async with storage.images._changing:
            removal = asyncio.create_task(storage.images.delete(image.digest))
            await asyncio.sleep(0)
            storage.images._again(image)
        await removal
        assert storage.images.held() == (image,)
        os.utime(used, (1, 1))
        assert await storage.images.add(stream(again)) == image
        assert storage.images.idle_s(image.digest) < 3600
    os.utime(used, (1, 1))
    assert await storage.images.add(stream(b""), expect=image.digest) == image
    assert storage.images.idle_s(image.digest) < 3600


async def test_a_host_that_holds_very_many_images_takes_no_more_and_wants_to_let_some_go(
    storage, monkeypatch
):
    image = await storage.images.add(stream(tar_of()))
    assert not storage.images.short()
    monkeypatch.setattr(images, "CROWDED", 0)
    assert storage.images.short()
    monkeypatch.setattr(images, "MOST_HELD", 1)
    with pytest.raises(Conflict, match="holds 1 images"):
        await storage.images.add(stream(tar_of((*BASE, Member("etc/motd", b"new\n")))))
    assert storage.images.held() == (image,)
    await storage.images.delete(image.digest)
    await storage.images.add(stream(tar_of()))


async def test_a_folder_that_the_tar_only_implies_is_no_ones_to_write_but_roots(storage):
    content = tar_of((INIT, Member("etc/motd", b"hello\n", uid=33)))
    root = root_of(storage, await storage.images.add(stream(content)))
    for name in ("sbin", "etc"):
        found = (root / name).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o755, 0)
