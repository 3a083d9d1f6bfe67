"""The btrfs file system that holds the roots of VEs and the images of a host.

Layout below `base`: `ve/<uid>` are roots, `ve/.<uid>` roots that are not complete yet; `snap/<uid>/<seq>/` holds a snapshot
(see `snapshots`), `snap/<uid>/source` tells of whom it is a clone (`origins`); `images/<hex>/` holds `root` (a read-only subvolume), `blob` (as it came) and `meta.json`; `tmp/` is swept
at setup.

Ids on this disk are unshifted, so root of a VE is uid 0 here, and a set-uid file that he makes is set-uid root. That
is why `base` is closed to everybody but root (0700).

A pool is made only once. What is made is noted in a record outside of it (`record`); when the record names a pool and
nothing is there, somebody forgot to mount a disk, and a new empty pool would look as if every VE had been lost.
"""

import asyncio
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

import msgspec
import structlog

from veagent.storage import btrfs, devices, fullness, quotas, space
from veagent.storage.failure import doing
from veagent.storage.origins import Origins
from veagent.storage.threads import to_end
from veagent.storage.tidy import Tidier
from veapi.clock import Clock, SystemClock
from veapi.errors import Conflict, InvalidInput, Unavailable

log = structlog.get_logger()
SMALLEST_BYTES = 256 << 20
_RESERVE_SHARE = 0.05
_RESERVE_LEAST_BYTES = 64 << 20
_SWEEP_ENTRIES = 10_000
_REFUSAL_CACHED_S = 1.0
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PARTIAL = "."
"""Begins the name of a root that is not complete."""


def is_uid(text: str) -> bool:
    """Whether it is a lower-case UUID: only then may it become a part of a path."""
    return _UID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """`path` is the loop file, the device or the folder; `mount` is where a loop file or device is mounted.

    `record`: see the module; by default beside `mount`. `thresholds`: when it takes nothing new any more.
    """

    kind: Literal["loop", "device", "existing"]
    path: Path
    size_bytes: int = 0
    mount: Path | None = None
    record: Path | None = None
    thresholds: fullness.Thresholds = fullness.USUAL

    def __post_init__(self) -> None:
        if self.kind != "existing" and self.mount is None:
            raise InvalidInput(
                f"pool.mount is missing for a pool of kind {self.kind}",
                hint="name the folder at which the pool shall be mounted",
            )
        if self.kind == "loop" and self.size_bytes < SMALLEST_BYTES:
            raise InvalidInput(
                f"pool.size is {self.size_bytes} bytes, less than btrfs needs ({SMALLEST_BYTES})",
                hint='set [pool] size, e.g. "10G"',
            )

    @property
    def base(self) -> Path:
        """Where the layout begins."""
        return self.path if self.mount is None or self.kind == "existing" else self.mount

    @property
    def record_path(self) -> Path:
        return self.record or self.base.with_name(f"{self.base.name}.pool.json")


class PoolRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`file_system` is the UUID of the btrfs."""

    file_system: str
    path: str


class BtrfsPool:
    """Brings the pool up and knows its places. Shared by BtrfsRoots and BtrfsImages."""

    def __init__(self, settings: PoolSettings, *, clock: Clock | None = None) -> None:
        self.settings = settings
        self._clock = clock or SystemClock()
        self.base = settings.base
        self.roots = self.base / "ve"
        self.snapshots = self.base / "snap"
        self.images = self.base / "images"
        self.tmp = self.base / "tmp"
        self._mode: quotas.QuotaMode | None = None
        self._device = ""
        self._refusal = ("", float("-inf"))
        self.origins = Origins(self.snapshots)
        self._tidier = Tidier(self.base, self.uids, self._clock, heirs=self.origins.heirs)
        self._lock = asyncio.Lock()

    @property
    def mode(self) -> quotas.QuotaMode:
        """How limits are counted. Unavailable before setup."""
        if self._mode is None:
            raise Unavailable(
                f"the pool {self.settings.path} is not up", hint="see the log of the agent"
            )
        return self._mode

    def check_up(self) -> None:
        """Unavailable before setup."""
        _ = self.mode

    @property
    def device(self) -> str:
        """The block device (for I/O limits), e.g. /dev/loop3; it changes with each mount. Empty: unknown."""
        return self._device

    async def setup(self) -> None:
        """Brings the pool up; again: nothing. Converges after a death at any point.

        Conflict when the pool that the record names is missing, or another file system is in its place.
        """
        async with self._lock:
            if self._mode is not None:
                return
            with devices.only_one(self.settings.record_path):
                await self._bring_up()
            with doing(f"setting up the pool at {self.base}"):
                self._mode = await to_end(self._prepare)
            log.info("pool is up", base=str(self.base), quotas=self._mode.value)

    async def _bring_up(self) -> None:
        devices.need_programs()
        match self.settings.kind:
            case "loop":
                await self._bring_up_loop()
            case "device":
                await self._bring_up_device()
            case "existing":
                self._check_existing()
            case _ as never:
                assert_never(never)

    async def _bring_up_loop(self) -> None:
        path = self.settings.path
        if not path.exists():
            self._refuse_if_recorded()
            with doing(f"making the pool {path}"):
                await devices.make_file(path, self.settings.size_bytes)
            log.info("pool was made", path=str(path), size_bytes=self.settings.size_bytes)
        else:
            await devices.check_file(path, self.settings.size_bytes)
        self._device = await devices.attach_loop(path)
        await devices.grow_file(path, self._device, self.settings.size_bytes)
        await self._mount()

    async def _bring_up_device(self) -> None:
        device = self.settings.path.resolve()
        if await devices.signature(device) != "btrfs":
            self._refuse_if_recorded()
            await devices.make_on_device(device)
        self._device = str(device)
        await self._mount()

    async def _mount(self) -> None:
        """And takes all of the device, also when a death kept an earlier start from it."""
        await devices.mount(self._device, self.base)
        with doing(f"growing the pool at {self.base}"):
            if await to_end(space.grow, self.base, self._device):
                log.info("pool has grown", base=str(self.base))
            short = await to_end(space.short_of_metadata, self.base)
        if short:
            await devices.give_metadata_room(self.base)

    def _check_existing(self) -> None:
        if not self.base.is_dir():
            self._refuse_if_recorded()
            raise InvalidInput(
                f"pool.path: the folder {self.base} does not exist",
                hint="make it on a btrfs, or use a pool of kind loop",
            )

    def _refuse_if_recorded(self) -> None:
        record = self._record()
        if record is not None:
            raise Conflict(
                f"the pool {record.path} of this host is missing",
                hint="bring it back (is its disk mounted?); if its VEs are really lost, "
                f"remove {self.settings.record_path} and start again",
            )

    def _record(self) -> PoolRecord | None:
        path = self.settings.record_path
        try:
            return msgspec.json.decode(path.read_bytes(), type=PoolRecord)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise Conflict(
                f"{path} can't be read: {error}",
                hint=f"it names the pool of this host; remove it if {self.settings.path} is that pool",
            ) from None

    def _prepare(self) -> quotas.QuotaMode:
        self._keep_record(self._file_system())
        mode = quotas.enable_quotas(self.base)
        self.base.chmod(0o700)
        for folder in (self.roots, self.snapshots, self.images, self.tmp):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._sweep()
        return mode

    def _file_system(self) -> str:
        try:
            return btrfs.file_system_id(self.base)
        except OSError:
            raise InvalidInput(
                f"pool.path: {self.base} is not on btrfs",
                hint="use a folder on a btrfs, or a pool of kind loop",
            ) from None

    def _keep_record(self, file_system: str) -> None:
        found = self._record()
        if found is None:
            wanted = PoolRecord(file_system=file_system, path=str(self.settings.path))
            devices.write_durably(self.settings.record_path, msgspec.json.encode(wanted))
        elif found.file_system != file_system:
            raise Conflict(
                f"{self.settings.path} is another file system than this host's pool was",
                hint=f"bring the right one back, or remove {self.settings.record_path} to take this one",
            )

    def _sweep(self) -> None:
        for number, entry in enumerate(sorted(self.tmp.iterdir())):
            if number >= _SWEEP_ENTRIES:
                return
            remove_workspace(entry)

    def capacity_bytes(self) -> int:
        """Size of the pool less a reserve of 5 % (at least 64 MiB) for its own bookkeeping."""
        found = os.statvfs(self.base)
        size = found.f_blocks * found.f_frsize
        return max(0, size - _reserve_bytes(size))

    def free_bytes(self) -> int:
        found = os.statvfs(self.base)
        return found.f_bavail * found.f_frsize

    def spare_bytes(self) -> int:
        """What may be filled without touching the reserve that running VEs write into."""
        found = os.statvfs(self.base)
        return max(0, self.free_bytes() - _reserve_bytes(found.f_blocks * found.f_frsize))

    def refuses(self) -> str:
        """Why nothing new is taken; empty when it is. Looked at once a second at most."""
        reason, until = self._refusal
        now = self._clock.boot()
        if now >= until:
            reason = fullness.refusal(space.space(self.base), self.settings.thresholds)
            self._refusal = (reason, now + _REFUSAL_CACHED_S)
        return reason

    def check_room(self) -> None:
        """Unavailable when nothing new is taken."""
        self._refusal = ("", float("-inf"))
        if reason := self.refuses():
            raise Unavailable(reason, hint=fullness.HINT)

    def uids(self) -> list[str]:
        """Every VE of which something is here: a root, complete or not, or snapshots."""
        places = (*self.roots.iterdir(), *self.snapshots.iterdir())
        return sorted(filter(is_uid, {place.name.removeprefix(PARTIAL) for place in places}))

    def settle(self, *, at_once: bool = False) -> None:
        """Blocks; called after each change: see `tidy`."""
        self._tidier.settle(at_once=at_once)

    def settle_later(self) -> None:
        """After something was removed; does not wait."""
        self._tidier.later()

    async def release(self) -> None:
        """Unmounts and detaches; for tests and `make down`, when no VE runs. Nothing when the pool is not up."""
        async with self._lock:
            self._mode = None
            self._tidier.stop()
            if self.settings.kind == "existing":
                return
            await devices.unmount(self.base)
            if self.settings.kind == "loop" and self.settings.path.exists():
                await self._detach()

    async def _detach(self) -> None:
        device = await devices.loop_device(self.settings.path)
        if device is not None:
            await devices.detach_loop(device)
        self._device = ""


def remove_workspace(folder: Path) -> None:
    """Removes a subvolume, or a folder of ours with at most one level of them in it. Nothing when it is not there."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
        return
    if not folder.exists():
        return
    if btrfs.is_subvolume(folder):
        quotas.remove_tree(folder.parent, folder.name)
        return
    for entry in sorted(folder.iterdir()):
        if btrfs.is_subvolume(entry) and entry.is_dir():
            quotas.remove_tree(folder, entry.name)
    shutil.rmtree(folder)


def _reserve_bytes(size: int) -> int:
    return max(int(size * _RESERVE_SHARE), _RESERVE_LEAST_BYTES)
