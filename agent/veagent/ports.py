"""What the agent's core needs of its host, as small Protocols: runtime, roots, images, network.

The core (`reconcile`, `manager`, `session`) knows only these; `main` hands in LXC, btrfs and netlink, or the fakes.
All methods may raise `veapi.errors.VerackError`; its message and hint reach the user. All are idempotent unless they
say otherwise: after a kill at any point the same call again converges.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from veapi.model import (
    Digest,
    HeldImage,
    ImageConfig,
    Limits,
    Network,
    PeerHost,
    SnapshotStatus,
    Uid,
    Value,
)

_NOBODY = Uid("")


class EndKind(Enum):
    """How a VE's init ended, as the runtime saw it. Whether we asked for it is the manager's knowledge."""

    HALT = "halt"
    REBOOT = "reboot"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Ended:
    """`wait_status` as of waitpid(2), None when the kernel can't tell (before 6.15)."""

    kind: EndKind
    wait_status: int | None = None


@dataclass(frozen=True, slots=True)
class Nic:
    """A VE's network card as the runtime shall make it. `device` is its name on the host (at most 15 characters)."""

    bridge: str
    device: str
    mac: str
    address: str
    prefix_length: int
    gateway: str
    mtu: int


@dataclass(frozen=True, slots=True)
class StartPlan:
    """All that a start needs. `id_base` is the first of the VE's own 65,536 host ids.

    `cpus`: the processors that it may use; empty: all. `command`: its init, with `user` (a name or number of the VE, with or
    without :group) and `cwd`; empty: /sbin/init as root.
    """

    uid: Uid
    hostname: str
    root: Path
    id_base: int
    limits: Limits
    nic: Nic | None
    environment: Mapping[str, str] = field(default_factory=dict)
    cpus: tuple[int, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    cwd: str = ""


class Instance(Protocol):
    """A running VE. Its end is an event (pidfd), never polled."""

    @property
    def uid(self) -> Uid: ...

    @property
    def init_pid(self) -> int: ...

    @property
    def started_at(self) -> float:
        """Unix seconds, from the kernel's start time of init: the same after an adoption."""
        ...

    async def ended(self) -> Ended:
        """Waits until init and its monitor are gone and all that the runtime made is released. May be awaited by many."""
        ...

    async def oom_killed(self, *, after: int) -> int:
        """Waits until the kernel has ended more than `after` processes of it for want of memory; gives how many by now."""
        ...


@dataclass(frozen=True, slots=True)
class ExecCommand:
    """A command to run inside. `columns`/`rows` count only with `tty`.

    `user`: a name or number of the VE, with or without :group; empty: root. `cwd`: empty: the user's home, else /.
    `login`: the user's login shell instead of `argv`.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    cwd: str = ""
    login: bool = False
    tty: bool = False
    columns: int = 80
    rows: int = 24
    stdin: bool = False


class Stream(Enum):
    STDOUT = "stdout"
    STDERR = "stderr"


class ExecProcess(Protocol):
    """A command that runs inside a VE. `close` kills what is left of it, also its children that hold the pipes."""

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    def resize(self, columns: int, rows: int) -> None: ...

    def signal(self, number: int) -> None: ...

    def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Until the command has ended; with a tty everything is STDOUT. Pieces of at most 64 KiB."""
        ...

    async def exit_code(self) -> int:
        """The command's; 128 + N when signal N ended it; 126 not executable, 127 not found."""
        ...

    async def close(self) -> None: ...


class Runtime(Protocol):
    """Runs VEs: LXC, or the fake."""

    async def setup(self) -> None:
        """Checks what it needs of the host (programs, cgroups, id ranges); raises with the package's name if missing."""
        ...

    async def adopt(self) -> Sequence[Instance]:
        """Everything of ours that runs now, however it came to run. Leftovers of half-way deaths are removed."""
        ...

    async def start(self, plan: StartPlan) -> Instance:
        """Not idempotent: the caller knows that the VE does not run. A failed start leaves nothing behind."""
        ...

    async def stop(self, instance: Instance, *, timeout_s: float) -> None:
        """Asks init to end, kills it after `timeout_s` (0: at once), returns when all is released."""
        ...

    def holdable(self, limits: Limits) -> Limits:
        """The limits, without those that this host can hold no VE to: a start goes without them, `limit` refuses them."""
        ...

    async def limit(self, uid: Uid, limits: Limits) -> None:
        """Sets all but disk and network of a running VE live; Conflict when what is in use does not fit."""
        ...

    async def pin(self, uid: Uid, cpus: Sequence[int]) -> None:
        """Sets the processors that a running VE may use."""
        ...

    async def freeze(self, uid: Uid) -> None:
        """Returns when nothing of the VE runs any more. Of a frozen one: nothing to do. A stop thaws it."""
        ...

    async def thaw(self, uid: Uid) -> None: ...

    def frozen(self, uid: Uid) -> bool: ...

    async def attach_console(self, instance: Instance, *, columns: int, rows: int) -> ExecProcess:
        """The VE's console, as a process whose end is the detaching; Conflict when somebody else is attached."""
        ...

    async def execute(self, instance: Instance, command: ExecCommand) -> ExecProcess: ...

    def last_end(self, uid: Uid) -> Ended | None:
        """How a VE that does not run ended its last run, also when nobody watched; None when that is not known."""
        ...

    def forget_end(self, uid: Uid) -> None:
        """From here on `last_end` is None, until a VE that is started later has ended. Cheap."""
        ...

    async def forget(self, uid: Uid) -> None:
        """Removes all that the runtime keeps of a VE that does not run: configuration, console log, cgroups."""
        ...

    def console(self, uid: Uid) -> Path:
        """The console's log; may not exist yet."""
        ...

    async def aclose(self) -> None:
        """Releases what this process holds; VEs run on."""
        ...


@dataclass(frozen=True, slots=True)
class DiskUsage:
    used_bytes: int
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class RootSource:
    """What a root is made of: an image; or (with `snapshot`) an own snapshot; or a VE's snapshot or live root."""

    image: Digest
    from_uid: Uid = _NOBODY
    snapshot: str = ""


class RootImage(Value, frozen=True):
    """The image that a root is of, and what that says of the program to run; an empty digest: not known."""

    digest: Digest = Digest("")
    config: ImageConfig = ImageConfig()


NO_IMAGE = RootImage()


class Roots(Protocol):
    """The root file systems of VEs, and their snapshots. Root and snapshots of a VE share its one disk limit."""

    async def setup(self) -> None:
        """Brings the pool up (creates and mounts it when it is a loop file that does not exist)."""
        ...

    async def create(self, uid: Uid, source: RootSource, disk_bytes: int, hostname: str) -> Path:
        """A writable copy of the source with a limit. NotFound when that is not here; Unavailable when the pool is full."""
        ...

    async def drop(self, uid: Uid) -> None:
        """Removes the root alone: snapshots and limit stay. Only of a VE that does not run."""
        ...

    async def snapshot(
        self, uid: Uid, tag: str, seq: int, image: RootImage = NO_IMAGE
    ) -> SnapshotStatus:
        """Takes one, of a running VE too; again with the same number: finds it. `image` is kept with it."""
        ...

    async def image_of(self, uid: Uid, tag: str) -> RootImage:
        """What was kept with the newest snapshot of that tag; nothing when it is not there."""
        ...

    async def delete_snapshot(self, uid: Uid, seq: int) -> None: ...

    async def snapshots(self, uid: Uid) -> Sequence[SnapshotStatus]:
        """Those that are there, oldest first."""
        ...

    async def used_bytes(self, uid: Uid) -> int:
        """What root and snapshots hold together."""
        ...

    def refuses(self) -> str:
        """Why no new root can be made now; empty when one can. Cheap."""
        ...

    def path(self, uid: Uid) -> Path: ...

    async def exists(self, uid: Uid) -> bool: ...

    async def all(self) -> Sequence[Uid]: ...

    async def limit(self, uid: Uid, disk_bytes: int) -> None:
        """Conflict when it holds more than that."""
        ...

    async def delete(self, uid: Uid) -> None:
        """Root, snapshots and limit. Only after the VE's monitor has ended: btrfs deletes the root of a running VE without a word."""
        ...

    def usage(self) -> Mapping[Uid, DiskUsage]:
        """What each VE wrote, cheap enough for each scrape."""
        ...

    def capacity_bytes(self) -> int:
        """Size of the pool, less its reserve."""
        ...


@dataclass(frozen=True, slots=True)
class RegistrySource:
    """`reference` as docker://REGISTRY/NAME:TAG. `insecure`: without TLS too, or with any certificate."""

    reference: str
    insecure: bool = False


PullProgress = Callable[[int], Awaitable[None]]
"""Told how many bytes are there, now and then."""


class Images(Protocol):
    """The images that this host holds."""

    def held(self) -> Sequence[HeldImage]: ...

    async def add(self, blob: AsyncIterator[bytes], *, expect: Digest | None = None) -> HeldImage:
        """Stores, checks and unpacks a blob (tar of a root or of an OCI layout, plain or gz, xz, zst). A broken one leaves nothing.

        InvalidInput: it is no image, or its digest is not the expected one.
        """
        ...

    def read_blob(self, digest: Digest) -> AsyncIterator[bytes]:
        """The blob as it came, in pieces of at most 1 MiB. NotFound when not held."""
        ...

    async def pull(self, source: RegistrySource, progress: PullProgress) -> HeldImage:
        """Fetches one from a registry; its identity is the digest of its OCI manifest. One that is cut leaves nothing."""
        ...

    def config(self, digest: Digest) -> ImageConfig:
        """What the image says of the program to run; empty when it says nothing, or is not held."""
        ...

    def touch(self, digest: Digest) -> None:
        """It is in use now. Cheap; nothing when it is not held."""
        ...

    def idle_s(self, digest: Digest) -> float | None:
        """Seconds since its last use: it came, was given to a peer, or was touched. None when not held, or read now."""
        ...

    def short(self) -> bool:
        """Whether the pool wants room."""
        ...

    async def delete(self, digest: Digest) -> None: ...


class VENetwork(Protocol):
    """The host's part of the overlay."""

    async def setup(self, network: Network, peers: Sequence[PeerHost]) -> None:
        """Bridge, VXLAN, gateway, filters; again with other peers or another network: only the difference."""
        ...

    async def attach(self, uid: Uid, ip: str, mac: str) -> Nic:
        """What a start needs for its card; lets exactly this address through the filters."""
        ...

    async def rate(self, uid: Uid, *, in_bps: int, out_bps: int) -> None:
        """Bits a second into the running VE and out of it; 0: no limit. Quick when it is so already.

        Each start makes a new card without limits, so it is called after starts and adoptions; `detach` forgets it.
        """
        ...

    async def announce(self, uid: Uid) -> None:
        """After a start: all hosts, and this one, learn that the VE's address is here now. Best effort, and quick."""
        ...

    async def detach(self, uid: Uid) -> None: ...

    async def keep_only(self, uids: Sequence[Uid]) -> None:
        """Detaches everything else: what is left from before a crash."""
        ...


class ImageSource(Protocol):
    """Gets an image that this host lacks, from a peer."""

    async def fetch(self, digest: Digest) -> HeldImage: ...
