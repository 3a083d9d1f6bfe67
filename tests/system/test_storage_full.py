"""A pool that is full takes nothing new, says why, and breaks nothing that runs."""

import os
from contextlib import suppress

import pytest

from kit.busyboxroot import make_busybox_root
from kit.eventually import eventually
from kit.manualclock import ManualClock
from kit.realves import lab
from kit.storage import ID_BASE, MIB, OTHER_UID, UID, Storage, storage_folder, stream, tar_of
from veagent.ports import RootSource
from veagent.storage import btrfs
from veagent.storage.fullness import Thresholds
from veagent.storage.images import BtrfsImages
from veagent.storage.pool import BtrfsPool, PoolSettings
from veagent.storage.roots import BtrfsRoots
from veapi.errors import Unavailable, VerackError

POOL_BYTES = 2048 * MIB
PIECE_BYTES = 16 * MIB


@pytest.fixture
def place(tmp_path):
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o711)
    with storage_folder(tmp_path / "vfull") as folder:
        yield folder


async def make(place, clock=None, thresholds=None):
    wanted = PoolSettings(
        kind="loop",
        path=place / "pool.img",
        size_bytes=POOL_BYTES,
        mount=place / "pool",
        thresholds=thresholds or Thresholds(),
    )
    pool = BtrfsPool(wanted, clock=clock)
    made = Storage(pool, BtrfsRoots(pool, clock=clock), BtrfsImages(pool, id_base=ID_BASE))
    await made.roots.setup()
    return made


async def an_image(storage):
    return RootSource(image=(await storage.images.add(stream(tar_of()))).digest)


def fill(folder, *, leave_bytes):
    """Takes room, without writing, until less than that is left."""
    for number in range(POOL_BYTES // PIECE_BYTES):
        btrfs.sync(folder)  # statvfs tells of the last commit
        found = os.statvfs(folder)
        if found.f_bavail * found.f_frsize - PIECE_BYTES < leave_bytes:
            return
        with (folder / f"fill{number}").open("wb", buffering=0) as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, PIECE_BYTES)


def empty(folder):
    for path in folder.glob("fill*"):
        path.unlink()
    btrfs.sync(folder)


async def test_a_full_pool_refuses_new_ves_with_the_numbers_and_what_to_do(place):
    storage = await make(place)
    source = await an_image(storage)
    root = await storage.roots.create(UID, source, 0, "web")
    assert storage.roots.refuses() == ""
    fill(root, leave_bytes=0)
    with pytest.raises(Unavailable, match=r"nearly full: .* are free, and .* are kept") as refused:
        await storage.roots.create(OTHER_UID, source, 64 * MIB, "web2")
    assert "delete VEs" in refused.value.hint
    assert refused.value.message == storage.roots.refuses()
    with pytest.raises(Unavailable, match="nearly full"):
        await storage.roots.snapshot(UID, "one", 1)
    assert await storage.roots.all() == [UID]
    assert await storage.roots.snapshots(UID) == []
    empty(root)
    await eventually(lambda: not reason_after(storage), timeout_s=40)
    await storage.roots.create(OTHER_UID, source, 64 * MIB, "web2")


def reason_after(storage):
    btrfs.sync(storage.pool.base)
    try:
        storage.pool.check_room()
    except VerackError as error:
        return error.message
    return ""


@pytest.mark.usefixtures("host_can_run_ves")
async def test_a_ve_that_runs_in_a_full_pool_runs_on_and_starts_again(place):
    storage = await make(place)
    source = await an_image(storage)
    root = await storage.roots.create(UID, source, 0, "web")
    for path in (root / "sbin/init", root / "sbin"):
        path.unlink() if path.is_file() else path.rmdir()
    make_busybox_root(root)
    async with lab() as ves:
        plan = ves.plan(uid=UID, root=root)
        instance = await ves.runtime.start(plan)
        (storage.pool.base / "ballast").mkdir()
        fill(storage.pool.base / "ballast", leave_bytes=64 * MIB)
        assert storage.roots.refuses() or reason_after(storage)
        wrote = await ves.run(
            instance, "sh", "-c", "echo still >/var/log/x && sync && cat /var/log/x"
        )
        assert (wrote.code, wrote.out) == (0, "still\n")
        fill(storage.pool.base / "ballast", leave_bytes=0)
        with pytest.raises(Unavailable, match="nearly full"):
            await storage.roots.create(OTHER_UID, source, 64 * MIB, "web2")
        read = await ves.run(instance, "cat", "/var/log/x", "/etc/hostname")
        assert (read.code, read.out) == (0, "still\nweb\n")
        await ves.runtime.stop(instance, timeout_s=0)
        instance = await ves.runtime.start(plan)
        assert (await ves.run(instance, "cat", "/var/log/x")).out == "still\n"
        empty(storage.pool.base / "ballast")
        await eventually(lambda: not reason_after(storage), timeout_s=40)
        await storage.roots.create(OTHER_UID, source, 64 * MIB, "web2")
        await ves.runtime.stop(instance, timeout_s=0)


async def test_a_ve_whose_root_is_replaced_gets_it_in_a_full_pool_too(place):
    storage = await make(place)
    source = await an_image(storage)
    await storage.roots.create(UID, source, 0, "web")
    await storage.roots.snapshot(UID, "one", 1)
    (storage.pool.base / "ballast").mkdir()
    fill(storage.pool.base / "ballast", leave_bytes=64 * MIB)
    await storage.roots.drop(UID)
    own = RootSource(image=source.image, snapshot="one")
    assert (await storage.roots.create(UID, own, 0, "web")).is_dir()
    await storage.roots.drop(UID)
    assert (await storage.roots.create(UID, source, 0, "web")).is_dir()


async def test_deleting_works_in_a_pool_without_any_room(place):
    storage = await make(place)
    source = await an_image(storage)
    root = await storage.roots.create(UID, source, 0, "web")
    for seq in (1, 2):
        await storage.roots.snapshot(UID, f"s{seq}", seq)
    fill(root, leave_bytes=0)
    await storage.roots.delete_snapshot(UID, 1)
    await storage.roots.delete(UID)
    await eventually(lambda: not reason_after(storage), timeout_s=40)


async def test_the_thresholds_can_be_set(place):
    storage = await make(place, thresholds=Thresholds(free_bytes=POOL_BYTES))
    assert "2G are kept" in storage.roots.refuses()
    storage = await make(place, thresholds=Thresholds(metadata_free_bytes=POOL_BYTES))
    assert "metadata" in storage.roots.refuses()
    storage = await make(place, thresholds=Thresholds(0, 0))
    assert storage.roots.refuses() == ""


async def test_the_pool_is_looked_at_once_a_second_at_most(place):
    clock = ManualClock()
    storage = await make(place, clock=clock)
    assert storage.roots.refuses() == ""
    fill(storage.pool.base, leave_bytes=0)
    assert storage.roots.refuses() == ""
    clock.jump(1.1)
    assert "nearly full" in storage.roots.refuses()
