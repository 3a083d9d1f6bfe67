"""OCI layouts that are not what they say are refused by what is wrong, and leave nothing."""

import os

import pytest

from kit.hostile import bomb
from kit.oci import CONFIG, INDEX, LAYER, Layout, digest_of
from kit.ociimages import ROOT, add, assert_nothing_is_left
from kit.spoiltlayouts import broken, damaged
from kit.storage import BASE, MIB, Member, link, make_storage, storage_folder, stream, tar_of
from veagent.storage.images import ImageLimits
from veapi.errors import InvalidInput


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


def with_layers(*layers, **extra):
    return lambda layout, config, layer: layout.add_manifest(
        config, [{**layer, **each} for each in layers], **extra
    )


def with_config(**content):
    def change(layout, config, layer):
        whole = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest_of(ROOT)]}}
        layout.add_manifest(layout.put_json({**whole, **content}, CONFIG), [layer])

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
