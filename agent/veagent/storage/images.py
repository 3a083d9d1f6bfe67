"""The images that a host holds: a read-only subvolume each, beside the blob as it came.

An image appears by one rename, after all of it is on disk: whatever dies before leaves only a folder in `tmp/`.
"""

import asyncio
import contextlib
import hashlib
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from veagent.ports import PullProgress, RegistrySource
from veagent.storage import btrfs, devices, layers, oci, rootfs, skopeo, unpack
from veagent.storage.failure import doing
from veagent.storage.pool import BtrfsPool, remove_workspace
from veagent.storage.threads import to_end
from veapi.clock import Clock, SystemClock
from veapi.errors import Conflict, InvalidInput, NotFound, TimedOut
from veapi.model import Digest, HeldImage, ImageConfig

log = structlog.get_logger()
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_PIECE_BYTES = 1 << 20
_ADDS_AT_ONCE = 2
_META_LIMIT_BYTES = 64 << 10
_TOUCH_EVERY_S = 600.0
_SHORT_SHARE = 0.1
MOST_HELD = 900
"""Less than a controller lets a host tell of: beyond that it would not hear the host at all."""
CROWDED = 800


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What one image may take; less when the pool has less room. `stall_s`: longest wait for the next piece."""

    blob_bytes: int = 32 << 30
    unpacked_bytes: int = 64 << 30
    unpack_s: float = 900.0
    stall_s: float = 60.0


def image_folder(images: Path, digest: str) -> Path:
    """Its place; InvalidInput unless the digest is one: it becomes a part of a path."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise InvalidInput(
            f"digest {digest[:80]!r} is not sha256: and 64 hex digits",
            hint="`vectl image list` shows the digests",
        )
    return images / match[1]


class BtrfsImages:
    """Implements `ports.Images`. `id_base`: first of 65,536 host ids for unpacking, of no VE."""

    def __init__(
        self,
        pool: BtrfsPool,
        *,
        id_base: int,
        limits: ImageLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._pool = pool
        self._id_base = id_base
        self._clock = clock or SystemClock()
        self._limits = limits or ImageLimits()
        self._held: dict[Digest, HeldImage] | None = None
        self._readers: Counter[Digest] = Counter()
        # Apart, so that people on slow lines never keep a VE waiting for its image.
        self._uploads = asyncio.Semaphore(_ADDS_AT_ONCE)
        self._fetches = asyncio.Semaphore(_ADDS_AT_ONCE)
        self._changing = asyncio.Lock()

    async def setup(self) -> None:
        """Brings the pool up and reads what it holds; again: reads again."""
        await self._pool.setup()
        self._held = await to_end(read_held, self._pool.images)

    def held(self) -> Sequence[HeldImage]:
        """From memory; read from the pool at the first call. Unavailable while the pool is not up."""
        return tuple(self._known().values())

    def config(self, digest: Digest) -> ImageConfig:
        """See the port."""
        image = self._known().get(digest)
        return image.config if image is not None else ImageConfig()

    def touch(self, digest: Digest) -> None:
        """Noted on disk every ten minutes at most."""
        image = self._known().get(digest)
        idle = self.idle_s(digest)
        if image is not None and (idle is None or idle > _TOUCH_EVERY_S):
            with contextlib.suppress(OSError):
                (image_folder(self._pool.images, digest) / "used").touch(mode=0o600)

    def idle_s(self, digest: Digest) -> float | None:
        """By the wall clock, as it must outlive the host; after a step of that it is wrong, and harms nothing."""
        if digest not in self._known() or self._readers[digest]:
            return None
        used_at = self._used_at(digest)
        return max(0.0, self._clock.wall() - used_at) if used_at is not None else None

    def _used_at(self, digest: Digest) -> float | None:
        folder = image_folder(self._pool.images, digest)
        for name in ("used", "meta.json"):
            with contextlib.suppress(OSError):
                return (folder / name).stat().st_mtime
        return None

    def _again(self, image: HeldImage) -> HeldImage:
        """One that somebody brought who is about to rely on it: it is as new, whatever it was before."""
        with contextlib.suppress(OSError):
            (image_folder(self._pool.images, image.digest) / "used").touch(mode=0o600)
        return image

    def short(self) -> bool:
        """Less than a tenth of it is free beside the reserve, or there are very many images."""
        return (
            len(self._known()) > CROWDED
            or self._pool.spare_bytes() < _SHORT_SHARE * self._pool.capacity_bytes()
        )

    def _known(self) -> dict[Digest, HeldImage]:
        if self._held is None:
            self._pool.check_up()
            self._held = read_held(self._pool.images)
        return self._held

    async def add(self, blob: AsyncIterator[bytes], *, expect: Digest | None = None) -> HeldImage:
        """See the port. An image that is held already is given back; then the blob may not be read at all."""
        if expect is not None:
            image_folder(self._pool.images, expect)
            if expect in self._known():
                return self._again(self._known()[expect])
        slots = self._uploads if expect is None else self._fetches
        async with slots, self._workspace() as work:
            return await self._add(blob, expect, work)

    @asynccontextmanager
    async def _workspace(self) -> AsyncIterator[Path]:
        if len(self._known()) >= MOST_HELD:
            raise Conflict(
                f"this host holds {MOST_HELD} images, and takes no more",
                hint="delete some that nobody uses: `vectl image delete`; their copies go within minutes",
            )
        work = self._pool.tmp / f"image-{secrets.token_hex(8)}"
        try:
            with doing("importing an image"):
                work.mkdir(mode=0o700)
                yield work
        finally:
            with doing("cleaning up after an import"):
                await to_end(remove_workspace, work)

    async def _add(
        self, blob: AsyncIterator[bytes], expect: Digest | None, work: Path
    ) -> HeldImage:
        received = await self._receive(blob, work / "blob")
        async with self._changing:  # one that is on its way out is none
            twin = self._by_blob(received.digest)
            if twin is not None:
                _check_expected(twin.digest, expect)
                return self._again(twin)
        return await self._finish(await self._fill(work), received, expect, work)

    async def pull(
        self, source: RegistrySource, progress: PullProgress, *, timeout_s: float = 1800.0
    ) -> HeldImage:
        """See the port. What is kept, and given to other hosts, is a tar of the OCI layout."""
        async with self._uploads, self._workspace() as work:
            layout = work / "layout"
            await to_end(self._stage, layout, self._room_bytes())
            await skopeo.copy(
                source,
                layout,
                id_base=self._id_base,
                timeout_s=timeout_s,
                stall_s=self._limits.stall_s,
                progress=progress,
            )
            received = await self._receive(skopeo.packed(layout), work / "blob")
            return await self._finish(await self._fill_by_layers(work), received, None, work)

    async def _finish(
        self, filled: "_Filled", received: "_Received", expect: Digest | None, work: Path
    ) -> HeldImage:
        _check_expected(filled.digest, expect)
        image = HeldImage(
            digest=filled.digest,
            blob_digest=received.digest,
            size_bytes=filled.size_bytes,
            blob_bytes=received.size_bytes,
            config=filled.config,
        )
        async with self._changing:
            return await to_end(self._keep, image, work)

    def _room_bytes(self) -> int:
        """What one of those that may be under way at once may fill."""
        return self._pool.spare_bytes() // (2 * _ADDS_AT_ONCE)

    def _by_blob(self, blob_digest: str) -> HeldImage | None:
        return next((i for i in self._known().values() if i.blob_digest == blob_digest), None)

    async def _receive(self, blob: AsyncIterator[bytes], path: Path) -> "_Received":
        """Writes the stream to `path`; hashing and writing happen in a thread, a piece at a time."""
        most = min(self._limits.blob_bytes, self._room_bytes())
        pieces = aiter(blob)
        sink = _Sink(path, most)
        try:
            while True:
                piece = await self._next_piece(pieces)
                if piece is None:
                    return await to_end(sink.finish)
                await to_end(sink.take, piece)
        finally:
            await to_end(sink.close)

    async def _next_piece(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        try:
            async with asyncio.timeout(self._limits.stall_s):
                return await anext(pieces, None)
        except TimeoutError:
            raise TimedOut(
                f"nothing of the image came for {self._limits.stall_s:g} s",
                hint="is the sender still there? start the transfer again",
            ) from None

    async def _fill(self, work: Path) -> "_Filled":
        """Makes `root` of what the blob holds: a root, or the layers of an OCI image."""
        root, bounds = work / "root", self._bounds()
        await to_end(self._stage, root, bounds.most_bytes)
        unpacked = await unpack.unpack(work / "blob", root, bounds)
        if await to_end(oci.is_layout, root):
            root.rename(work / "layout")
            return await self._fill_by_layers(work)
        await to_end(rootfs.check, root)
        return _Filled(unpacked.digest, unpacked.tar_bytes, ImageConfig())

    async def _fill_by_layers(self, work: Path) -> "_Filled":
        """Out of `layout`, which is gone afterwards."""
        image = await to_end(oci.read_layout, work / "layout")
        root, bounds = work / "root", self._bounds()
        await to_end(self._stage, root, bounds.most_bytes)
        size_bytes = await layers.apply(image.layers, root, limits=bounds)
        await to_end(rootfs.check, root, init=not image.config.command)
        await to_end(btrfs.delete_subvolume, work, "layout")
        return _Filled(image.digest, size_bytes, image.config)

    def _bounds(self) -> unpack.Bounds:
        return unpack.Bounds(
            id_base=self._id_base,
            most_bytes=min(self._limits.unpacked_bytes, self._room_bytes()),
            timeout_s=self._limits.unpack_s,
        )

    def _stage(self, tree: Path, room: int) -> None:
        """An empty subvolume that can't hold more than `room` bytes."""
        btrfs.create_subvolume(tree.parent, tree.name)
        tree.chmod(0o755)
        btrfs.limit_group(self._pool.base, btrfs.subvolume_id(tree), room)

    def _keep(self, image: HeldImage, work: Path) -> HeldImage:
        folder = image_folder(self._pool.images, image.digest)
        known = self._known()
        if image.digest in known:
            return self._again(known[image.digest])  # the same tar, packed otherwise
        root = work / "root"
        btrfs.limit_group(self._pool.base, btrfs.subvolume_id(root), None)
        btrfs.set_read_only(root)
        devices.write_durably(work / "meta.json", msgspec.json.encode(image))
        btrfs.sync(work)
        remove_workspace(folder)  # what a death while deleting left
        work.rename(folder)
        devices.sync_folder(folder.parent)
        known[image.digest] = image
        log.info("image is held", digest=image.digest, blob_bytes=image.blob_bytes)
        return image

    async def read_blob(self, digest: Digest) -> AsyncIterator[bytes]:
        """See the port."""
        path = image_folder(self._pool.images, digest) / "blob"
        if digest not in self._known():
            raise _not_held(digest)
        self._readers[digest] += 1
        try:
            with doing(f"reading image {digest}"):
                file = await to_end(path.open, "rb", buffering=0)
                with file:
                    while piece := await to_end(file.read, _PIECE_BYTES):
                        yield piece
        finally:
            self._readers[digest] -= 1
            self.touch(digest)

    async def delete(self, digest: Digest) -> None:
        """Roots made of it live on. Nothing when it is not held, or is brought again before its turn comes."""
        folder = image_folder(self._pool.images, digest)
        used_at = self._used_at(digest)
        async with self._changing:
            if used_at != self._used_at(digest):
                return
            self._known().pop(digest, None)
            with doing(f"deleting image {digest}"):
                await to_end(self._delete, folder)

    def _delete(self, folder: Path) -> None:
        grave = self._pool.tmp / f"deleted-{folder.name}-{secrets.token_hex(4)}"
        try:
            folder.rename(grave)
        except FileNotFoundError:
            return
        remove_workspace(grave)


@dataclass(frozen=True, slots=True)
class _Filled:
    """What a root was made of. `size_bytes` of all tars, uncompressed."""

    digest: Digest
    size_bytes: int
    config: ImageConfig


@dataclass(frozen=True, slots=True)
class _Received:
    digest: str
    size_bytes: int


class _Sink:
    """Writes and hashes; InvalidInput beyond `most` bytes."""

    def __init__(self, path: Path, most: int) -> None:
        self._file = path.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self._size = 0
        self._most = most

    def take(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._most:
            raise InvalidInput(
                f"the image is larger than {self._most} bytes, which is all that this host takes",
                hint="make the image smaller, or free space in the host's pool",
            )
        self._hash.update(piece)
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]

    def finish(self) -> _Received:
        return _Received(f"sha256:{self._hash.hexdigest()}", self._size)

    def close(self) -> None:
        self._file.close()


def read_held(images: Path) -> dict[Digest, HeldImage]:
    """What is complete below `images`; what can't be read is logged and not held."""
    found = {}
    for folder in sorted(images.iterdir()):
        try:
            with (folder / "meta.json").open("rb") as file:
                image = msgspec.json.decode(file.read(_META_LIMIT_BYTES), type=HeldImage)
        except (OSError, msgspec.DecodeError) as error:
            log.warning("image can't be read", folder=str(folder), error=str(error))
            continue
        if image_folder(images, image.digest) == folder and btrfs.is_subvolume(folder / "root"):
            found[image.digest] = image
    return found


def _check_expected(found: Digest, expect: Digest | None) -> None:
    if expect is not None and found != expect:
        raise InvalidInput(
            f"the image is {found}, not {expect} as expected",
            hint="the sender holds another image, or it was damaged on the way",
        )


def _not_held(digest: Digest) -> NotFound:
    return NotFound(
        f"image {digest} is not held by this host",
        hint="`vectl image list` shows which hosts hold it",
    )
