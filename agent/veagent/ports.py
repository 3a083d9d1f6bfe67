"""What the agent's core needs of its host, as small Protocols: runtime, roots, images, network.

The core (`reconcile`, `manager`, `session`) knows only these; `main` hands in LXC, btrfs and netlink, or the fakes.
All methods may raise `veapi.errors.VerackError`; its message and hint reach the user. All are idempotent unless they
say otherwise: after a kill at any point the same call again converges.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from veapi.model import Digest, HeldImage, Network, PeerHost, Resources, Uid


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
    """All that a start needs. `id_base` is the first of the VE's own 65,536 host ids."""

    uid: Uid
    hostname: str
    root: Path
    id_base: int
    limits: Resources
    nic: Nic | None
    environment: Mapping[str, str] = field(default_factory=dict)


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


@dataclass(frozen=True, slots=True)
class ExecCommand:
    """A command to run inside. `columns`/`rows` count only with `tty`."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
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

    async def limit(self, uid: Uid, limits: Resources) -> None:
        """Sets cpu, memory and pids of a running VE live; raises Conflict when memory in use does not fit."""
        ...

    async def execute(self, instance: Instance, command: ExecCommand) -> ExecProcess: ...

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


class Roots(Protocol):
    """The root file systems of VEs."""

    async def setup(self) -> None:
        """Brings the pool up (creates and mounts it when it is a loop file that does not exist)."""
        ...

    async def create(self, uid: Uid, image: Digest, disk_bytes: int, hostname: str) -> Path:
        """A writable copy of the image with a limit. NotFound when the image is not held."""
        ...

    def path(self, uid: Uid) -> Path: ...

    async def exists(self, uid: Uid) -> bool: ...

    async def all(self) -> Sequence[Uid]: ...

    async def limit(self, uid: Uid, disk_bytes: int) -> None: ...

    async def delete(self, uid: Uid) -> None:
        """Only after the VE's monitor has ended: btrfs deletes the root of a running VE without a word."""
        ...

    def usage(self) -> Mapping[Uid, DiskUsage]:
        """What each VE wrote, cheap enough for each scrape."""
        ...

    def capacity_bytes(self) -> int:
        """Size of the pool, less its reserve."""
        ...


class Images(Protocol):
    """The images that this host holds."""

    def held(self) -> Sequence[HeldImage]: ...

    async def add(self, blob: AsyncIterator[bytes], *, expect: Digest | None = None) -> HeldImage:
        """Stores, checks and unpacks a blob (tar, plain or gz, xz, zst). A broken one leaves nothing.

        InvalidInput: it is no image, or its digest is not the expected one.
        """
        ...

    def read_blob(self, digest: Digest) -> AsyncIterator[bytes]:
        """The blob as it came, in pieces of at most 1 MiB. NotFound when not held."""
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

    async def detach(self, uid: Uid) -> None: ...

    async def keep_only(self, uids: Sequence[Uid]) -> None:
        """Detaches everything else: what is left from before a crash."""
        ...


class ImageSource(Protocol):
    """Gets an image that this host lacks, from a peer."""

    async def fetch(self, digest: Digest) -> HeldImage: ...
