"""Images and roots: the blobs are files, the roots are empty folders. Both survive their agent."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec

from veagent.fake.faults import Faults
from veagent.ports import NO_IMAGE, DiskUsage, PullProgress, RegistrySource, RootImage, RootSource
from veapi.clock import Clock
from veapi.errors import InvalidInput, NotFound, Unavailable
from veapi.model import Digest, HeldImage, ImageConfig, SnapshotStatus, Uid

CAPACITY_BYTES = 1 << 40
_PIECE_BYTES = 1 << 20


class FakeImages(Faults):
    """ports.Images. Any blob is an image; its digest is that of the blob itself."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(clock)
        self._folder = folder
        self._held: dict[Digest, HeldImage] = {}
        self._used: dict[Digest, float] = {}
        self.wants_room = False

    def load(self) -> None:
        """Finds what an earlier run left."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob("*.json")):
            image = msgspec.json.decode(path.read_bytes(), type=HeldImage)
            self._held[image.digest] = image

    def held(self) -> Sequence[HeldImage]:
        return list(self._held.values())

    async def add(self, blob: AsyncIterator[bytes], *, expect: Digest | None = None) -> HeldImage:
        await self.call("add")
        content = b"".join([piece async for piece in blob])
        name = hashlib.sha256(content).hexdigest()
        digest = Digest(f"sha256:{name}")
        if not content or (expect is not None and digest != expect):
            raise InvalidInput("this is not the image that was asked for")
        image = HeldImage(
            digest=digest, blob_digest=digest, size_bytes=len(content), blob_bytes=len(content)
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path(digest).write_bytes(content)
        self._path(digest).with_suffix(".json").write_bytes(msgspec.json.encode(image))
        self._held[digest] = image
        return image

    async def read_blob(self, digest: Digest) -> AsyncIterator[bytes]:
        await self.call("read_blob")
        if digest not in self._held:
            raise NotFound(f"this host does not hold {digest}")
        content = self._path(digest).read_bytes()
        for start in range(0, len(content), _PIECE_BYTES):
            yield content[start : start + _PIECE_BYTES]

    async def pull(self, source: RegistrySource, progress: PullProgress) -> HeldImage:
        """The blob is the reference's text."""
        await self.call("pull")
        content = source.reference.encode()
        await progress(len(content))

        async def blob() -> AsyncIterator[bytes]:
            yield content

        return await self.add(blob())

    def config(self, digest: Digest) -> ImageConfig:
        image = self._held.get(digest)
        return image.config if image is not None else ImageConfig()

    def touch(self, digest: Digest) -> None:
        self._used[digest] = self._clock.boot()

    def idle_s(self, digest: Digest) -> float | None:
        if digest not in self._held:
            return None
        return self._clock.boot() - self._used.setdefault(digest, self._clock.boot())

    def short(self) -> bool:
        return self.wants_room

    async def delete(self, digest: Digest) -> None:
        await self.call("delete")
        self._held.pop(digest, None)
        self._path(digest).with_suffix(".json").unlink(missing_ok=True)
        self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: Digest) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.blob"


class FakeRoots(Faults):
    """ports.Roots, in a folder per VE that holds its limit. One without a limit is a partial root.

    A root holds one word that tells what it was made of, and a guest may write; snapshots are copies of it beside.
    """

    def __init__(self, folder: Path, images: FakeImages, clock: Clock) -> None:
        super().__init__(clock)
        self.hostnames: dict[Uid, str] = {}
        self.full = ""
        """Why no new root can be made; empty: one can."""
        self._folder = folder
        self._images = images
        self._clock = clock

    async def setup(self) -> None:
        await self.call("setup")
        self._folder.mkdir(parents=True, exist_ok=True)

    async def create(self, uid: Uid, source: RootSource, disk_bytes: int, hostname: str) -> Path:
        await self.call("create", uid)
        if not await self.exists(uid):
            if self.full and not self.path(uid).exists():
                raise Unavailable(self.full)
            content = self._content_of(uid, source)
            self.path(uid).mkdir(parents=True, exist_ok=True)
            self.write(uid, content)
        self.hostnames[uid] = hostname
        self._limit_file(uid).write_text(str(disk_bytes))
        return self.path(uid)

    def _content_of(self, uid: Uid, source: RootSource) -> str:
        other = source.from_uid or uid
        if source.snapshot:
            for path in self.path(other).glob("*.snapshot"):
                found = msgspec.json.decode(path.read_bytes(), type=_Snapshot)
                if found.status.tag == source.snapshot:
                    return found.content
            raise NotFound(f"there is no snapshot {source.snapshot} of VE {other}")
        if source.from_uid:
            return self.read(other)
        if source.image not in {held.digest for held in self._images.held()}:
            raise NotFound(f"this host does not hold image {source.image}")
        return source.image

    async def drop(self, uid: Uid) -> None:
        await self.call("drop", uid)
        self._limit_file(uid).unlink(missing_ok=True)
        self._content_file(uid).unlink(missing_ok=True)

    async def snapshot(
        self, uid: Uid, tag: str, seq: int, image: RootImage = NO_IMAGE
    ) -> SnapshotStatus:
        await self.call("snapshot", uid)
        if not await self.exists(uid):
            raise NotFound(f"VE {uid} has no root here")
        if self._snapshot_file(uid, seq).exists():
            return self._snapshot(self._snapshot_file(uid, seq)).status
        status = SnapshotStatus(
            tag=tag, seq=seq, taken_at=self._clock.wall(), image_digest=image.digest
        )
        content = msgspec.json.encode(_Snapshot(status, self.read(uid), image.config))
        self._snapshot_file(uid, seq).write_bytes(content)
        return status

    async def image_of(self, uid: Uid, tag: str) -> RootImage:
        for path in self.path(uid).glob("*.snapshot"):
            found = self._snapshot(path)
            if found.status.tag == tag:
                return RootImage(found.status.image_digest, found.config)
        return NO_IMAGE

    async def delete_snapshot(self, uid: Uid, seq: int) -> None:
        await self.call("delete_snapshot", uid)
        self._snapshot_file(uid, seq).unlink(missing_ok=True)

    async def snapshots(self, uid: Uid) -> Sequence[SnapshotStatus]:
        await self.call("snapshots", uid)
        found = [self._snapshot(path).status for path in self.path(uid).glob("*.snapshot")]
        return sorted(found, key=lambda status: status.seq)

    async def used_bytes(self, uid: Uid) -> int:
        await self.call("used_bytes", uid)
        return len(self.read(uid)) if await self.exists(uid) else 0

    def refuses(self) -> str:
        return self.full

    def path(self, uid: Uid) -> Path:
        return self._folder / uid

    def leave_partial(self, uid: Uid) -> None:
        """What a death in the middle of `create` leaves."""
        self.path(uid).mkdir(parents=True, exist_ok=True)

    def read(self, uid: Uid) -> str:
        """What is in the root. NotFound without one."""
        if not self._content_file(uid).exists():
            raise NotFound(f"VE {uid} has no root here")
        return self._content_file(uid).read_text()

    def write(self, uid: Uid, content: str) -> None:
        """As its guest would."""
        self._content_file(uid).write_text(content)

    async def exists(self, uid: Uid) -> bool:
        return self._limit_file(uid).exists()

    async def all(self) -> Sequence[Uid]:
        """Partial ones too, and those that have only snapshots."""
        return [Uid(path.name) for path in sorted(self._folder.glob("*"))]

    async def limit(self, uid: Uid, disk_bytes: int) -> None:
        """A partial root stays one: only `create` completes it."""
        await self.call("limit", uid)
        if await self.exists(uid):
            self._limit_file(uid).write_text(str(disk_bytes))

    async def delete(self, uid: Uid) -> None:
        await self.call("delete", uid)
        if self.path(uid).exists():
            for path in self.path(uid).iterdir():
                path.unlink()
            self.path(uid).rmdir()

    def usage(self) -> Mapping[Uid, DiskUsage]:
        return {
            Uid(path.parent.name): DiskUsage(0, int(path.read_text()))
            for path in self._folder.glob("*/limit")
        }

    def capacity_bytes(self) -> int:
        return CAPACITY_BYTES

    def _limit_file(self, uid: Uid) -> Path:
        return self.path(uid) / "limit"

    def _content_file(self, uid: Uid) -> Path:
        return self.path(uid) / "content"

    def _snapshot_file(self, uid: Uid, seq: int) -> Path:
        return self.path(uid) / f"{seq}.snapshot"

    @staticmethod
    def _snapshot(path: Path) -> "_Snapshot":
        return msgspec.json.decode(path.read_bytes(), type=_Snapshot)


class _Snapshot(msgspec.Struct, frozen=True):
    status: SnapshotStatus
    content: str
    config: ImageConfig = ImageConfig()
