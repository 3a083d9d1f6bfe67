"""The nouns of verack as frozen values. Wire messages stay at the edges; `veapi.codec` translates.

Units: memory and disk in bytes, CPU in thousandths of a core, times in seconds. Wall-clock times (`*_at`) are Unix
seconds and for people only; nothing decides by them.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import NewType

import msgspec

Uid = NewType("Uid", str)
"""Identity of a VE: a lower-case UUID, safe in paths, argument lists and cgroup names."""
HostName = NewType("HostName", str)
Digest = NewType("Digest", str)
"""`sha256:` and 64 hex digits: the identity of an image (of its uncompressed tar, or of its OCI manifest)."""

EVENTS_KEPT = 20


class Run(StrEnum):
    """What the user wants of a VE."""

    RUNNING = "running"
    STOPPED = "stopped"
    FROZEN = "frozen"


class OnHostLoss(StrEnum):
    """What happens to a VE whose host is lost."""

    STAY = "stay"


class VEState(StrEnum):
    """State of a VE as an operator reads it. PENDING, UNKNOWN and DELETED are computed, never stored."""

    PENDING = "Pending"
    CREATING = "Creating"
    RUNNING = "Running"
    FROZEN = "Frozen"
    STOPPED = "Stopped"
    DELETING = "Deleting"
    DELETED = "Deleted"
    FAILED = "Failed"
    UNKNOWN = "Unknown"
    MIGRATING = "Migrating"


class HostState(StrEnum):
    """Whether a host's heartbeats arrive. UNKNOWN: not heard of since this controller began to lead."""

    READY = "Ready"
    SILENT = "Silent"
    UNKNOWN = "Unknown"


class EventType(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


class Action(Enum):
    """What a host shall do with a VE of its set."""

    RUN = "run"
    STOP = "stop"
    RELEASE = "release"
    PURGE = "purge"
    FREEZE = "freeze"
    KEEP = "keep"


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all values here: frozen, compared by content, keyword-only."""


class Resources(Value, frozen=True, kw_only=True):
    """An amount of each resource that is placed by."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    pids: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(
            cpu_millis=self.cpu_millis + other.cpu_millis,
            memory_bytes=self.memory_bytes + other.memory_bytes,
            disk_bytes=self.disk_bytes + other.disk_bytes,
            pids=self.pids + other.pids,
        )

    def __or__(self, other: "Resources") -> "Resources":
        """The larger of each."""
        return Resources(
            cpu_millis=max(self.cpu_millis, other.cpu_millis),
            memory_bytes=max(self.memory_bytes, other.memory_bytes),
            disk_bytes=max(self.disk_bytes, other.disk_bytes),
            pids=max(self.pids, other.pids),
        )


class Limits(Value, frozen=True, kw_only=True):
    """All that the kernel holds a VE to. Weights: 0 is the default (cpu: 100 per core; io: 100); rates: 0 is no limit.

    `cpu_weight` 1 to 10000, `io_weight` 1 to 1000; `io_*_bps` in bytes a second, `net_*_bps` in bits a second; `swap_bytes` on
    top of the memory.
    """

    cpu_millis: int = 0
    cpu_weight: int = 0
    memory_bytes: int = 0
    swap_bytes: int = 0
    pids: int = 0
    disk_bytes: int = 0
    io_weight: int = 0
    io_read_bps: int = 0
    io_write_bps: int = 0
    net_in_bps: int = 0
    net_out_bps: int = 0


class Spec(Value, frozen=True, kw_only=True):
    """What was asked of a VE. Empty `ip` or `host`: the controller chooses. Units: as in `Limits`.

    `env` and `command`: over those of the image. `require` to `spread`: wishes, in the words of `veapi.wishes`.
    """

    image: str
    cpu_millis: int
    memory_bytes: int
    disk_bytes: int
    pids: int
    run: Run = Run.RUNNING
    ip: str = ""
    host: str = ""
    on_host_loss: OnHostLoss = OnHostLoss.STAY
    cpu_weight: int = 0
    swap_bytes: int = 0
    io_weight: int = 0
    io_read_bps: int = 0
    io_write_bps: int = 0
    net_in_bps: int = 0
    net_out_bps: int = 0
    snapshot_schedule: str = ""
    env: Mapping[str, str] = {}
    command: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    tolerate: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    priority: int = 0

    @property
    def limits(self) -> Limits:
        """What its host holds it to."""
        return Limits(
            cpu_millis=self.cpu_millis,
            cpu_weight=self.cpu_weight,
            memory_bytes=self.memory_bytes,
            swap_bytes=self.swap_bytes,
            pids=self.pids,
            disk_bytes=self.disk_bytes,
            io_weight=self.io_weight,
            io_read_bps=self.io_read_bps,
            io_write_bps=self.io_write_bps,
            net_in_bps=self.net_in_bps,
            net_out_bps=self.net_out_bps,
        )

    @property
    def request(self) -> Resources:
        """What it takes of a host."""
        return Resources(
            cpu_millis=self.cpu_millis,
            memory_bytes=self.memory_bytes,
            disk_bytes=self.disk_bytes,
            pids=self.pids,
        )


class Event(Value, frozen=True, kw_only=True):
    """Something that happened to a VE, for people. `at` in Unix seconds."""

    at: float
    type: EventType
    reason: str
    message: str
    host: str = ""


class RootWish(Value, frozen=True, kw_only=True):
    """What a root shall be made of; made anew when `seq` is higher than that of the root that is there.

    Neither `from_uid` nor `snapshot`: the VE's image. Only `snapshot`: its own. `from_uid`: another VE of the host, its snapshot
    or its live root.
    """

    seq: int = 0
    from_uid: Uid = Uid("")
    snapshot: str = ""


class SnapshotWish(Value, frozen=True, kw_only=True):
    """A snapshot to take (once: `seq` counts them) and keep, or to remove. `rule`: of the schedule that asked for it."""

    tag: str
    seq: int
    created_at: float
    rule: str = ""
    deleting: bool = False


class SnapshotStatus(Value, frozen=True, kw_only=True):
    """A snapshot as its host has it, or (with `error`) why it has not."""

    tag: str
    seq: int
    taken_at: float
    size_bytes: int = 0
    error: str = ""


class VE(Value, frozen=True, kw_only=True):
    """The desired VE: content of ve/spec/<uid>. `purge`: its deletion keeps nothing. `snapshot_seq`: the last one given.

    `run_generation`: that at which its user last said that it shall run; 0: as it was created.
    """

    uid: Uid
    name: str
    project: str
    labels: Mapping[str, str]
    generation: int
    spec: Spec
    created_at: float
    delete_requested_at: float | None = None
    restart_seq: int = 0
    stop_timeout_s: float = 30.0
    image_digest: Digest = Digest("")
    ip: str = ""
    mac: str = ""
    op_id: str = ""
    request_id: str = ""
    root: RootWish = RootWish()
    snapshots: tuple[SnapshotWish, ...] = ()
    snapshot_seq: int = 0
    purge: bool = False
    run_generation: int = 0


class Stay(Value, frozen=True, kw_only=True):
    """A time that a VE spent on a host. `message`: why it went there; `ended`: why it left."""

    host: HostName
    generation: int
    began_at: float
    ended_at: float
    message: str = ""
    ended: str = ""


class Placement(Value, frozen=True, kw_only=True):
    """Where a VE goes: content of ve/placement/<uid>. `generation` counts starts on a new host, from 1.

    `past`: where it was before, oldest first. `waited_since`: when it was first refused for `waited_for`; 0: it was not.
    """

    host: HostName
    generation: int
    decided_at: float
    message: str = ""
    op_id: str = ""
    past: tuple[Stay, ...] = ()
    waited_since: float = 0.0
    waited_for: str = ""


class VEStatus(Value, frozen=True, kw_only=True):
    """What a host observed of a VE: content of ve/status/<uid>. `cpus`: those it may use, e.g. "0,2-3".

    `disk_used_bytes` (root and snapshots) is only said of one that is deleted and kept: usage never passes the store.
    `observed_snapshot_seq`: wishes for snapshots up to it are answered; what is not among `snapshots` then is not there.
    `in_force`: the most that its host may hold it to now; until a shrink is carried out, the old amount.
    """

    state: VEState
    reason: str = ""
    message: str = ""
    host: str = ""
    addresses: tuple[str, ...] = ()
    started_at: float | None = None
    restarts: int = 0
    observed_generation: int = 0
    placement_generation: int = 0
    observed_restart_seq: int = 0
    init_pid: int = 0
    events: tuple[Event, ...] = ()
    oom_kills: int = 0
    cpus: str = ""
    disk_used_bytes: int = 0
    observed_root_seq: int = 0
    snapshots: tuple[SnapshotStatus, ...] = ()
    observed_snapshot_seq: int = 0
    in_force: Resources = Resources()


class Deleted(Value, frozen=True, kw_only=True):
    """A VE that was deleted and whose root its host keeps: content of ve/deleted/<uid>.

    `purging`: the host is to remove it. `disk_used_bytes` counts in the host's ledger.
    """

    ve: VE
    placement: Placement
    deleted_at: float
    purge_at: float
    purging: bool = False
    disk_used_bytes: int = 0
    snapshots: tuple[SnapshotStatus, ...] = ()
    op_id: str = ""


class ImageConfig(Value, frozen=True, kw_only=True):
    """What an image says of the program that a VE of it runs; all of it empty: /sbin/init as root.

    `user`: a name or number of the image, with or without :group.
    """

    command: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    user: str = ""
    cwd: str = ""


class Prefetch(Value, frozen=True, kw_only=True):
    """Hosts that hold an image beside those that it is kept on: all that match the selector, and those named."""

    selector: str = ""
    hosts: tuple[HostName, ...] = ()


class HeldImage(Value, frozen=True, kw_only=True):
    """An image that a host holds. What hosts say of themselves is without `config`."""

    digest: Digest
    blob_digest: str
    size_bytes: int
    blob_bytes: int
    config: ImageConfig = ImageConfig()


class HostFacts(Value, frozen=True, kw_only=True):
    """What a host says of itself: content of host/status/<name>. `metrics_address` is host:port.

    `refuses`: why it takes no new VEs now; empty when it does.
    """

    boot_id: str
    version: str
    labels: Mapping[str, str]
    capacity: Resources
    address: str
    peer_port: int
    metrics_address: str = ""
    images: tuple[HeldImage, ...] = ()
    refuses: str = ""


class HostSpec(Value, frozen=True, kw_only=True):
    """What operators say of a host: content of host/spec/<name>. `taints` in the words of `veapi.wishes`."""

    taints: tuple[str, ...] = ()
    op_id: str = ""


class Image(Value, frozen=True, kw_only=True):
    """Content of image/digest/<digest>."""

    digest: Digest
    blob_digest: str
    size_bytes: int
    blob_bytes: int
    created_at: float
    config: ImageConfig = ImageConfig()
    prefetch: Prefetch = Prefetch()
    op_id: str = ""


class Project(Value, frozen=True, kw_only=True):
    name: str
    created_at: float
    op_id: str = ""


class Timing(Value, frozen=True, kw_only=True):
    """The cluster's one record of times, in seconds (DESIGN 6): H, F, K and M."""

    heartbeat_s: float = 1.0
    fence_after_s: float = 8.0
    kill_within_s: float = 2.0
    move_after_s: float = 12.0


class Network(Value, frozen=True, kw_only=True):
    """The overlay network of the VEs. The gateway has the same address and MAC on every host."""

    name: str = "default"
    cidr: str = "10.66.0.0/16"
    gateway: str = "10.66.0.1"
    gateway_mac: str = "02:00:5e:00:53:01"
    vxlan_id: int = 77
    vxlan_port: int = 4789


class Cluster(Value, frozen=True, kw_only=True):
    """Content of cluster/config."""

    name: str
    incarnation: int = 1
    timing: Timing = Timing()
    network: Network = Network()


class Order(Value, frozen=True, kw_only=True, order=True):
    """Orders the sets of a host: the older loses."""

    incarnation: int = 0
    epoch: int = 0
    revision: int = 0


class SetEntry(Value, frozen=True, kw_only=True):
    """One VE of a host's set. `run_generation`: what its guest switched off at this generation or later stays off."""

    uid: Uid
    name: str
    project: str
    action: Action
    spec: Spec
    generation: int
    placement_generation: int
    restart_seq: int
    stop_timeout_s: float
    image_digest: Digest
    ip: str
    mac: str
    labels: Mapping[str, str] = {}
    root: RootWish = RootWish()
    snapshots: tuple[SnapshotWish, ...] = ()
    run_generation: int = 0


class PeerHost(Value, frozen=True, kw_only=True):
    name: str
    address: str


class WantedImage(Value, frozen=True, kw_only=True):
    """An image of a host's set. `spare`: it holds it and need not, as enough others do or it was deleted."""

    digest: Digest
    blob_digest: str
    spare: bool = False


class HostSet(Value, frozen=True, kw_only=True):
    """All that a host shall have. Absence of an entry destroys nothing."""

    order: Order
    entries: tuple[SetEntry, ...]
    peers: tuple[PeerHost, ...] = ()
    network: Network = Network()
    images: tuple[WantedImage, ...] = ()


class VEReport(Value, frozen=True, kw_only=True):
    """What an agent reports of one VE. `gone`: nothing of it is left; `orphan`: no set names it.

    `kept`: it is down, and root and record are kept as asked. `entry`: of an orphan, the last that was asked of it.
    """

    uid: Uid
    name: str
    project: str
    status: VEStatus
    gone: bool = False
    orphan: bool = False
    kept: bool = False
    entry: SetEntry | None = None
