"""The snapshots of VEs: `snap/<uid>/<seq>/` with `root`, a read-only subvolume, and `meta.json`.

One appears by a rename, after all of it is on disk; what dies before that leaves `snap/<uid>/.<seq>`, which is swept. One goes
by a rename into `tmp/`. The folder `snap/<uid>` also says that the VE lives here while its root is being replaced, and of whom
it is a clone (`origins`).
"""

import contextlib
import os
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import structlog

from veagent.storage import btrfs, devices, quotas
from veagent.storage.pool import BtrfsPool, remove_workspace
from veapi.errors import NotFound
from veapi.model import Digest, ImageConfig, SnapshotStatus, Uid

log = structlog.get_logger()
_DONE = re.compile(r"[1-9][0-9]{0,18}")
_UNDONE = re.compile(r"\.[1-9][0-9]{0,18}")
_PARTIAL = "."
_META_LIMIT_BYTES = 1 << 20
"""The config of an image is part of it, which is at most 64 KiB as it is counted."""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """`generation`: of the file system when it was taken; `written_bytes`: since the snapshot before, 0 when not known.

    `image_digest` and `image_config`: of its root, as the VE may have another by the time that it is restored.
    """

    tag: str
    seq: int
    taken_at: float
    generation: int = 0
    written_bytes: int = 0
    image_digest: Digest = Digest("")
    image_config: ImageConfig = ImageConfig()


class Shelf:
    """All snapshots of the pool. Blocks: call it in a thread. One VE's calls come one after the other."""

    def __init__(self, pool: BtrfsPool) -> None:
        self._pool = pool
        self._known: dict[Uid, Mapping[int, Meta]] = {}
        self._lock = threading.Lock()

    def folder(self, uid: Uid) -> Path:
        return self._pool.snapshots / uid

    def root(self, uid: Uid, seq: int) -> Path:
        return self.folder(uid) / str(seq) / "root"

    def sweep(self) -> None:
        """Removes what was not complete, and reads everything anew."""
        self._known = {}
        for folder in self._folders():
            for entry in _entries(folder):
                if _UNDONE.fullmatch(entry.name):
                    log.info("unfinished snapshot removed", path=entry.path)
                    remove_workspace(Path(entry.path))

    def _folders(self) -> Iterator[Path]:
        for entry in _entries(self._pool.snapshots):
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)

    def metas(self, uid: Uid) -> Mapping[int, Meta]:
        """By number, oldest first; read once, never changed in place."""
        with self._lock:
            known = self._known.get(uid)
            if known is None:
                known = self._known[uid] = dict(sorted(self._read(uid)))
            return known

    def _read(self, uid: Uid) -> Iterator[tuple[int, Meta]]:
        for entry in _entries(self.folder(uid)):
            if _DONE.fullmatch(entry.name) and btrfs.is_subvolume(Path(entry.path) / "root"):
                yield int(entry.name), _read_meta(Path(entry.path), int(entry.name))

    def _note(self, uid: Uid, seq: int, meta: Meta | None) -> None:
        others = {number: other for number, other in self.metas(uid).items() if number != seq}
        with self._lock:
            mine = {} if meta is None else {seq: meta}
            self._known[uid] = dict(sorted({**others, **mine}.items()))

    def find(self, uid: Uid, tag: str) -> Path:
        """The newest of that tag. NotFound with those that there are."""
        found = self.newest(uid, tag)
        if found is None:
            tags = ", ".join(meta.tag for meta in self.metas(uid).values()) or "none"
            raise NotFound(
                f"VE {uid} has no snapshot {tag[:64]!r} on this host",
                hint=f"`vectl snapshot list` shows them; there are: {tags[:400]}",
            )
        return self.root(uid, found.seq)

    def newest(self, uid: Uid, tag: str) -> Meta | None:
        found = [meta for meta in self.metas(uid).values() if meta.tag == tag]
        return found[-1] if found else None

    def reserve(self, uid: Uid) -> None:
        """Says that the VE lives here, whatever becomes of its root."""
        self.folder(uid).mkdir(mode=0o700, exist_ok=True)

    def take(self, uid: Uid, root: Path, draft: Meta) -> Meta:
        """Nothing when that number is there. `draft` has what the kernel does not know."""
        found = self.metas(uid).get(draft.seq)
        if found is not None:
            return found
        self.reserve(uid)
        work = self.folder(uid) / f"{_PARTIAL}{draft.seq}"
        remove_workspace(work)
        work.mkdir(mode=0o700)
        btrfs.snapshot(root, work, "root", read_only=True)
        quotas.join(self._pool.base, btrfs.subvolume_id(work / "root"), quotas.group_of(uid))
        meta = self._measured(uid, root, work / "root", draft)
        devices.write_durably(work / "meta.json", msgspec.json.encode(meta))
        work.rename(self.folder(uid) / str(draft.seq))
        devices.sync_folder(self.folder(uid))
        self._note(uid, meta.seq, meta)
        return meta

    def _measured(self, uid: Uid, root: Path, taken: Path, draft: Meta) -> Meta:
        earlier = [meta.generation for meta in self.metas(uid).values() if meta.seq < draft.seq]
        since = max([btrfs.generations(root).made, *earlier])
        return msgspec.structs.replace(
            draft,
            generation=btrfs.generations(taken).now,
            written_bytes=btrfs.written_since(taken, since),
        )

    def remove(self, uid: Uid, seq: int) -> None:
        """Nothing when it is not there."""
        grave = self._pool.tmp / f"snapshot-{uid}-{seq}-{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):
            (self.folder(uid) / str(seq)).rename(grave)
            self._note(uid, seq, None)
            remove_workspace(grave)

    def remove_all(self, uid: Uid) -> None:
        """The VE lives here no more."""
        for seq in tuple(self.metas(uid)):
            self.remove(uid, seq)
        for entry in _entries(self.folder(uid)):
            remove_workspace(Path(entry.path))
        with contextlib.suppress(FileNotFoundError):
            self.folder(uid).rmdir()
        with self._lock:
            self._known.pop(uid, None)

    def statuses(self, uid: Uid) -> list[SnapshotStatus]:
        """Oldest first."""
        return [status_of(meta) for meta in self.metas(uid).values()]


def status_of(meta: Meta) -> SnapshotStatus:
    return SnapshotStatus(
        tag=meta.tag,
        seq=meta.seq,
        taken_at=meta.taken_at,
        size_bytes=meta.written_bytes,
        image_digest=meta.image_digest,
    )


def _read_meta(folder: Path, seq: int) -> Meta:
    """One that can't be read is shown by its number, so that it can be deleted."""
    try:
        with (folder / "meta.json").open("rb") as file:
            return msgspec.json.decode(file.read(_META_LIMIT_BYTES), type=Meta)
    except (OSError, msgspec.DecodeError) as error:
        log.warning("note of a snapshot can't be read", folder=str(folder), error=str(error))
        return Meta(tag=str(seq), seq=seq, taken_at=folder.stat().st_mtime)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
