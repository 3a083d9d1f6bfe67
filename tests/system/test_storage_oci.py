"""OCI images: what the manifest's digest proves is held, whatever else is in a layout is refused or of no effect."""

import itertools
import stat
import tarfile
from pathlib import Path

import pytest

from kit.hostile import escapes, is_device
from kit.oci import Layout, digest_of
from kit.ociimages import ROOT, RUN, add, assert_nothing_is_left, root_of, tree
from kit.storage import (
    BASE,
    MIB,
    Member,
    everything_below,
    folder,
    link,
    make_storage,
    pack,
    storage_folder,
    stream,
    tar_of,
)
from veagent.storage.images import ImageLimits
from veapi.errors import InvalidInput
from veapi.model import Digest, ImageConfig


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


@pytest.mark.parametrize("packed", [["cat"], ["gzip", "-c"], ["zstd", "-c", "-q"]])
async def test_a_layout_is_held_by_its_manifests_digest_with_what_it_runs(storage, packed):
    layout = Layout()
    digest = layout.add_image([ROOT], run=RUN)
    blob = pack(layout.tar(), *packed)
    image = await storage.images.add(stream(blob))
    assert (image.digest, image.blob_digest, image.size_bytes) == (
        digest,
        digest_of(blob),
        len(ROOT),
    )
    wanted = ImageConfig(
        command=("/bin/app", "two words", "serve"),
        env={"A": "1", "B": "x=y"},
        user="web",
        cwd="/srv",
    )
    assert image.config == wanted
    assert storage.images.config(image.digest) == wanted
    assert list(storage.pool.tmp.iterdir()) == []
    assert {path.name for path in root_of(storage, digest).parent.iterdir()} >= {"blob", "root"}


async def test_its_blob_makes_the_same_image_elsewhere_and_after_a_restart(place, storage):
    layout = Layout()
    digest = Digest(layout.add_image([ROOT], run=RUN))
    image = await storage.images.add(stream(layout.tar()))
    again = make_storage(place)
    await again.images.setup()
    assert again.images.held() == (image,)
    blob = b"".join([piece async for piece in again.images.read_blob(digest)])
    await again.images.delete(digest)
    assert await again.images.add(stream(blob), expect=digest) == image


async def test_without_an_init_it_needs_a_command(storage):
    bare = tar_of((folder("etc"), folder("bin"), Member("bin/app", b"x", mode=0o755)))
    with pytest.raises(InvalidInput, match="no /sbin/init"):
        await add(storage, bare)
    assert_nothing_is_left(storage)
    root = await add(storage, bare, run={"Cmd": ["/bin/app"]})
    assert (root / "proc").is_dir()


async def test_layers_replace_add_and_take_away(storage):
    below = (
        *BASE,
        *(folder("kept"), Member("kept/old", b"old"), Member("gone", b"g")),
        *(folder("emptied"), Member("emptied/a", b"a"), folder("emptied/b")),
        *(folder("to-file"), folder("to-file/deep"), Member("to-file/deep/x", b"x")),
        *(Member("to-folder", b"f"), link("link-to-folder", "kept"), Member("to-link", b"l")),
        *(folder("tree"), folder("tree/gone"), Member("tree/gone/x", b"x"), Member("tree/y", b"y")),
    )
    above = (
        *(folder("kept"), Member("kept/new", b"new"), Member(".wh.gone")),
        *(folder("emptied"), Member("emptied/.wh..wh..opq"), Member("emptied/c", b"c")),
        *(Member("to-file", b"now"), folder("to-folder"), Member("to-folder/in", b"in")),
        *(folder("link-to-folder"), Member("link-to-folder/z", b"z"), link("to-link", "kept")),
        *(folder("tree"), Member("tree/.wh.gone"), Member("tree/.wh.never-there")),
        Member(".wh..wh.plnk"),
    )
    root = await add(storage, tar_of(below), tar_of(above))
    assert tree(root) == {
        "kept": "/",
        "kept/old": "old",
        "kept/new": "new",
        "emptied": "/",
        "emptied/c": "c",
        "to-file": "now",
        "to-folder": "/",
        "to-folder/in": "in",
        "link-to-folder": "/",
        "link-to-folder/z": "z",
        "to-link": "-> kept",
        "tree": "/",
        "tree/y": "y",
    }


async def test_a_layer_that_takes_all_away_leaves_what_it_brings(storage):
    root = await add(
        storage,
        tar_of((*BASE, Member("old", b"x"), Member(".hidden", b"x"))),
        tar_of((Member(".wh..wh..opq"), *BASE, Member("new", b"n"))),
    )
    assert tree(root) == {"new": "n"}


async def test_a_whiteout_counts_for_lower_layers_only(storage):
    above = tar_of((folder("d"), Member("d/x", b"new"), Member("d/.wh.x"), Member(".wh.d")))
    root = await add(
        storage, tar_of((*BASE, folder("d"), Member("d/x", b"old"), Member("d/y", b"y"))), above
    )
    assert tree(root) == {"d": "/", "d/x": "new"}


async def test_owners_modes_and_links_of_upper_layers_survive(storage):
    above = tar_of(
        (
            folder("bin"),
            Member("bin/su", b"x", mode=0o4755, uid=33),
            Member("bin/hard", kind=tarfile.LNKTYPE, target="bin/su"),
            Member("a\nb \\ 'c' \"d\"", b"odd"),
            Member("-rf", b"dash"),
        )
    )
    root = await add(storage, ROOT, above)
    found = (root / "bin/su").stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_nlink) == (0o4755, 33, 2)
    assert (root / "a\nb \\ 'c' \"d\"").read_text() == "odd"
    assert (root / "-rf").read_text() == "dash"
    assert stat.S_IMODE(root.stat().st_mode) == 0o755


def hostile_layers(outside):
    """Every trick in one upper layer; and one layer that lays the trap, another that walks into it."""
    for name, members in escapes(outside).items():
        yield f"{name}-at-once", [tar_of(members)]
        if len(members) > 1:
            yield f"{name}-in-two", [tar_of(members[:-1]), tar_of(members[-1:])]
    up = "../" * 40 + str(outside).lstrip("/")
    for number, mark in enumerate(
        (
            "..",
            ".wh...",
            ".wh..",
            ".wh.",
            f".wh.{up}/victim",
            f"a/.wh.{up}/victim",
            f"{up}/.wh.victim",
        )
    ):
        yield f"whiteout-{number}", [tar_of((folder("a"), Member(mark)))]
    yield (
        "whiteout-through-link",
        [
            tar_of((link("out", str(outside)),)),
            tar_of((Member("out/.wh.victim"),)),
        ],
    )
    yield (
        "opaque-through-link",
        [
            tar_of((link("out", str(outside)),)),
            tar_of((folder("out"), Member("out/.wh..wh..opq"))),
        ],
    )
    yield (
        "opaque-through-relative-link",
        [
            tar_of((link("out", up),)),
            tar_of((Member("out/.wh..wh..opq"),)),
        ],
    )
    yield "whiteout-is-a-link", [tar_of((link(".wh.x", str(outside)), link(".wh..wh..opq", "/")))]
    yield "whiteout-is-a-folder", [tar_of((folder(".wh.sbin"), link(".wh.sbin/l", str(outside))))]
    yield "deep", [tar_of((Member("d/" * 1500 + ".wh.x"),)), tar_of((Member(".wh.d"),))]


@pytest.mark.parametrize("trick", [name for name, _ in hostile_layers(Path("/nowhere"))])
async def test_hostile_layers_touch_nothing_outside(storage, tmp_path, trick):
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)  # so that only the sandbox stands between
    (outside / "victim").write_text("untouched")
    (outside / "victim").chmod(0o666)
    layers = dict(hostile_layers(outside))[trick]
    before = everything_below(tmp_path / "vstor")
    try:
        root = await add(storage, ROOT, *layers)
        assert [path for path in itertools.islice(root.rglob("*"), 5000) if is_device(path)] == []
        await storage.images.delete(storage.images.held()[0].digest)
    except InvalidInput as refused:
        assert refused.message.isprintable()
    assert everything_below(outside) == {"victim"}
    assert (outside / "victim").read_text() == "untouched"
    assert everything_below(tmp_path / "vstor") == before
    assert "owned" not in everything_below(Path("/usr/bin"))


async def test_folders_that_a_layer_only_implies_stay_as_they_are_below(storage):
    """Layers that are packed by a build tool, or appended by hand, often have no entries for folders above their files."""
    shared = Member("tmp", kind=tarfile.DIRTYPE, mode=0o1777)
    home = Member("home", kind=tarfile.DIRTYPE, mode=0o700, uid=1000)
    merged = (
        folder("usr"),
        folder("usr/lib"),
        Member("usr/lib/ld.so", b"ld"),
        link("lib", "usr/lib"),
    )
    more = (
        Member("tmp/x", b"x"),
        Member("home/y", b"y", uid=1000),
        Member("lib/app/z", b"z"),
        Member("opt/new/w", b"w"),
    )
    root = await add(storage, tar_of((*BASE, shared, home, *merged)), tar_of(more))

    def seen(name: str) -> tuple[int, int]:
        found = (root / name).lstat()
        return stat.S_IMODE(found.st_mode), found.st_uid

    assert seen("tmp") == (0o1777, 0)
    assert seen("home") == (0o700, 1000)
    assert seen("opt") == seen("opt/new") == seen("usr/lib/app") == (0o755, 0)
    assert (root / "lib").is_symlink()
    assert (root / "usr/lib/ld.so").read_text() == "ld"
    assert (root / "usr/lib/app/z").read_text() == "z"


async def test_folders_that_their_owner_can_not_write_to_come_with_any_layer(storage):
    """As build tools keep what they have fetched."""
    sealed = Member("opt/mod", kind=tarfile.DIRTYPE, mode=0o555, uid=7)
    inner = Member("opt/mod/deep", kind=tarfile.DIRTYPE, mode=0o500)
    more = (folder("opt"), sealed, inner, Member("opt/mod/deep/x", b"x", mode=0o444))
    root = await add(storage, ROOT, tar_of(more))
    found = (root / "opt/mod").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o555, 7)
    assert stat.S_IMODE((root / "opt/mod/deep").stat().st_mode) == 0o500
    assert (root / "opt/mod/deep/x").read_text() == "x"
