"""Snapshots and what is made of them: complete or not there, and paid for by the one limit of their VE."""

import asyncio
import errno
import itertools
import os
import subprocess

import pytest

from kit.eventually import eventually
from kit.manualclock import ManualClock
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
from veagent.ports import RootImage, RootSource
from veagent.storage import btrfs, quotas
from veagent.storage.roots import BtrfsRoots
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.model import ImageConfig, Uid

ID = b"0123456789abcdef0123456789abcdef\n"


@pytest.fixture
def place(tmp_path):
    with storage_folder(tmp_path / "vsnap") as folder:
        yield folder


@pytest.fixture(params=["simple", "full"])
async def storage(request, place):
    made = make_storage(place)
    await made.roots.setup()
    if request.param == "full":
        made = await with_full_qgroups(place)
    elif made.pool.mode is not quotas.QuotaMode.SIMPLE:
        pytest.skip("this kernel has no simple quotas")
    return made


def call(*argv):
    subprocess.run(argv, check=True, capture_output=True)


async def with_full_qgroups(place):
    call("btrfs", "quota", "disable", place / "pool")
    call("btrfs", "quota", "enable", place / "pool")
    made = make_storage(place)
    await made.roots.setup()
    assert made.pool.mode is quotas.QuotaMode.FULL
    return made


@pytest.fixture
async def image(storage):
    members = (*BASE, Member("etc/motd", b"hello\n"), Member("etc/machine-id", ID))
    return (await storage.images.add(stream(tar_of(members)))).digest


def of(image, **where):
    return RootSource(image=image, **where)


def write(path, size_bytes):
    with path.open("wb", buffering=0) as file:
        for _ in range(size_bytes // MIB):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())


def settle(storage):
    """Counts are right: those of full qgroups are read anew after a copy."""
    btrfs.sync(storage.pool.base)
    if storage.pool.mode is quotas.QuotaMode.FULL:
        call("btrfs", "quota", "rescan", "-W", storage.pool.base)
        storage.pool.settle()
        call("btrfs", "quota", "rescan", "-W", storage.pool.base)
    btrfs.sync(storage.pool.base)


async def used(storage, uid=UID):
    settle(storage)
    return await storage.roots.used_bytes(uid)


async def test_a_snapshot_keeps_what_its_image_says_also_over_a_restart(storage, image):
    await storage.roots.create(UID, of(image), 0, "web")
    said = RootImage(image, ImageConfig(command=("/bin/x", "-y"), env={"A": "é" * 20_000}))
    taken = await storage.roots.snapshot(UID, "one", 1, said)
    assert taken.image_digest == image
    again = BtrfsRoots(storage.pool)
    assert await again.image_of(UID, "one") == said
    assert [each.image_digest for each in await again.snapshots(UID)] == [image]
    assert await again.image_of(UID, "two") == RootImage()


async def test_the_limit_holds_for_root_and_snapshots_together(storage, image):
    root = await storage.roots.create(UID, of(image), 40 * MIB, "web")
    write(root / "a", 20 * MIB)
    await storage.roots.snapshot(UID, "one", 1)
    settle(storage)
    (root / "a").unlink()
    write(root / "b", 12 * MIB)
    assert 32 * MIB <= await used(storage) < 33 * MIB
    with pytest.raises(OSError, match="quota") as refused:
        write(root / "c", 12 * MIB)
    assert refused.value.errno == errno.EDQUOT
    (root / "c").unlink()
    await storage.roots.delete_snapshot(UID, 1)
    await eventually(lambda: cleaned(storage) < 13 * MIB, timeout_s=40)
    write(root / "c", 12 * MIB)


def cleaned(storage, uid=UID):
    settle(storage)
    return quotas.group_usage(storage.pool.base)[quotas.group_of(uid)].used_bytes


async def test_the_sum_stays_right_when_the_root_is_replaced_by_a_snapshot_of_its_snapshot(
    storage, image
):
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    write(root / "a", 10 * MIB)
    for seq in range(1, 4):
        await storage.roots.snapshot(UID, f"s{seq}", seq)
        await storage.roots.drop(UID)
        root = await storage.roots.create(UID, of(image, snapshot=f"s{seq}"), 64 * MIB, "web")
        assert (root / "a").stat().st_size == 10 * MIB
    await eventually(lambda: 10 * MIB <= cleaned(storage) < 11 * MIB, timeout_s=40)
    for seq in range(1, 4):
        await storage.roots.delete_snapshot(UID, seq)
    (root / "a").unlink()
    await eventually(lambda: cleaned(storage) < MIB, timeout_s=40)


async def test_scrapes_show_the_sum(storage, image):
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    write(root / "a", 8 * MIB)
    await storage.roots.snapshot(UID, "one", 1)
    (root / "a").unlink()
    write(root / "b", 8 * MIB)
    settle(storage)
    later = make_storage(storage.pool.base.parent)
    await later.roots.setup()
    found = later.roots.usage()[UID]
    assert found.limit_bytes == 64 * MIB
    assert 16 * MIB <= found.used_bytes < 17 * MIB


async def test_a_snapshot_is_read_only_and_keeps_what_was(storage, image):
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    (root / "a").write_text("then")
    taken = await storage.roots.snapshot(UID, "one", 1)
    (root / "a").write_text("now")
    held = storage.pool.snapshots / UID / "1/root"
    assert (held / "a").read_text() == "then"
    with pytest.raises(OSError, match="Read-only"):
        (held / "a").write_text("no")
    assert (taken.tag, taken.seq, taken.error) == ("one", 1, "")


async def test_the_same_number_again_finds_the_snapshot_that_is_there(storage, image):
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    first = await storage.roots.snapshot(UID, "one", 1)
    (root / "new").write_text("x")
    assert await storage.roots.snapshot(UID, "another", 1) == first
    assert not (storage.pool.snapshots / UID / "1/root/new").exists()


async def test_tag_number_and_time_outlive_the_agent(storage, image, place):
    clock = ManualClock()
    earlier = make_storage(place, clock=clock)
    await earlier.roots.setup()
    await earlier.roots.create(UID, of(image), 64 * MIB, "web")
    taken = [await earlier.roots.snapshot(UID, f"s{seq}", seq) for seq in (1, 2, 10)]
    later = make_storage(place)
    await later.roots.setup()
    assert await later.roots.snapshots(UID) == taken
    assert {one.taken_at for one in taken} == {clock.wall()}


async def test_the_size_of_a_snapshot_is_what_was_written_since_the_one_before(storage, image):
    root = await storage.roots.create(UID, of(image), 128 * MIB, "web")
    write(root / "a", 8 * MIB)
    first = await storage.roots.snapshot(UID, "one", 1)
    write(root / "b", 3 * MIB)
    second = await storage.roots.snapshot(UID, "two", 2)
    third = await storage.roots.snapshot(UID, "three", 3)
    await storage.roots.drop(UID)
    root = await storage.roots.create(UID, of(image, snapshot="one"), 128 * MIB, "web")
    write(root / "c", 2 * MIB)
    fourth = await storage.roots.snapshot(UID, "four", 4)
    sizes = [round(one.size_bytes / MIB, 1) for one in (first, second, third, fourth)]
    assert sizes == [8, 3, 0, 2]


async def test_a_deleted_snapshot_is_gone_and_again_is_nothing(storage, image):
    await storage.roots.create(UID, of(image), 64 * MIB, "web")
    for seq in (1, 2):
        await storage.roots.snapshot(UID, f"s{seq}", seq)
    await storage.roots.delete_snapshot(UID, 1)
    await storage.roots.delete_snapshot(UID, 1)
    assert [one.tag for one in await storage.roots.snapshots(UID)] == ["s2"]
    with pytest.raises(NotFound, match="no snapshot 's1'") as missing:
        await storage.roots.create(OTHER_UID, of(image, from_uid=UID, snapshot="s1"), MIB, "x")
    assert "s2" in missing.value.hint


async def test_snapshots_survive_the_loss_of_the_root(storage, image):
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    (root / "a").write_text("then")
    await storage.roots.snapshot(UID, "one", 1)
    await storage.roots.drop(UID)
    await storage.roots.drop(UID)
    assert not await storage.roots.exists(UID)
    assert await storage.roots.all() == [UID]
    later = make_storage(storage.pool.base.parent)
    await later.roots.setup()
    assert [one.tag for one in await later.roots.snapshots(UID)] == ["one"]
    assert later.roots.usage()[UID].limit_bytes == 64 * MIB
    rebuilt = await later.roots.create(UID, of(image), 64 * MIB, "web")
    assert not (rebuilt / "a").exists()
    assert [one.tag for one in await later.roots.snapshots(UID)] == ["one"]
    await later.roots.drop(UID)
    restored = await later.roots.create(UID, of(image, snapshot="one"), 64 * MIB, "renamed")
    assert (restored / "a").read_text() == "then"
    assert (restored / "etc/hostname").read_text() == "renamed\n"
    assert (restored / "etc/machine-id").read_bytes() == ID


@pytest.mark.parametrize("snapshot", ["one", ""])
async def test_a_clone_has_the_content_its_own_names_and_its_own_bill(storage, image, snapshot):
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    write(root / "a", 8 * MIB)
    await storage.roots.snapshot(UID, "one", 1)
    source = of(image, from_uid=UID, snapshot=snapshot)
    clone = await storage.roots.create(OTHER_UID, source, 64 * MIB, "copy")
    assert (clone / "a").stat().st_size == 8 * MIB
    assert (clone / "etc/hostname").read_text() == "copy\n"
    assert (clone / "etc/machine-id").read_bytes() == b""
    assert (root / "etc/machine-id").read_bytes() == ID
    assert await storage.roots.snapshots(OTHER_UID) == []
    before = await used(storage)
    write(clone / "b", 4 * MIB)
    assert await used(storage) == before
    shared = 8 * MIB if storage.pool.mode is quotas.QuotaMode.FULL else 0
    assert 4 * MIB + shared <= await used(storage, OTHER_UID) < 5 * MIB + shared
    await storage.roots.delete(UID)
    assert (clone / "a").stat().st_size == 8 * MIB
    assert await storage.roots.all() == [OTHER_UID]


async def test_a_clone_of_nothing_is_not_found_and_leaves_nothing(storage, image):
    with pytest.raises(NotFound, match="not on this host"):
        await storage.roots.create(OTHER_UID, of(image, from_uid=UID), MIB, "x")
    with pytest.raises(NotFound, match="no snapshot"):
        await storage.roots.create(OTHER_UID, of(image, snapshot="one"), MIB, "x")
    assert await storage.roots.all() == []


async def test_nothing_is_snapshotted_without_a_root(storage):
    with pytest.raises(NotFound, match="no root"):
        await storage.roots.snapshot(UID, "one", 1)
    assert await storage.roots.all() == []


@pytest.mark.parametrize("seq", [0, -1, 1 << 63])
async def test_a_number_that_is_none_never_becomes_a_path(storage, seq):
    for act in (storage.roots.snapshot(UID, "x", seq), storage.roots.delete_snapshot(UID, seq)):
        with pytest.raises(InvalidInput, match="seq"):
            await act


async def test_a_source_that_is_no_uid_never_becomes_a_path(storage, image):
    with pytest.raises(InvalidInput, match="UUID"):
        await storage.roots.create(UID, of(image, from_uid=Uid("../images")), MIB, "x")


@pytest.mark.parametrize("trap", ["folder", "file", "name"])
async def test_a_guest_s_traps_in_etc_never_lead_a_clone_out(storage, image, tmp_path, trap):
    """Root of a VE may make anything of its /etc; the copy of its names is written beneath the root or not at all."""
    outside = tmp_path / "outside"
    outside.mkdir()
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    if trap == "folder":
        (root / "etc").rename(root / "etc.old")
        (root / "etc").symlink_to(outside)
    elif trap == "file":
        (root / "etc/machine-id").unlink()
        (root / "etc/machine-id").symlink_to(outside / "id")
        (root / "etc/.machine-id.new").symlink_to(outside / "id")
    else:
        (root / "etc/hostname").unlink()
        (root / "etc/hostname").mkdir()
    source = of(image, from_uid=UID)
    if trap == "file":
        clone = await storage.roots.create(OTHER_UID, source, 64 * MIB, "copy")
        assert (clone / "etc/hostname").read_text() == "copy\n"
    else:
        with pytest.raises(InvalidInput, match="no plain folder /etc") as refused:
            await storage.roots.create(OTHER_UID, source, 64 * MIB, "copy")
        assert "rebuild" in refused.value.hint
    assert list(outside.iterdir()) == []
    await storage.roots.delete(OTHER_UID)
    assert await storage.roots.all() == [UID]


async def test_a_limit_below_what_is_held_is_refused_with_both_numbers(storage, image):
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    write(root / "a", 20 * MIB)
    await storage.roots.snapshot(UID, "one", 1)
    settle(storage)
    with pytest.raises(Conflict, match=r"hold 20M.*10M") as refused:
        await storage.roots.limit(UID, 10 * MIB)
    assert "snapshots" in refused.value.hint
    await storage.roots.limit(UID, 30 * MIB)
    await storage.roots.limit(UID, 100 * MIB)
    await storage.roots.limit(UID, 0)
    btrfs.sync(storage.pool.base)
    assert storage.roots.usage()[UID].limit_bytes == 0
    with pytest.raises(NotFound):
        await storage.roots.limit(OTHER_UID, MIB)


async def test_a_restore_works_when_snapshots_fill_the_limit(storage, image):
    root = await storage.roots.create(UID, of(image), 20 * MIB, "web")
    write(root / "a", 16 * MIB)
    await storage.roots.snapshot(UID, "one", 1)
    settle(storage)
    with pytest.raises(OSError, match="quota"):
        write(root / "b", 8 * MIB)
        write(root / "c", 8 * MIB)
    await storage.roots.drop(UID)
    restored = await storage.roots.create(UID, of(image, snapshot="one"), 20 * MIB, "web")
    assert (restored / "a").stat().st_size == 16 * MIB
    assert (restored / "etc/hostname").read_text() == "web\n"


async def test_a_root_of_an_earlier_layout_moves_into_its_ve_s_group(storage, image):
    """Once the group was made from the root's number; its members and limit move, what it counted stays."""
    root = await storage.roots.create(UID, of(image), 0, "web")
    base, number = storage.pool.base, btrfs.subvolume_id(root)
    former = number
    quotas.dissolve(base, quotas.group_of(UID))
    if storage.pool.mode is quotas.QuotaMode.SIMPLE:
        former = 1 << 48 | number
        quotas.make_group(base, former)
        quotas.join(base, number, former)
        btrfs.create_subvolume(root, "inside")
    btrfs.limit_group(base, former, 48 * MIB)
    write(root / "a", 8 * MIB)
    later = make_storage(base.parent)
    await later.roots.setup()
    settle(later)
    found = later.roots.usage()[UID]
    assert found.limit_bytes == 48 * MIB
    assert found.used_bytes >= 8 * MIB
    groups = quotas.group_usage(base)
    if later.pool.mode is quotas.QuotaMode.SIMPLE:
        assert former not in groups
        assert len(quotas.members(base, quotas.group_of(UID))) == 2
    else:
        assert groups[former].limit_bytes == 0


async def test_no_group_is_left_of_a_ve_whose_clone_lived_longer(storage, image):
    settle(storage)
    before = set(quotas.group_usage(storage.pool.base))
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    write(root / "a", 4 * MIB)
    await storage.roots.snapshot(UID, "one", 1)
    await storage.roots.create(OTHER_UID, of(image, from_uid=UID), 64 * MIB, "copy")
    await storage.roots.delete(UID)
    await eventually(lambda: groups_of_ves(storage) == {quotas.group_of(OTHER_UID)}, timeout_s=40)
    await storage.roots.delete(OTHER_UID)

    def left():
        btrfs.sync(storage.pool.base)
        storage.pool.settle(at_once=True)
        btrfs.sync(storage.pool.base)
        return set(quotas.group_usage(storage.pool.base)) - before

    await eventually(lambda: not left(), timeout_s=40)


def paid(storage, uid):
    """Once btrfs has cleaned up."""
    settle(storage)
    storage.pool.settle(at_once=True)
    return cleaned(storage, uid)


THIRD_UID = Uid("7e57aaaa-0000-4000-8000-000000000003")


@pytest.mark.parametrize("snapshot", ["one", ""])
async def test_a_clone_pays_for_what_it_holds_of_a_ve_that_is_deleted(storage, image, snapshot):
    """Else who clones a VE and deletes it, again and again, fills the pool, and no limit sees it."""
    uids = [Uid(f"7e57aaaa-0000-4000-8000-{number:012x}") for number in range(1, 5)]
    root = await storage.roots.create(uids[0], of(image), 64 * MIB, "web")
    for earlier, later in itertools.pairwise(uids):
        write(root / f"of-{earlier[-1]}", 8 * MIB)
        if snapshot:
            await storage.roots.snapshot(earlier, "one", 1)
        source = of(image, from_uid=earlier, snapshot=snapshot)
        root = await storage.roots.create(later, source, 20 * MIB, "copy")
        await storage.roots.delete(earlier)
        held = 8 * MIB * uids.index(later)
        await eventually(lambda: held <= paid(storage, later) < held + MIB, timeout_s=40)  # noqa: B023
        if held > 12 * MIB:
            break
    with pytest.raises(OSError, match="quota"):
        write(root / "more", 8 * MIB)
    await storage.roots.delete(later)
    await eventually(lambda: groups_of_ves(storage) == set(), timeout_s=40)


def groups_of_ves(storage):
    settle(storage)
    storage.pool.settle(at_once=True)
    return set(filter(quotas.is_of_a_ve, quotas.group_usage(storage.pool.base)))


@pytest.mark.parametrize("end", ["delete", "drop"])
async def test_no_group_is_left_when_the_clone_goes_before_it_pays(storage, image, end):
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    write(root / "a", 8 * MIB)
    await storage.roots.create(OTHER_UID, of(image, from_uid=UID), 64 * MIB, "copy")
    await storage.roots.delete(UID)
    await (storage.roots.delete(OTHER_UID) if end == "delete" else storage.roots.drop(OTHER_UID))
    left = set() if end == "delete" else {quotas.group_of(OTHER_UID)}
    await eventually(lambda: groups_of_ves(storage) == left, timeout_s=40)


@pytest.mark.parametrize("restarted", [False, True])
async def test_when_the_clone_that_pays_is_deleted_the_next_one_does(storage, image, restarted):
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    write(root / "a", 8 * MIB)
    for clone in (OTHER_UID, THIRD_UID):
        await storage.roots.create(clone, of(image, from_uid=UID), 64 * MIB, "copy")
    await storage.roots.delete(UID)
    await eventually(lambda: paid(storage, OTHER_UID) >= 8 * MIB, timeout_s=40)
    await storage.roots.delete(OTHER_UID)
    if restarted:
        storage = make_storage(storage.pool.base.parent)
        await storage.roots.setup()
    await eventually(lambda: 8 * MIB <= paid(storage, THIRD_UID) < 9 * MIB, timeout_s=40)


async def test_a_clone_that_holds_more_than_its_limit_can_free_and_write_again(storage, image):
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    for name in "abc":
        write(root / name, 8 * MIB)
    clone = await storage.roots.create(OTHER_UID, of(image, from_uid=UID), 10 * MIB, "copy")
    await storage.roots.delete(UID)
    await eventually(lambda: paid(storage, OTHER_UID) >= 24 * MIB, timeout_s=40)
    with pytest.raises(OSError, match="quota"):
        write(clone / "more", MIB)
    for name in ("a", "b", "c"):
        (clone / name).unlink()
    await eventually(lambda: paid(storage, OTHER_UID) < MIB, timeout_s=40)
    write(clone / "more", MIB)


async def test_a_clone_that_is_rebuilt_pays_for_nothing_of_its_source(storage, image):
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    write(root / "a", 8 * MIB)
    for clone in (OTHER_UID, THIRD_UID):
        await storage.roots.create(clone, of(image, from_uid=UID), 64 * MIB, "copy")
    await storage.roots.drop(OTHER_UID)
    await storage.roots.create(OTHER_UID, of(image), 64 * MIB, "copy")
    await storage.roots.delete(UID)
    await eventually(lambda: paid(storage, THIRD_UID) >= 8 * MIB, timeout_s=40)
    assert paid(storage, OTHER_UID) < MIB


async def test_groups_that_btrfs_lets_go_of_late_vanish_without_another_call(place):
    clock = ManualClock()
    storage = make_storage(place, clock=clock)
    await storage.roots.setup()
    image = (await storage.images.add(stream(tar_of()))).digest
    settle(storage)
    before = set(quotas.group_usage(storage.pool.base))
    root = await storage.roots.create(UID, of(image), 64 * MIB, "web")
    write(root / "a", 4 * MIB)
    await storage.roots.snapshot(UID, "one", 1)
    await storage.roots.delete(UID)

    btrfs.sync(storage.pool.base)
    call("btrfs", "subvolume", "sync", storage.pool.base)
    await clock.advance(40)
    await eventually(lambda: set(quotas.group_usage(storage.pool.base)) == before, timeout_s=10)


async def test_many_ves_at_once_do_not_disturb_each_other(storage, image):
    uids = [Uid(f"7e57aaaa-0000-4000-8000-{number:012x}") for number in range(100, 120)]

    async def live(uid):
        await storage.roots.create(uid, of(image), 16 * MIB, "web")
        await storage.roots.snapshot(uid, "one", 1)
        await storage.roots.drop(uid)
        await storage.roots.create(uid, of(image, snapshot="one"), 16 * MIB, "web")
        if uid != uids[0]:
            await storage.roots.delete(uid)

    await asyncio.gather(*map(live, uids))
    assert await storage.roots.all() == uids[:1]
    groups = [group for group in quotas.group_usage(storage.pool.base) if group >> 48]
    assert groups == [quotas.group_of(uids[0])]


async def test_hundreds_of_snapshots_are_listed_from_memory(storage, image, monkeypatch):
    await storage.roots.create(UID, of(image), 64 * MIB, "web")
    for seq in range(1, 201):
        await storage.roots.snapshot(UID, f"s{seq}", seq)
    monkeypatch.setattr(btrfs, "is_subvolume", None)
    assert [one.seq for one in await storage.roots.snapshots(UID)] == list(range(1, 201))
