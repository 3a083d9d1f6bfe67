"""What agent and vefence tell each other: three small files of the host's run folder, each replaced as a whole.

`lease`: until when VEs of a fenced policy may run. `list`: which those are; written before one of them is started.
`beat`: that vefence lives, and what of the two it has read. The folder is in memory (/run): what an earlier boot wrote is
gone, and counts for nothing if it is not. Each file has a checksum; what does not fit it is as good as not there.
"""

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

LEASE, LIST, BEAT, WAKE = "lease", "list", "beat", "wake"
MOST_BYTES = 4 << 20
"""No note is longer: 500 VEs take 60 KB."""


@dataclass(frozen=True, slots=True)
class Lease:
    """`deadline`: by the boot clock, in seconds; None: there is none, fencing is off for a while.

    `kill_within_s`: how long killing may take (K). `arming`: the cluster's count of being armed and disarmed that this
    follows. `seq` differs from that of every lease before.
    """

    boot_id: str
    seq: int
    deadline: float | None
    kill_within_s: float
    arming: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """A VE that may not outlive the lease. `device`: its network card on the host; empty: none. `generation`: of the policy."""

    uid: str
    device: str
    generation: int


@dataclass(frozen=True, slots=True)
class KillList:
    """`cgroup_root`: below it, in `ve` and `mon`, are the VEs' and their monitors' groups, as "verack/h1"."""

    boot_id: str
    seq: int
    cgroup_root: str
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True)
class Beat:
    """`at`: boot time. `lease_seq` and `list_seq`: what it goes by; 0: it has none.

    `expired`: it kills. `alive`: those of the list that lived when it had. `kills`: processes since it began, and `cut`
    network cards.
    """

    boot_id: str
    pid: int
    at: float
    lease_seq: int = 0
    list_seq: int = 0
    expired: bool = False
    alive: tuple[str, ...] = ()
    kills: int = 0
    cut: int = 0


Note = Lease | KillList | Beat
T = TypeVar("T", Lease, KillList, Beat)


class Spoilt(ValueError):
    """What is there is no note: torn, rotten, or of another program."""


def encode(note: Note) -> bytes:
    body = json.dumps(asdict(note), separators=(",", ":")).encode()
    return b"%08x\n%s\n" % (zlib.crc32(body), body)


def decode(data: bytes, kind: type[T]) -> T:
    """Spoilt when checksum or fields are wrong."""
    digest, _, rest = data.partition(b"\n")
    body = rest.removesuffix(b"\n")
    if b"%08x" % zlib.crc32(body) != digest:
        raise Spoilt("wrong checksum")
    try:
        fields = json.loads(body)
        if "targets" in fields:
            fields["targets"] = tuple(Target(**each) for each in fields["targets"])
        if "alive" in fields:
            fields["alive"] = tuple(fields["alive"])
        return kind(**fields)
    except (ValueError, TypeError, AttributeError) as error:
        raise Spoilt(str(error)) from None


def replace(path: Path, note: Note) -> None:
    """The old note or the new one, never a part. Not synced: the folder is memory."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_bytes(encode(note))
    beside.replace(path)


def read(path: Path, kind: type[T]) -> T | None:
    """None: there is none. Spoilt, or OSError."""
    try:
        with path.open("rb") as file:
            return decode(file.read(MOST_BYTES), kind)
    except FileNotFoundError:
        return None


class Reader(Generic[T]):
    """One note, read again only when its file is another. What is spoilt or gone leaves what was read before."""

    def __init__(
        self, path: Path, kind: type[T], boot_id: str, *, complain: Callable[[str], None]
    ) -> None:
        self.note: T | None = None
        self._path = path
        self._kind: type[T] = kind
        self._boot_id = boot_id
        self._complain = complain
        self._seen: tuple[int, int, int] | None = None

    def look(self) -> T | None:
        """The newest good one of this boot."""
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                self._seen = seen
                self._take(read(self._path, self._kind))
        except FileNotFoundError:
            self._seen = None
        except (OSError, Spoilt) as error:
            self._complain(f"{self._path.name}: {error}")
        return self.note

    def _take(self, note: T | None) -> None:
        if note is not None and note.boot_id == self._boot_id:
            self.note = note
