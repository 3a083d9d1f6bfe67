"""Roots of VEs: limited, isolated, and complete or not there."""

import errno
import os
from pathlib import Path

import pytest

from kit.eventually import eventually
from kit.storage import (
    BASE,
    MIB,
    OTHER_UID,
    UID,
    Member,
    make_storage,
    storage_folder,
    stream,
    tar_of,
)
from veagent.ports import RootSource
from veagent.storage import btrfs, quotas
from veapi.errors import Conflict, InvalidInput, NotFound, RemoteFailed
from veapi.model import Digest, Uid


@pytest.fixture
def place(tmp_path):
    with storage_folder(tmp_path / "vstor") as folder:
        yield folder


@pytest.fixture
async def storage(place):
    made = make_storage(place)
    await made.roots.setup()
    return made


@pytest.fixture
async def image(storage):
    content = tar_of((*BASE, Member("etc/motd", b"hello\n")))
    return (await storage.images.add(stream(content))).digest


def fill(path: Path, size_bytes: int) -> None:
    """Writes and makes it real; OSError EDQUOT when the limit is met."""
    with path.open("wb", buffering=0) as file:
        for _ in range(size_bytes // MIB):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())


async def test_a_root_has_the_image_s_content_and_its_own_hostname(storage, image):
    root = await storage.roots.create(UID, RootSource(image=image), 64 * MIB, "web")
    assert root == storage.roots.path(UID)
    assert (root / "etc/motd").read_text() == "hello\n"
    assert (root / "etc/hostname").read_text() == "web\n"
    assert await storage.roots.exists(UID)
    assert await storage.roots.all() == [UID]


async def test_writes_over_the_limit_are_refused_and_a_raise_lets_them_pass(storage, image):
    root = await storage.roots.create(UID, RootSource(image=image), 32 * MIB, "web")
    with pytest.raises(OSError, match="quota") as refused:
        fill(root / "big", 64 * MIB)
    assert refused.value.errno == errno.EDQUOT
    (root / "big").unlink()
    await storage.roots.limit(UID, 256 * MIB)
    fill(root / "big", 64 * MIB)


async def test_a_limit_below_what_was_just_written_is_refused_though_nothing_is_on_disk_yet(
    storage, image
):
    root = await storage.roots.create(UID, RootSource(image=image), 256 * MIB, "web")
    with (root / "big").open("wb", buffering=0) as file:
        for _ in range(48):
            file.write(os.urandom(MIB))
        assert quotas.group_usage(storage.pool.base)[quotas.group_of(UID)].used_bytes < 32 * MIB
        with pytest.raises(Conflict, match="hold 48"):
            await storage.roots.limit(UID, 32 * MIB)
    assert storage.roots.usage()[UID].limit_bytes == 256 * MIB


async def test_a_subvolume_made_inside_does_not_escape_the_limit(storage, image):
    root = await storage.roots.create(UID, RootSource(image=image), 32 * MIB, "web")
    if storage.pool.mode is not quotas.QuotaMode.SIMPLE:
        pytest.skip("full qgroups count each subvolume alone")
    btrfs.create_subvolume(root, "nested")
    with pytest.raises(OSError, match="quota"):
        fill(root / "nested/big", 64 * MIB)


async def test_the_image_counts_for_nothing_and_writes_are_seen(storage, image):
    root = await storage.roots.create(UID, RootSource(image=image), 64 * MIB, "web")
    fill(root / "data", 8 * MIB)
    btrfs.sync(storage.pool.base)
    later = make_storage(storage.pool.base.parent)
    await later.roots.setup()
    usage = later.roots.usage()[UID]
    assert usage.limit_bytes == 64 * MIB
    assert 8 * MIB <= usage.used_bytes < 9 * MIB


async def test_roots_of_one_image_do_not_see_each_other(storage, image):
    one = await storage.roots.create(UID, RootSource(image=image), 64 * MIB, "one")
    two = await storage.roots.create(OTHER_UID, RootSource(image=image), 64 * MIB, "two")
    (one / "etc/motd").write_text("mine\n")
    assert (two / "etc/motd").read_text() == "hello\n"
    held = storage.pool.images / image.removeprefix("sha256:") / "root"
    assert (held / "etc/motd").read_text() == "hello\n"
    with pytest.raises(OSError, match="Read-only"):
        (held / "etc/motd").write_text("no\n")


async def test_delete_frees_the_space_also_of_subvolumes_inside(storage, image):
    root = await storage.roots.create(UID, RootSource(image=image), 32 * MIB, "web")
    btrfs.create_subvolume(root, "a")
    btrfs.create_subvolume(root / "a", "b")
    btrfs.snapshot(root / "a/b", root, "c")
    with pytest.raises(OSError, match="quota"):
        fill(root / "a/b/big", 64 * MIB)  # at the limit, where btrfs refuses to delete
    btrfs.sync(storage.pool.base)
    before = storage.pool.free_bytes()
    await storage.roots.delete(UID)
    assert not await storage.roots.exists(UID)
    assert await storage.roots.all() == []
    assert UID not in storage.roots.usage()

    def freed():
        btrfs.sync(storage.pool.base)
        return storage.pool.free_bytes() > before + 16 * MIB

    await eventually(freed, timeout_s=40)
    await storage.roots.delete(UID)


async def test_a_death_while_the_full_is_deleted_leaves_a_limit(storage, image, monkeypatch):
    root = await storage.roots.create(UID, RootSource(image=image), 32 * MIB, "web")
    with pytest.raises(OSError, match="quota"):
        fill(root / "big", 64 * MIB)
    limits, group = [], quotas.group_of(UID)

    def at_the_limit(*_):
        limits.append(quotas.group_usage(storage.pool.base)[group].limit_bytes)
        raise OSError(errno.EDQUOT, "quota exceeded")

    monkeypatch.setattr(btrfs, "delete_subvolume", at_the_limit)
    with pytest.raises(RemoteFailed):
        await storage.roots.delete(UID)
    assert [limit // MIB for limit in limits] == [32, 96]
    assert quotas.group_usage(storage.pool.base)[group].limit_bytes == 32 * MIB


async def test_no_quota_group_stays_behind(storage, image):
    before = set(quotas.group_usage(storage.pool.base))
    root = await storage.roots.create(UID, RootSource(image=image), 32 * MIB, "web")
    btrfs.create_subvolume(root, "inside")
    await storage.roots.snapshot(UID, "one", 1)
    assert len(quotas.group_usage(storage.pool.base)) == len(before) + 4
    await storage.roots.delete(UID)
    assert quotas.group_of(UID) not in quotas.group_usage(storage.pool.base)
    await eventually(lambda: settled(storage) == before, timeout_s=40)


def settled(storage):
    btrfs.sync(storage.pool.base)
    storage.pool.settle(at_once=True)
    btrfs.sync(storage.pool.base)
    return set(quotas.group_usage(storage.pool.base))


async def test_creating_again_keeps_the_content_and_sets_the_limit(storage, image):
    root = await storage.roots.create(UID, RootSource(image=image), 32 * MIB, "web")
    (root / "data").write_text("kept")
    (root / "etc/hostname").write_text("renamed-inside\n")
    await storage.roots.create(UID, RootSource(image=image), 64 * MIB, "web")
    assert (root / "data").read_text() == "kept"
    assert (root / "etc/hostname").read_text() == "renamed-inside\n"
    btrfs.sync(storage.pool.base)
    later = make_storage(storage.pool.base.parent)
    await later.roots.setup()
    assert later.roots.usage()[UID].limit_bytes == 64 * MIB


async def test_an_image_that_is_not_held_is_not_found_and_leaves_nothing(storage):
    with pytest.raises(NotFound, match="not held"):
        await storage.roots.create(UID, RootSource(image=Digest("sha256:" + "0" * 64)), MIB, "web")
    assert await storage.roots.all() == []


@pytest.mark.parametrize("uid", ["../images", "", ".", f"{UID}/x", UID.upper(), f"{UID}\n"])
async def test_a_uid_that_is_no_uuid_never_becomes_a_path(storage, uid):
    for act in (
        storage.roots.delete(Uid(uid)),
        storage.roots.exists(Uid(uid)),
        storage.roots.limit(Uid(uid), MIB),
        storage.roots.create(Uid(uid), RootSource(image=Digest("sha256:" + "0" * 64)), MIB, "web"),
    ):
        with pytest.raises(InvalidInput):
            await act


async def test_the_hostname_is_never_written_on_the_host(storage, image, tmp_path):
    """An image can't have such an /etc; a root that was made otherwise still must not lead us out."""
    outside = tmp_path / "outside"
    outside.mkdir()
    held = storage.pool.images / image.removeprefix("sha256:") / "root"
    btrfs.snapshot(held, storage.pool.roots, f".{UID}")
    partial = storage.pool.roots / f".{UID}"
    for path in (partial / "etc").iterdir():
        path.unlink()
    (partial / "etc").rmdir()
    (partial / "etc").symlink_to(outside)
    with pytest.raises(InvalidInput, match="no plain folder"):
        await storage.roots.create(UID, RootSource(image=image), 32 * MIB, "web")
    assert list(outside.iterdir()) == []


async def test_a_hostname_that_is_a_symlink_is_replaced(storage, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    link = Member("etc/hostname", kind=b"2", target=str(victim))
    digest = (await storage.images.add(stream(tar_of((*BASE, link))))).digest
    root = await storage.roots.create(UID, RootSource(image=digest), 32 * MIB, "web")
    assert victim.read_text() == "untouched"
    assert (root / "etc/hostname").read_text() == "web\n"
    assert not (root / "etc/hostname").is_symlink()
