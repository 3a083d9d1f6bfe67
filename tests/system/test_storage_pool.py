"""A pool on a loop file: made once, found again, never doubled."""

import os
import subprocess
from pathlib import Path

import pytest

from kit.storage import (
    MIB,
    POOL_BYTES,
    UID,
    dies,
    loop_devices,
    make_storage,
    release,
    settings,
    storage_folder,
    stream,
    tar_of,
)
from veagent.ports import RootSource
from veagent.storage import btrfs, devices, quotas
from veagent.storage.pool import BtrfsPool, PoolSettings
from veapi.errors import Conflict, InvalidInput, Unavailable

DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from veagent.storage import devices
from veagent.storage.pool import BtrfsPool
from kit.storage import settings

class DieAt:
    def __init__(self, argv_start):
        self.argv_start = argv_start
        self.real = devices.run
    async def __call__(self, argv, **options):
        if sys.argv[3] == "before" and argv[0] == self.argv_start:
            os.kill(os.getpid(), signal.SIGKILL)
        done = await self.real(argv, **options)
        if argv[0] == self.argv_start:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

devices.run = DieAt(sys.argv[2])
asyncio.run(BtrfsPool(settings(Path(sys.argv[1]))).setup())
"""


@pytest.fixture
def place(tmp_path):
    with storage_folder(tmp_path / "vstor") as folder:
        yield folder


async def test_setup_makes_a_pool_that_counts_and_is_closed_to_others(place):
    pool = BtrfsPool(settings(place))
    await pool.setup()
    assert quotas.quota_mode(place / "pool") is pool.mode
    assert (place / "pool").stat().st_mode & 0o777 == 0o700
    assert 0 < pool.capacity_bytes() < POOL_BYTES
    assert pool.device in loop_devices(place / "pool.img")
    assert (place / "pool.img").stat().st_blocks * 512 < POOL_BYTES // 4  # sparse


async def test_release_leaves_no_mount_and_no_loop_device(place):
    pool = BtrfsPool(settings(place))
    await pool.setup()
    await pool.release()
    assert not (place / "pool").is_mount()
    assert loop_devices(place / "pool.img") == []
    await pool.release()
    with pytest.raises(Unavailable):
        _ = pool.mode


async def test_a_second_setup_takes_the_loop_device_and_the_mount_that_are_there(place):
    await BtrfsPool(settings(place)).setup()
    first = loop_devices(place / "pool.img")
    second = BtrfsPool(settings(place))
    await second.setup()
    assert loop_devices(place / "pool.img") == first == [second.device]
    assert times_mounted(place / "pool") == 1


def times_mounted(at):
    return Path("/proc/self/mountinfo").read_text().count(f" {at} ")


def call(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


async def test_content_survives_release_and_setup(place):
    pool = BtrfsPool(settings(place))
    await pool.setup()
    (pool.base / "kept").write_text("yes")
    await pool.release()
    again = BtrfsPool(settings(place))
    await again.setup()
    assert (again.base / "kept").read_text() == "yes"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["mkfs.btrfs", "losetup", "mount"])
async def test_setup_converges_after_a_kill(place, step, when):
    dies(DIE, place, step, when)
    pool = BtrfsPool(settings(place))
    await pool.setup()
    assert len(loop_devices(place / "pool.img")) == 1
    assert not (place / "pool.img.new").exists()


async def test_a_pool_that_is_missing_is_not_made_anew(place):
    pool = BtrfsPool(settings(place))
    await pool.setup()
    await pool.release()
    (place / "pool.img").rename(place / "elsewhere.img")
    with pytest.raises(Conflict) as refused:
        await BtrfsPool(settings(place)).setup()
    assert "missing" in refused.value.message
    assert "remove" in refused.value.hint
    assert not (place / "pool.img").exists()
    (place / "elsewhere.img").rename(place / "pool.img")
    await BtrfsPool(settings(place)).setup()


async def test_another_file_system_in_its_place_is_refused(place, tmp_path):
    await BtrfsPool(settings(place)).setup()
    with storage_folder(tmp_path / "vstor2") as other:
        second = BtrfsPool(settings(other))
        await second.setup()
        await second.release()
        release(place)
        (other / "pool.img").replace(place / "pool.img")
        with pytest.raises(Conflict, match="another file system"):
            await BtrfsPool(settings(place)).setup()


async def test_a_file_that_is_no_pool_is_never_formatted(place):
    (place / "pool.img").write_bytes(b"precious" * 1000)
    (place / "pool.img").open("ab").truncate(POOL_BYTES)
    with pytest.raises(Conflict, match="not a pool"):
        await BtrfsPool(settings(place)).setup()
    with (place / "pool.img").open("rb") as file:
        assert file.read(8) == b"precious"


async def test_another_mount_in_its_place_is_refused(place):
    (place / "pool").mkdir()
    call("mount", "-t", "tmpfs", "vstor", place / "pool")
    with pytest.raises(Conflict, match="is mounted at"):
        await BtrfsPool(settings(place)).setup()


async def test_a_larger_size_grows_the_pool_in_place(place):
    pool = BtrfsPool(settings(place))
    await pool.setup()
    before = pool.capacity_bytes()
    larger = PoolSettings(
        kind="loop", path=place / "pool.img", size_bytes=2 * POOL_BYTES, mount=place / "pool"
    )
    grown = BtrfsPool(larger)
    await grown.setup()
    assert grown.capacity_bytes() > before + POOL_BYTES // 2


async def test_a_folder_on_btrfs_is_a_pool(place):
    await BtrfsPool(settings(place)).setup()
    folder = place / "pool" / "mine"
    folder.mkdir()
    pool = BtrfsPool(PoolSettings(kind="existing", path=folder))
    await pool.setup()
    assert pool.roots == folder / "ve"
    assert pool.roots.is_dir()
    await pool.release()
    assert (place / "pool").is_mount()


async def test_a_folder_elsewhere_is_no_pool(place):
    (place / "plain").mkdir()
    with pytest.raises(InvalidInput, match="not on btrfs"):
        await BtrfsPool(PoolSettings(kind="existing", path=place / "plain")).setup()


async def test_a_device_is_formatted_only_when_it_is_blank(place):
    with (place / "pool.img").open("wb") as file:
        file.truncate(POOL_BYTES)
    device = Path(call("losetup", "-f", "--show", place / "pool.img"))
    wanted = PoolSettings(kind="device", path=device, mount=place / "pool")
    call("mkfs.ext4", "-q", device)
    with pytest.raises(Conflict, match="not empty"):
        await BtrfsPool(wanted).setup()
    call("wipefs", "-qa", device)
    pool = BtrfsPool(wanted)
    await pool.setup()
    assert pool.device == str(device)
    await pool.release()
    assert len(loop_devices(place / "pool.img")) == 1  # the device is the admin's


async def test_what_an_import_left_is_swept(place):
    storage = make_storage(place)
    await storage.pool.setup()
    work = storage.pool.tmp / "image-left"
    work.mkdir()
    (work / "blob").write_bytes(b"x")
    btrfs.create_subvolume(work, "root")
    await make_storage(place).pool.setup()
    assert list(storage.pool.tmp.iterdir()) == []


async def test_full_qgroups_of_an_existing_btrfs_are_taken_as_they_are(place):
    pool = BtrfsPool(settings(place))
    await pool.setup()
    call("btrfs", "quota", "disable", place / "pool")
    call("btrfs", "quota", "enable", place / "pool")
    storage = make_storage(place)
    await storage.roots.setup()
    assert storage.pool.mode is quotas.QuotaMode.FULL
    image = await storage.images.add(stream(tar_of()))
    root = await storage.roots.create(UID, RootSource(image=image.digest), 16 * MIB, "web")
    with pytest.raises(OSError, match="quota"):
        (root / "big").write_bytes(os.urandom(32 * MIB))
        btrfs.sync(storage.pool.base)
        (root / "more").write_bytes(os.urandom(MIB))
    btrfs.sync(storage.pool.base)
    assert storage.roots.usage()[UID].limit_bytes == 16 * MIB
    await storage.roots.delete(UID)


async def test_two_set_ups_at_once_do_not_attach_twice(place):
    with devices.only_one(settings(place).record_path), pytest.raises(Conflict, match="another"):
        await BtrfsPool(settings(place)).setup()


async def test_a_missing_program_is_named_with_its_package(place, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unavailable, match=r"mkfs\.btrfs") as missing:
        await BtrfsPool(settings(place)).setup()
    assert "btrfs-progs" in missing.value.hint
