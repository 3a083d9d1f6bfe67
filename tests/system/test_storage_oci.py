"""OCI images: what the manifest's digest proves is held, whatever else is in a layout is refused or of no effect."""

import asyncio
import contextlib
import gzip
import itertools
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from kit.eventually import eventually
from kit.hostile import bomb, escapes, is_device
from kit.oci import CONFIG, INDEX, LAYER, MANIFEST, Layout, digest_of, registry
from kit.storage import (
    BASE,
    ID_BASE,
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
from veagent.ports import RegistrySource
from veagent.storage.images import ImageLimits
from veapi.errors import InvalidInput, NotFound, TimedOut, Unavailable, VerackError
from veapi.model import Digest, ImageConfig

ROOT = tar_of(BASE)
RUN = {
    "Entrypoint": ["/bin/app", "two words"],
    "Cmd": ["serve"],
    "Env": ["A=1", "B=x=y"],
    "User": "web",
    "WorkingDir": "/srv",
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


@pytest.fixture
async def small(place):
    limits = ImageLimits(blob_bytes=4 * MIB, unpacked_bytes=16 * MIB, unpack_s=60, stall_s=0.5)
    made = make_storage(place, limits)
    await made.images.setup()
    return made


def root_of(storage, digest):
    return storage.pool.images / digest.removeprefix("sha256:") / "root"


def assert_nothing_is_left(storage):
    assert list(storage.pool.tmp.iterdir()) == []
    assert list(storage.pool.images.iterdir()) == []
    assert storage.images.held() == ()


def tree(root):
    """Every path with its content, link or kind, less what any root gets."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text()
        else:
            found[name] = "/"
    for name in ("dev", "etc", "proc", "run", "sys", "sbin", "sbin/init"):
        found.pop(name, None)
    return found


async def add(storage, *layers, **options):
    layout = Layout()
    digest = layout.add_image(layers, **options)
    image = await storage.images.add(stream(layout.tar()), expect=Digest(digest))
    assert image.digest == digest
    return root_of(storage, digest)


# What is held.


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


# What is refused (B-10).


def broken(change):
    """A layout that `change` gets to spoil: it is called with layout, config's and layer's descriptors."""
    layout = Layout()
    config = layout.put_json(
        {
            "os": "linux",
            "architecture": "amd64",
            "config": {},
            "rootfs": {"diff_ids": [digest_of(ROOT)]},
        },
        CONFIG,
    )
    layer = layout.put(gzip.compress(ROOT, mtime=0), LAYER)
    change(layout, config, layer)
    return layout


def with_layers(*layers, **extra):
    return lambda layout, config, layer: layout.add_manifest(
        config, [{**layer, **each} for each in layers], **extra
    )


def with_config(**content):
    def change(layout, config, layer):
        whole = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest_of(ROOT)]}}
        layout.add_manifest(layout.put_json({**whole, **content}, CONFIG), [layer])

    return change


def damaged(which):
    def change(layout, config, layer):
        layout.add_manifest(config, [layer])
        digest = {"layer": layer, "config": config, "manifest": layout.manifests[0]}[which][
            "digest"
        ]
        path = f"blobs/sha256/{digest.removeprefix('sha256:')}"
        content = layout.files[path]
        layout.files[path] = content[:-1] + bytes([content[-1] ^ 1])

    return change


def loop(layout, config, layer):
    """An index can't hold its own digest: it is as deep as one can make it."""
    layout.add_manifest(config, [layer])
    for _ in range(10):
        inner = {"schemaVersion": 2, "mediaType": INDEX, "manifests": layout.manifests}
        layout.manifests = [layout.put_json(inner, INDEX)]
        layout.index()


def huge_manifest(layout, config, layer):
    layout.add_manifest(config, [layer], annotations={"x": "y" * (10 << 20)})


def two_images(layout, config, layer):
    layout.add_manifest(config, [layer])
    layout.add_manifest(config, [layer], annotations={"other": "1"})


def without_layer(layout, config, layer):
    foreign = {**layer, "urls": ["http://127.0.0.1:1/layer"]}
    layout.add_manifest(config, [foreign])
    del layout.files[f"blobs/sha256/{layer['digest'].removeprefix('sha256:')}"]


REFUSED = {
    "layer-damaged": (damaged("layer"), "layer sha256:.* has another digest"),
    "config-damaged": (damaged("config"), "config sha256:.* has another digest"),
    "manifest-damaged": (damaged("manifest"), "manifest sha256:.* has another digest"),
    "layer-size": (with_layers({"size": 7}), "bytes, not 7"),
    "layer-size-negative": (with_layers({"size": -1}), "bytes, not -1"),
    "layer-type": (with_layers({"mediaType": "application/zip"}), "can't be unpacked"),
    "layer-digest-climbs": (with_layers({"digest": "sha256:../../../etc/passwd"}), "not a digest"),
    "layer-digest-md5": (with_layers({"digest": "md5:" + "0" * 32}), "not a digest"),
    "foreign-layer": (without_layer, "is missing"),
    "no-layers": (with_layers(), "0 layers"),
    "10000-layers": (with_layers(*[{}] * 10_000), "10000 layers"),
    "manifest-10MiB": (huge_manifest, "larger than"),
    "index-in-index": (loop, "nested"),
    "two-images": (two_images, "holds 2 images"),
    "config-type": (
        lambda layout, config, layer: layout.add_manifest(
            {**config, "mediaType": "application/vnd.wasm.config.v1+json"}, [layer]
        ),
        "it is no image",
    ),
    "other-platform": (with_config(architecture="s390x"), "for linux/s390x"),
    "other-system": (with_config(os="windows"), "for windows/"),
    "diff-ids": (with_config(rootfs={"diff_ids": []}), "as many layers"),
    "wrong-diff-id": (with_config(rootfs={"diff_ids": ["sha256:" + "0" * 64]}), "not the one"),
    "env-newline": (with_config(config={"Env": ["A=1\nlxc.x = y"]}), "line break"),
    "env-name": (with_config(config={"Env": ["A B=1"]}), "environment variable"),
    "user-newline": (with_config(config={"User": "root\nx"}), "line break"),
    "cwd-relative": (with_config(config={"WorkingDir": "../x"}), "not absolute"),
    "command-huge": (with_config(config={"Cmd": ["x" * 100_000]}), "at most"),
    "command-nul": (with_config(config={"Cmd": ["a\0b"]}), "NUL"),
    "config-no-json": (
        lambda layout, config, layer: layout.add_manifest(layout.put(b"{", CONFIG), [layer]),
        "can't be read",
    ),
    "config-deep": (
        lambda layout, config, layer: layout.add_manifest(
            layout.put(b"[" * 200_000, CONFIG), [layer]
        ),
        "can't be read",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
async def test_a_layout_that_is_not_what_it_says_is_refused_and_leaves_nothing(storage, case):
    change, words = REFUSED[case]
    with pytest.raises(InvalidInput, match=words) as refused:
        await storage.images.add(stream(broken(change).tar()))
    assert refused.value.hint
    assert refused.value.message.isprintable()
    assert_nothing_is_left(storage)


@pytest.mark.parametrize("path", ["index.json", "blobs", "manifest"])
async def test_links_in_a_layout_are_not_followed(storage, path):
    layout = Layout()
    digest = layout.add_image([ROOT])
    path = f"blobs/sha256/{digest.removeprefix('sha256:')}" if path == "manifest" else path
    members = [each for each in layout.members() if not each.name.startswith(path)]
    members += [Member(f"aside/{each.name}", each.content) for each in layout.members()]
    where = "/" if path == "index.json" else ""
    members.append(link(path, ("../../" if "sha256" in path else "") + f"{where}aside/{path}"))
    with pytest.raises(InvalidInput):
        await storage.images.add(stream(tar_of(members)))
    assert_nothing_is_left(storage)


@pytest.mark.parametrize("packer", [("gzip", "-1", "-c"), ("zstd", "-c", "-q")], ids=["gz", "zst"])
async def test_a_layer_that_is_a_bomb_stops_at_the_limit(small, packer):
    layout = Layout()
    blob = bomb(64 * MIB, *packer)
    layer = layout.put(blob, LAYER)
    config = layout.put_json(
        {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": ["sha256:" + "0" * 64]}},
        CONFIG,
    )
    layout.add_manifest(config, [layer])
    free = small.pool.free_bytes()
    with pytest.raises(InvalidInput, match="unpacks to more than"):
        await small.images.add(stream(layout.tar()))
    assert_nothing_is_left(small)
    assert small.pool.free_bytes() > free - 40 * MIB


async def test_many_layers_together_can_not_be_larger_than_one(small):
    layers = [
        tar_of((*BASE, Member(f"big{number}", os.urandom(1000) * 6000))) for number in range(3)
    ]
    with pytest.raises(InvalidInput, match="unpacks to more than"):
        await add(small, *layers)
    assert_nothing_is_left(small)


# Hostile layers (B-11).


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


def running_as(first_id):
    """Processes of the 65,536 ids from there on."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if first_id <= process.stat().st_uid < first_id + 65_536:
                found.append(process.name)
    return found


# Pulls.


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
    storage.images._room_bytes = lambda: room
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
