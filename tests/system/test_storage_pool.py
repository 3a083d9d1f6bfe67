"""A pool on a loop file: made once, found again, never doubled."""

import os
import subprocess
from pathlib import Path

import pytest

from kit.storage import (
    ID_BASE,
    MIB,
    OTHER_UID,
    POOL_BYTES,
    UID,
    Storage,
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
from veagent.storage import btrfs, devices, quotas, space
from veagent.storage.images import BtrfsImages
from veagent.storage.pool import BtrfsPool, PoolSettings
from veagent.storage.roots import BtrfsRoots
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


@pytest.mark.parametrize("done", ["truncate", "set-capacity"])
async def test_growing_that_was_cut_goes_on_at_the_next_start(place, done):
    pool = BtrfsPool(settings(place))
    await pool.setup()
    before = pool.capacity_bytes()
    os.truncate(place / "pool.img", 2 * POOL_BYTES)
    if done == "set-capacity":
        call("losetup", "--set-capacity", pool.device)
    grown = BtrfsPool(sized(place, 2 * POOL_BYTES))
    await grown.setup()
    assert grown.capacity_bytes() > before + POOL_BYTES // 2


def sized(place, size_bytes):
    return PoolSettings(
        kind="loop", path=place / "pool.img", size_bytes=size_bytes, mount=place / "pool"
    )


async def test_a_full_pool_grows_with_its_files_in_use(place):
    pool = BtrfsPool(settings(place))
    await pool.setup()
    with (pool.base / "open").open("wb", buffering=0) as file:
        with pytest.raises(OSError, match="No space"):
            os.posix_fallocate(file.fileno(), 0, 2 * POOL_BYTES)
        os.posix_fallocate(file.fileno(), 0, POOL_BYTES - POOL_BYTES // 4)
        grown = BtrfsPool(sized(place, 2 * POOL_BYTES))
        await grown.setup()
        os.posix_fallocate(file.fileno(), 0, POOL_BYTES + POOL_BYTES // 4)


async def test_a_smaller_size_is_refused_with_both_and_changes_nothing(place):
    pool = BtrfsPool(settings(place))
    await pool.setup()
    with pytest.raises(
        Conflict, match=r"1G, less than .* \(2G\): a pool does not shrink"
    ) as refused:
        await BtrfsPool(sized(place, POOL_BYTES // 2)).setup()
    assert str(POOL_BYTES) in refused.value.hint
    assert (place / "pool.img").stat().st_size == POOL_BYTES
    assert (place / "pool").is_mount()


def ext4(path):
    with path.open("wb") as file:
        file.truncate(POOL_BYTES)
    call("mkfs.ext4", "-q", path)


@pytest.mark.parametrize(
    ("put", "words"),
    [
        (lambda path: path.write_bytes(b""), "holds no btrfs"),
        (lambda path: path.write_bytes(b"precious"), "holds no btrfs"),
        (ext4, "holds ext4"),
        (lambda path: path.mkdir(), "is no plain file"),
        (os.mkfifo, "is no plain file"),
        (lambda path: path.symlink_to("/dev/null"), "is no plain file"),
    ],
    ids=["empty", "text", "ext4", "folder", "fifo", "device"],
)
async def test_whatever_else_is_in_the_file_s_place_is_refused_and_left(place, put, words):
    put(place / "pool.img")
    before = (place / "pool.img").lstat()
    with pytest.raises(Conflict, match=words) as refused:
        await BtrfsPool(settings(place)).setup()
    assert refused.value.hint
    assert (place / "pool.img").lstat() == before
    assert loop_devices(place / "pool.img") == []


async def test_a_mount_that_would_hide_files_is_refused(place):
    (place / "pool").mkdir()
    (place / "pool/thesis.txt").write_text("precious")
    with pytest.raises(Conflict, match=r"not empty \(there is 'thesis.txt'\)"):
        await BtrfsPool(settings(place)).setup()
    assert (place / "pool/thesis.txt").read_text() == "precious"


async def test_a_mount_point_that_is_a_file_is_refused(place):
    (place / "pool").write_text("precious")
    with pytest.raises(Conflict, match="is no folder"):
        await BtrfsPool(settings(place)).setup()


async def test_a_device_that_became_larger_is_used_to_its_end(place):
    with (place / "pool.img").open("wb") as file:
        file.truncate(POOL_BYTES)
    device = Path(call("losetup", "-f", "--show", place / "pool.img"))
    wanted = PoolSettings(kind="device", path=device, mount=place / "pool")
    pool = BtrfsPool(wanted)
    await pool.setup()
    before = pool.capacity_bytes()
    os.truncate(place / "pool.img", 2 * POOL_BYTES)
    call("losetup", "--set-capacity", device)
    later = BtrfsPool(wanted)
    await later.setup()
    assert later.capacity_bytes() > before + POOL_BYTES // 2


async def test_a_device_that_is_none_is_refused(place):
    (place / "plain").write_text("x")
    for path in (place / "plain", place / "missing"):
        with pytest.raises(InvalidInput, match="no block device"):
            await BtrfsPool(PoolSettings(kind="device", path=path, mount=place / "pool")).setup()


async def test_a_pool_of_two_agents_on_one_btrfs_keeps_their_ves_apart(place):
    """Each sweeps its own folder; the other's roots keep their groups and limits."""
    await BtrfsPool(settings(place)).setup()
    made = []
    for name, uid in (("one", UID), ("two", OTHER_UID)):
        (place / "pool" / name).mkdir()
        pool = BtrfsPool(PoolSettings(kind="existing", path=place / "pool" / name))
        storage = Storage(pool, BtrfsRoots(pool), BtrfsImages(pool, id_base=ID_BASE))
        await storage.roots.setup()
        image = await storage.images.add(stream(tar_of()))
        await storage.roots.create(uid, RootSource(image=image.digest), 16 * MIB, name)
        made.append(storage)
    for storage in made:
        again = BtrfsRoots(BtrfsPool(storage.pool.settings))
        await again.setup()
    btrfs.sync(place / "pool")
    assert made[0].roots.usage()[UID].limit_bytes == 16 * MIB
    assert made[1].roots.usage()[OTHER_UID].limit_bytes == 16 * MIB
    await made[0].roots.delete(UID)
    assert await made[1].roots.exists(OTHER_UID)


async def test_a_new_pool_has_room_for_metadata_before_data_take_all(place):
    pool = BtrfsPool(settings(place))
    await pool.setup()
    assert not space.short_of_metadata(pool.base)
    (pool.base / "big").mkdir()
    for number in range(POOL_BYTES // (16 * MIB)):
        with (pool.base / f"big/{number}").open("wb", buffering=0) as file:
            try:
                os.posix_fallocate(file.fileno(), 0, 16 * MIB)
            except OSError:
                break
        btrfs.sync(pool.base)
    assert number * 16 * MIB > POOL_BYTES * 0.8  # and no name could not be made before
    assert space.space(pool.base).metadata_free_bytes > 64 * MIB


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
