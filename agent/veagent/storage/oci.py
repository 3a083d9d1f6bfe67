"""Reads an OCI image layout that somebody else made: which image is in it, of which layers, and what it runs.

Nothing in it is believed but what its digests prove: the manifest's digest is the image's identity, and it names config and
layers by theirs. Every file is opened beneath the layout without following a link, is read only as far as its
descriptor says, and must be exactly that long. URLs in descriptors are never fetched.
"""

import hashlib
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from veagent.storage import beneath
from veapi import validate
from veapi.errors import InvalidInput
from veapi.model import Digest, ImageConfig

LAYERS_LIMIT = 128
DOCUMENT_LIMIT_BYTES = 4 << 20
_DEPTH_LIMIT = 4
_PIECE_BYTES = 1 << 20
_ENV_LIMIT = 128
_TEXT_LIMIT_BYTES = 16 << 10
_USER_LIMIT = 256
_PATH_LIMIT_BYTES = 4095
_MANIFESTS = frozenset(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_INDEXES = frozenset(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
_CONFIGS = frozenset(
    (
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    )
)
_LAYERS = frozenset(
    (
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    )
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_HINT = "make it anew, e.g. skopeo copy docker://REGISTRY/NAME:TAG oci:FOLDER"


D = TypeVar("D", bound="_Document")


class _Document(msgspec.Struct, frozen=True):
    """Base: what is not known is ignored, as the format demands."""


class _Platform(_Document, frozen=True):
    os: str = ""
    architecture: str = ""


class Descriptor(_Document, frozen=True, rename="camel"):
    """Of a blob: its type, its digest and how long it is."""

    media_type: str
    digest: str
    size: int
    platform: _Platform | None = None


class _Index(_Document, frozen=True):
    manifests: tuple[Descriptor, ...]


class _Manifest(_Document, frozen=True, rename="camel"):
    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = ""


class _Run(_Document, frozen=True, rename="pascal"):
    user: str | None = None
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str | None = None


class _RootFs(_Document, frozen=True):
    diff_ids: tuple[str, ...]


class _Config(_Document, frozen=True):
    os: str
    architecture: str
    rootfs: _RootFs
    config: _Run | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """`path` of a checked file below the layout; `diff_id`: digest of the uncompressed tar in it."""

    path: Path
    diff_id: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class OciImage:
    """`digest` of the manifest; layers from the lowest on."""

    digest: Digest
    config: ImageConfig
    layers: tuple[Layer, ...]


def is_layout(folder: Path) -> bool:
    """Whether the top of an unpacked tree says that it is one."""
    with beneath.opened_root(folder) as fd:
        found = [beneath.look(fd, name) for name in ("oci-layout", "index.json")]
    return all(each is not None and stat.S_ISREG(each.st_mode) for each in found)


def read_layout(folder: Path, *, machine: str = "") -> OciImage:
    """Checks all of it, layers too. InvalidInput, saying what is wrong. `machine` as of uname; empty: this one.

    Nobody may change the layout meanwhile and until the layers are unpacked.
    """
    wanted = _ARCHITECTURES.get(machine or platform.machine(), machine or platform.machine())
    with beneath.opened_root(folder) as fd:
        chosen = _choose(fd, _parsed(_file(fd, "index.json"), _Index, "index.json"), wanted)
        manifest = _parsed(_blob(fd, chosen, "manifest"), _Manifest, "manifest")
        _check_types(manifest)
        config = _parsed(_blob(fd, manifest.config, "config"), _Config, "config")
        _check_config(config, manifest, wanted)
        for layer in manifest.layers:
            _check_layer(fd, layer)
    layers = tuple(
        Layer(folder / _place(layer.digest), diff_id, layer.size)
        for layer, diff_id in zip(manifest.layers, config.rootfs.diff_ids, strict=True)
    )
    return OciImage(Digest(chosen.digest), run_config(config.config or _Run()), layers)


def _choose(fd: int, index: _Index, architecture: str, depth: int = 0) -> Descriptor:
    """The one image for this machine, through indexes of indexes."""
    if depth >= _DEPTH_LIMIT:
        raise _bad(f"its indexes are nested more than {_DEPTH_LIMIT} deep")
    fitting = [each for each in index.manifests if _fits(each, architecture)]
    if len(fitting) != 1:
        raise _not_one(len(fitting), len(index.manifests), architecture)
    found = fitting[0]
    if found.media_type in _MANIFESTS:
        return found
    if found.media_type not in _INDEXES:
        raise _bad(f"it holds {found.media_type[:80]!r}, which is no image")
    inner = _parsed(_blob(fd, found, "index"), _Index, "index")
    return _choose(fd, inner, architecture, depth + 1)


def _fits(descriptor: Descriptor, architecture: str) -> bool:
    found = descriptor.platform
    return found is None or (found.os, found.architecture) == ("linux", architecture)


def _not_one(fitting: int, all_: int, architecture: str) -> InvalidInput:
    if fitting:
        return InvalidInput(
            f"the OCI layout holds {fitting} images for linux/{architecture}",
            hint="give a layout with one: skopeo copy oci:FOLDER:TAG oci:NEW",
        )
    return InvalidInput(
        f"none of the {all_} images of the OCI layout is for linux/{architecture}",
        hint="get the one for this platform, e.g. skopeo copy --override-arch",
    )


def _check_types(manifest: _Manifest) -> None:
    if manifest.config.media_type not in _CONFIGS:
        raise _bad(f"its config is of type {manifest.config.media_type[:80]!r}: it is no image")
    if not 0 < len(manifest.layers) <= LAYERS_LIMIT:
        raise _bad(f"it has {len(manifest.layers)} layers; 1 to {LAYERS_LIMIT} are possible")
    for layer in manifest.layers:
        if layer.media_type not in _LAYERS:
            raise _bad(f"a layer is of type {layer.media_type[:80]!r}, which can't be unpacked")


def _check_config(config: _Config, manifest: _Manifest, architecture: str) -> None:
    if (config.os, config.architecture) != ("linux", architecture):
        raise InvalidInput(
            f"the image is for {config.os[:20]}/{config.architecture[:20]}, the host is linux/{architecture}",
            hint="get the one for this platform, e.g. skopeo copy --override-arch",
        )
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise _bad("its config does not name as many layers as its manifest")


def run_config(run: _Run) -> ImageConfig:
    """InvalidInput for what could not be given to a program."""
    command = (*(run.entrypoint or ()), *(run.cmd or ()))
    env = _environment(run.env or ())
    user, cwd = run.user or "", run.working_dir or ""
    size = sum(len(text.encode()) for text in (*command, *env, *env.values(), user, cwd))
    if size > _TEXT_LIMIT_BYTES:
        raise _bad(f"command and environment have {size} bytes; at most {_TEXT_LIMIT_BYTES}")
    if command:
        validate.command("the image's command", command)
    if any(char in user + cwd for char in "\0\n\r"):
        raise _bad("its user or working directory has a line break")
    if len(user) > _USER_LIMIT or len(cwd.encode()) > _PATH_LIMIT_BYTES or cwd != cwd.strip():
        raise _bad(f"its user {user[:80]!r} or its working directory {cwd[:80]!r} can't be used")
    if cwd and not cwd.startswith("/"):
        raise _bad(f"its working directory {cwd[:80]!r} is not absolute")
    return ImageConfig(command=command, env=env, user=user, cwd=cwd)


def _environment(lines: tuple[str, ...]) -> dict[str, str]:
    """Variables without a name or with a line break in them are refused: a start could not set them."""
    if len(lines) > _ENV_LIMIT:
        raise _bad(f"it sets {len(lines)} environment variables; at most {_ENV_LIMIT}")
    found = {name: value for name, _, value in (line.partition("=") for line in lines)}
    if any(char in value for value in found.values() for char in "\n\r"):
        raise _bad("an environment variable of it has a line break")
    return validate.environment("the image's environment", found)


# --- Files of the layout ----------------------------------------------------------------------------------------------


def _place(digest: str) -> str:
    validate.digest("a digest in the OCI layout", digest)
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


@contextmanager
def _opened(fd: int, path: str) -> Iterator[int]:
    try:
        file = beneath.open_plain(fd, path)
    except OSError:
        raise _bad(f"its {path[:90]} is missing, or no plain file") from None
    try:
        yield file
    finally:
        os.close(file)


def _file(fd: int, path: str) -> bytes:
    with _opened(fd, path) as file:
        data = os.read(file, DOCUMENT_LIMIT_BYTES + 1)
    if len(data) > DOCUMENT_LIMIT_BYTES:
        raise _bad(f"its {path[:90]} is larger than {DOCUMENT_LIMIT_BYTES} bytes")
    return data


def _blob(fd: int, descriptor: Descriptor, what: str) -> bytes:
    """Content of a small blob, checked against its descriptor."""
    data = _file(fd, _place(descriptor.digest))
    if len(data) != descriptor.size:
        raise _wrong_size(what, descriptor, len(data))
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != descriptor.digest:
        raise _wrong_digest(what, descriptor)
    return data


def _check_layer(fd: int, descriptor: Descriptor) -> None:
    with _opened(fd, _place(descriptor.digest)) as file:
        size = os.fstat(file).st_size
        if size != descriptor.size:
            raise _wrong_size("layer", descriptor, size)
        found = hashlib.sha256()
        while piece := os.read(file, _PIECE_BYTES):
            found.update(piece)
    if f"sha256:{found.hexdigest()}" != descriptor.digest:
        raise _wrong_digest("layer", descriptor)


def _parsed(data: bytes, kind: type[D], what: str) -> D:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _bad(f"its {what} can't be read: {error}") from None


def _wrong_size(what: str, descriptor: Descriptor, size: int) -> InvalidInput:
    return _bad(f"the {what} {descriptor.digest[:19]} has {size} bytes, not {descriptor.size}")


def _wrong_digest(what: str, descriptor: Descriptor) -> InvalidInput:
    return _bad(
        f"the {what} {descriptor.digest[:19]} has another digest: it was changed or damaged"
    )


def _bad(what: str) -> InvalidInput:
    words = "".join(c if c.isprintable() else "?" for c in what)
    return InvalidInput(f"the OCI image is not usable: {words}", hint=_HINT)
