"""A death at each step of whatever changes a disk: the next start sweeps, keeps what is whole, and the same call converges."""

import subprocess
from contextlib import suppress

import pytest

from kit.deaths import Died, dying
from kit.storage import MIB, OTHER_UID, UID, make_storage, storage_folder, stream, tar_of
from veagent.ports import RootSource
from veagent.storage import btrfs, quotas

LIMIT = 64 * MIB
MOST_STEPS = 60


@pytest.fixture
def place(tmp_path):
    with storage_folder(tmp_path / "vdie") as folder:
        yield folder


@pytest.fixture(params=["simple", "full"])
async def first(request, place):
    made = make_storage(place)
    await made.roots.setup()
    if request.param == "full":
        call("btrfs", "quota", "disable", place / "pool")
        call("btrfs", "quota", "enable", place / "pool")
        made = make_storage(place)
        await made.roots.setup()
    return made


def call(*argv):
    subprocess.run(argv, check=True, capture_output=True)


@pytest.fixture
async def image(first):
    return (await first.images.add(stream(tar_of()))).digest


async def with_root(roots, image):
    root = await roots.create(UID, RootSource(image=image), LIMIT, "web")
    (root / "mine").write_text("kept")
    return root


async def with_snapshots(roots, image):
    root = await with_root(roots, image)
    btrfs.create_subvolume(root, "inside")
    (root / "inside/x").write_text("x")
    await roots.snapshot(UID, "one", 1)
    await roots.snapshot(UID, "two", 2)


async def without_root(roots, image):
    await with_snapshots(roots, image)
    await roots.drop(UID)


async def nothing(_roots, _image):
    pass


async def create(roots, image):
    await roots.create(UID, RootSource(image=image), LIMIT, "web")


async def restore(roots, image):
    await roots.create(UID, RootSource(image=image, snapshot="one"), LIMIT, "web")


async def clone(roots, image):
    source = RootSource(image=image, from_uid=UID, snapshot="two")
    await roots.create(OTHER_UID, source, LIMIT, "web2")


async def snapshot(roots, _image):
    await roots.snapshot(UID, "three", 3)


async def delete_snapshot(roots, _image):
    await roots.delete_snapshot(UID, 1)


async def drop(roots, _image):
    await roots.drop(UID)


async def delete(roots, _image):
    await roots.delete(UID)


async def picture(storage):
    """All that matters of the pool: what is there, in whose group, with which limit, and that nothing else is."""
    base, roots = storage.pool.base, storage.roots
    members = quotas.all_members(base)
    seen = {}
    for uid in await roots.all():
        group = quotas.group_of(uid)
        root = roots.path(uid)
        here = await roots.exists(uid)
        taken = [(s.seq, s.tag) for s in await roots.snapshots(uid)]
        subvolumes = {
            btrfs.subvolume_id(storage.pool.snapshots / uid / f"{n}/root") for n, _ in taken
        }
        if here:
            subvolumes.add(btrfs.subvolume_id(root))
        assert subvolumes <= members.get(group, set())
        limit = quotas.group_usage(base)[group].limit_bytes if here else None
        files = sorted(path.name for path in root.iterdir()) if here else []
        name = (root / "etc/hostname").read_text() if here else ""
        seen[uid] = (here, taken, limit, files, name)
    assert list(storage.pool.tmp.iterdir()) == []
    names = {path.name for path in storage.pool.base.glob("*/*")} - {"ve", "snap"}
    assert not [name for name in names if name.startswith(".")], names
    assert not list(storage.pool.snapshots.glob("*/.*"))
    levels = [group for group in quotas.group_usage(base) if group >> 48]
    assert sorted(levels) == sorted(map(quotas.group_of, seen))
    return seen


CASES = [
    (nothing, create),
    (without_root, restore),
    (with_snapshots, clone),
    (with_root, snapshot),
    (with_snapshots, snapshot),
    (with_snapshots, delete_snapshot),
    (with_snapshots, drop),
    (with_snapshots, delete),
    (without_root, delete),
]


@pytest.mark.parametrize(
    ("before", "act"), CASES, ids=[f"{act.__name__} {before.__name__}" for before, act in CASES]
)
async def test_a_death_at_any_step_converges(place, first, image, before, act):
    await before(first.roots, image)
    began = await picture(first)
    await act(first.roots, image)
    wanted = await picture(first)
    await back_to(first, before, image)
    for step in range(MOST_STEPS):
        storage = make_storage(place)
        await storage.roots.setup()
        assert await picture(storage) == began
        with dying(step) as deaths, suppress(Died):
            await act(storage.roots, image)
        later = make_storage(place)
        await later.roots.setup()
        assert set(await later.roots.all()) >= set(began) & set(wanted)
        await act(later.roots, image)
        assert await picture(later) == wanted
        if not deaths.died:
            assert step > 2
            return
        await back_to(later, before, image)
    pytest.fail("it never came to its end")


async def back_to(storage, before, image):
    for uid in await storage.roots.all():
        await storage.roots.delete(uid)
    await before(storage.roots, image)


async def test_a_death_while_sweeping_is_swept_by_the_next(place, first, image):
    for step in range(MOST_STEPS):
        await back_to(first, with_snapshots, image)
        leave_remains(first.pool, image)
        with dying(step) as deaths, suppress(Died):
            await make_storage(place).roots.setup()
        last = make_storage(place)
        await last.roots.setup()
        assert (await picture(last))[UID][:2] == (True, [(1, "one"), (2, "two")])
        if not deaths.died:
            return
    pytest.fail("it never came to its end")


def leave_remains(pool, image):
    """A root that was being dropped, with a subvolume inside; a snapshot that was being taken; a group of nobody."""
    held = pool.images / image.removeprefix("sha256:") / "root"
    btrfs.snapshot(held, pool.tmp, "root-left")
    btrfs.create_subvolume(pool.tmp / "root-left", "inside")
    (pool.snapshots / UID / ".3").mkdir()
    btrfs.snapshot(held, pool.snapshots / UID / ".3", "root", read_only=True)
    quotas.make_group(pool.base, quotas.group_of(OTHER_UID))


async def test_what_was_told_survives_a_power_loss(place, first, image):
    """The pool's file is copied while it is mounted: nothing that the kernel still holds back is in the copy."""
    root = await with_root(first.roots, image)
    taken = await first.roots.snapshot(UID, "one", 1)
    (root / "mine").write_text("lost")
    await first.roots.drop(UID)
    await restore(first.roots, image)
    call("cp", "--sparse=always", place / "pool.img", place / "copy.img")
    await first.pool.release()
    (place / "copy.img").replace(place / "pool.img")
    storage = make_storage(place)
    await storage.roots.setup()
    assert await storage.roots.snapshots(UID) == [taken]
    await restore(storage.roots, image)
    assert (root / "mine").read_text() == "kept"
    assert [path.name for path in storage.pool.roots.iterdir()] == [UID]
