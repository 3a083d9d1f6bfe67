"""A VE: what was asked, where it goes, what was observed, what is kept of it."""

from collections.abc import Mapping

from veapi.model.basics import (
    Digest,
    Event,
    HostName,
    Limits,
    OnHostLoss,
    Resources,
    Run,
    Uid,
    Value,
    VEState,
)


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
    """A snapshot as its host has it, or (with `error`) why it has not. `image_digest`: of its root; empty: not noted."""

    tag: str
    seq: int
    taken_at: float
    size_bytes: int = 0
    error: str = ""
    image_digest: Digest = Digest("")


class VE(Value, frozen=True, kw_only=True):
    """The desired VE: content of ve/spec/<uid>. `purge`: its deletion keeps nothing. `snapshot_seq`: the last one given.

    `run_generation`: that at which its user last said that it shall run; 0: as it was created.
    `policy_generation`: that at which on_host_loss changed last.
    `group`: the name of the group that keeps it, with the revision of its template that the VE has; empty: none.
    `planned_host`: the only one that may have it until it has been placed, as the plan that was applied says; empty: any.
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
    policy_generation: int = 0
    group: str = ""
    group_revision: int = 0
    planned_host: str = ""


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
    `root_since`: the generation since which its root counts; what a host has of an earlier one is made anew.
    """

    host: HostName
    generation: int
    decided_at: float
    message: str = ""
    op_id: str = ""
    past: tuple[Stay, ...] = ()
    waited_since: float = 0.0
    waited_for: str = ""
    root_since: int = 0


class VEStatus(Value, frozen=True, kw_only=True):
    """What a host observed of a VE: content of ve/status/<uid>. `cpus`: those it may use, e.g. "0,2-3".

    `disk_used_bytes` (root and snapshots) is only said of one that is deleted and kept: usage never passes the store.
    `observed_snapshot_seq`: wishes for snapshots up to it are answered; what is not among `snapshots` then is not there.
    `in_force`: the most that its host may hold it to now; until a shrink is carried out, the old amount.
    `armed_generation`: the policy_generation under which its host's fence holds it; 0: it does not.
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
    armed_generation: int = 0


class Deleted(Value, frozen=True, kw_only=True):
    """A VE that was deleted and whose root its host keeps: content of ve/deleted/<uid>, and of ve/left/<host>/<uid>.

    `purging`: the host is to remove it. `disk_used_bytes` counts in the host's ledger. `left`: why a VE that lives was moved
    away and left this behind; empty: it was deleted. `unconfirmed`: its host has not said yet that it is down.
    """

    ve: VE
    placement: Placement
    deleted_at: float
    purge_at: float
    purging: bool = False
    disk_used_bytes: int = 0
    snapshots: tuple[SnapshotStatus, ...] = ()
    op_id: str = ""
    left: str = ""
    unconfirmed: bool = False
