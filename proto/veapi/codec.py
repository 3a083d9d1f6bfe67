"""Model values to wire messages and back: the only place that knows both."""

from typing import TYPE_CHECKING

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from veapi import model
from veapi.v1 import session_pb2, types_pb2

if TYPE_CHECKING:
    from veapi.v1 import store_pb2


def to_timestamp(seconds: float | None) -> Timestamp | None:
    """None stays None: protobuf takes it as "not set"."""
    if seconds is None:
        return None
    stamp = Timestamp()
    stamp.FromNanoseconds(round(seconds * 1_000_000) * 1_000)
    return stamp


def from_timestamp(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos / 1e9


def resources_out(value: model.Resources) -> types_pb2.Resources:
    return types_pb2.Resources(
        cpu=value.cpu_millis / 1000,
        memory_bytes=value.memory_bytes,
        disk_bytes=value.disk_bytes,
        pids=value.pids,
    )


def resources_in(message: types_pb2.Resources) -> model.Resources:
    return model.Resources(
        cpu_millis=round(message.cpu * 1000),
        memory_bytes=message.memory_bytes,
        disk_bytes=message.disk_bytes,
        pids=message.pids,
    )


def spec_out(value: model.Spec) -> types_pb2.VESpec:
    return types_pb2.VESpec(
        image=value.image,
        cpu=value.cpu_millis / 1000,
        memory_bytes=value.memory_bytes,
        disk_bytes=value.disk_bytes,
        pids=value.pids,
        run=value.run.value,
        ip=value.ip,
        host=value.host,
        on_host_loss=value.on_host_loss.value,
        cpu_weight=value.cpu_weight,
        swap_bytes=value.swap_bytes,
        io_weight=value.io_weight,
        io_read_bps=value.io_read_bps,
        io_write_bps=value.io_write_bps,
        net_in_bps=value.net_in_bps,
        net_out_bps=value.net_out_bps,
        snapshot_schedule=value.snapshot_schedule,
        env=dict(value.env),
        command=value.command,
        require=value.require,
        prefer=value.prefer,
        tolerate=value.tolerate,
        near=value.near,
        apart=value.apart,
        spread=value.spread,
        priority=value.priority,
    )


def spec_in(message: types_pb2.VESpec) -> model.Spec:
    """Trusts the message: it was written by us. What users send goes through `veapi.validate` first."""
    return model.Spec(
        image=message.image,
        cpu_millis=round(message.cpu * 1000),
        memory_bytes=message.memory_bytes,
        disk_bytes=message.disk_bytes,
        pids=message.pids,
        run=model.Run(message.run or model.Run.RUNNING),
        ip=message.ip,
        host=message.host,
        on_host_loss=model.OnHostLoss(message.on_host_loss or model.OnHostLoss.STAY),
        cpu_weight=message.cpu_weight,
        swap_bytes=message.swap_bytes,
        io_weight=message.io_weight,
        io_read_bps=message.io_read_bps,
        io_write_bps=message.io_write_bps,
        net_in_bps=message.net_in_bps,
        net_out_bps=message.net_out_bps,
        snapshot_schedule=message.snapshot_schedule,
        env=dict(message.env),
        command=tuple(message.command),
        require=tuple(message.require),
        prefer=tuple(message.prefer),
        tolerate=tuple(message.tolerate),
        near=tuple(message.near),
        apart=tuple(message.apart),
        spread=tuple(message.spread),
        priority=message.priority,
    )


def root_out(value: model.RootWish) -> session_pb2.RootWish | None:
    """None for the usual one: not set on the wire."""
    if value == model.RootWish():
        return None
    return session_pb2.RootWish(seq=value.seq, from_uid=value.from_uid, snapshot=value.snapshot)


def root_in(message: session_pb2.RootWish) -> model.RootWish:
    return model.RootWish(
        seq=message.seq, from_uid=model.Uid(message.from_uid), snapshot=message.snapshot
    )


def snapshot_wish_out(value: model.SnapshotWish) -> session_pb2.SnapshotWish:
    return session_pb2.SnapshotWish(
        tag=value.tag,
        seq=value.seq,
        created_at=to_timestamp(value.created_at),
        rule=value.rule,
        deleting=value.deleting,
    )


def snapshot_wish_in(message: session_pb2.SnapshotWish) -> model.SnapshotWish:
    return model.SnapshotWish(
        tag=message.tag,
        seq=message.seq,
        created_at=from_timestamp(message.created_at),
        rule=message.rule,
        deleting=message.deleting,
    )


def snapshot_status_out(value: model.SnapshotStatus) -> session_pb2.SnapshotStatus:
    return session_pb2.SnapshotStatus(
        tag=value.tag,
        seq=value.seq,
        taken_at=to_timestamp(value.taken_at),
        size_bytes=value.size_bytes,
        error=value.error,
    )


def snapshot_status_in(message: session_pb2.SnapshotStatus) -> model.SnapshotStatus:
    return model.SnapshotStatus(
        tag=message.tag,
        seq=message.seq,
        taken_at=from_timestamp(message.taken_at),
        size_bytes=message.size_bytes,
        error=message.error,
    )


def placement_out(value: model.Placement) -> types_pb2.Placement:
    return types_pb2.Placement(
        host=value.host,
        generation=value.generation,
        decided_at=to_timestamp(value.decided_at),
        message=value.message,
        past=[_stay_out(stay) for stay in value.past],
        waited_since=to_timestamp(value.waited_since) if value.waited_since else None,
        waited_for=value.waited_for,
    )


def placement_in(message: types_pb2.Placement, op_id: str = "") -> model.Placement:
    return model.Placement(
        host=model.HostName(message.host),
        generation=message.generation,
        decided_at=from_timestamp(message.decided_at),
        message=message.message,
        op_id=op_id,
        past=tuple(_stay_in(stay) for stay in message.past),
        waited_since=from_timestamp(message.waited_since),
        waited_for=message.waited_for,
    )


def _stay_out(value: model.Stay) -> types_pb2.Stay:
    return types_pb2.Stay(
        host=value.host,
        generation=value.generation,
        began_at=to_timestamp(value.began_at),
        ended_at=to_timestamp(value.ended_at),
        message=value.message,
        ended=value.ended,
    )


def _stay_in(message: types_pb2.Stay) -> model.Stay:
    return model.Stay(
        host=model.HostName(message.host),
        generation=message.generation,
        began_at=from_timestamp(message.began_at),
        ended_at=from_timestamp(message.ended_at),
        message=message.message,
        ended=message.ended,
    )


def event_out(
    value: model.Event, *, project: str = "", ve: str = "", uid: str = ""
) -> types_pb2.Event:
    return types_pb2.Event(
        time=to_timestamp(value.at),
        type=value.type.value,
        reason=value.reason,
        message=value.message,
        host=value.host,
        project=project,
        ve=ve,
        uid=uid,
    )


def event_in(message: types_pb2.Event) -> model.Event:
    return model.Event(
        at=from_timestamp(message.time),
        type=model.EventType(message.type or model.EventType.NORMAL),
        reason=message.reason,
        message=message.message,
        host=message.host,
    )


def status_out(value: model.VEStatus) -> types_pb2.VEStatus:
    return types_pb2.VEStatus(
        state=value.state.value,
        reason=value.reason,
        message=value.message,
        host=value.host,
        addresses=value.addresses,
        started_at=to_timestamp(value.started_at),
        restarts=value.restarts,
        observed_generation=value.observed_generation,
        placement_generation=value.placement_generation,
        init_pid=value.init_pid,
        events=[event_out(event) for event in value.events],
        oom_kills=value.oom_kills,
        cpus=value.cpus,
        disk_used_bytes=value.disk_used_bytes,
    )


def status_in(message: types_pb2.VEStatus, observed_restart_seq: int = 0) -> model.VEStatus:
    """Without what travels beside it: the root's number and the snapshots."""
    return model.VEStatus(
        state=model.VEState(message.state),
        reason=message.reason,
        message=message.message,
        host=message.host,
        addresses=tuple(message.addresses),
        started_at=from_timestamp(message.started_at) if message.HasField("started_at") else None,
        restarts=message.restarts,
        observed_generation=message.observed_generation,
        placement_generation=message.placement_generation,
        observed_restart_seq=observed_restart_seq,
        init_pid=message.init_pid,
        events=tuple(event_in(event) for event in message.events),
        oom_kills=message.oom_kills,
        cpus=message.cpus,
        disk_used_bytes=message.disk_used_bytes,
    )


def image_config_out(value: model.ImageConfig) -> types_pb2.ImageConfig:
    return types_pb2.ImageConfig(
        command=value.command, env=dict(value.env), user=value.user, cwd=value.cwd
    )


def image_config_in(message: types_pb2.ImageConfig) -> model.ImageConfig:
    return model.ImageConfig(
        command=tuple(message.command),
        env=dict(message.env),
        user=message.user,
        cwd=message.cwd,
    )


def prefetch_out(value: model.Prefetch) -> types_pb2.Prefetch:
    return types_pb2.Prefetch(selector=value.selector, hosts=value.hosts)


def prefetch_in(message: types_pb2.Prefetch) -> model.Prefetch:
    return model.Prefetch(
        selector=message.selector, hosts=tuple(model.HostName(name) for name in message.hosts)
    )


def held_image_out(value: model.HeldImage) -> session_pb2.HeldImage:
    return session_pb2.HeldImage(
        digest=value.digest,
        blob_digest=value.blob_digest,
        size_bytes=value.size_bytes,
        blob_bytes=value.blob_bytes,
        config=image_config_out(value.config) if value.config != model.ImageConfig() else None,
    )


def held_image_in(message: session_pb2.HeldImage) -> model.HeldImage:
    return model.HeldImage(
        digest=model.Digest(message.digest),
        blob_digest=message.blob_digest,
        size_bytes=message.size_bytes,
        blob_bytes=message.blob_bytes,
        config=image_config_in(message.config),
    )


def facts_out(value: model.HostFacts) -> session_pb2.HostFacts:
    return session_pb2.HostFacts(
        boot_id=value.boot_id,
        version=value.version,
        labels=dict(value.labels),
        capacity=resources_out(value.capacity),
        address=value.address,
        peer_port=value.peer_port,
        metrics_address=value.metrics_address,
        images=[held_image_out(_without_config(image)) for image in value.images],
        refuses=value.refuses,
    )


def _without_config(image: model.HeldImage) -> model.HeldImage:
    """The image's record has it; host/status would grow with every image."""
    return msgspec.structs.replace(image, config=model.ImageConfig())


def facts_in(message: session_pb2.HostFacts) -> model.HostFacts:
    return model.HostFacts(
        boot_id=message.boot_id,
        version=message.version,
        labels=dict(message.labels),
        capacity=resources_in(message.capacity),
        address=message.address,
        peer_port=message.peer_port,
        metrics_address=message.metrics_address,
        images=tuple(held_image_in(image) for image in message.images),
        refuses=message.refuses,
    )


def order_out(value: model.Order) -> session_pb2.Order:
    return session_pb2.Order(
        incarnation=value.incarnation, epoch=value.epoch, revision=value.revision
    )


def order_in(message: session_pb2.Order) -> model.Order:
    return model.Order(
        incarnation=message.incarnation, epoch=message.epoch, revision=message.revision
    )


def timing_out(value: model.Timing) -> session_pb2.Timing:
    return session_pb2.Timing(
        heartbeat_s=value.heartbeat_s,
        fence_after_s=value.fence_after_s,
        kill_within_s=value.kill_within_s,
        move_after_s=value.move_after_s,
    )


def timing_in(message: session_pb2.Timing) -> model.Timing:
    return model.Timing(
        heartbeat_s=message.heartbeat_s,
        fence_after_s=message.fence_after_s,
        kill_within_s=message.kill_within_s,
        move_after_s=message.move_after_s,
    )


def network_out(value: model.Network) -> session_pb2.NetworkConfig:
    return session_pb2.NetworkConfig(
        name=value.name,
        cidr=value.cidr,
        gateway=value.gateway,
        gateway_mac=value.gateway_mac,
        vxlan_id=value.vxlan_id,
        vxlan_port=value.vxlan_port,
    )


def network_in(message: session_pb2.NetworkConfig) -> model.Network:
    return model.Network(
        name=message.name,
        cidr=message.cidr,
        gateway=message.gateway,
        gateway_mac=message.gateway_mac,
        vxlan_id=message.vxlan_id,
        vxlan_port=message.vxlan_port,
    )


_ACTION_OUT = {
    model.Action.RUN: session_pb2.SetEntry.ACTION_RUN,
    model.Action.STOP: session_pb2.SetEntry.ACTION_STOP,
    model.Action.RELEASE: session_pb2.SetEntry.ACTION_RELEASE,
    model.Action.PURGE: session_pb2.SetEntry.ACTION_PURGE,
    model.Action.FREEZE: session_pb2.SetEntry.ACTION_FREEZE,
    model.Action.KEEP: session_pb2.SetEntry.ACTION_KEEP,
}
_ACTION_IN = {out: action for action, out in _ACTION_OUT.items()}


def entry_out(value: model.SetEntry) -> session_pb2.SetEntry:
    return session_pb2.SetEntry(
        uid=value.uid,
        name=value.name,
        project=value.project,
        action=_ACTION_OUT[value.action],
        spec=spec_out(value.spec),
        generation=value.generation,
        placement_generation=value.placement_generation,
        restart_seq=value.restart_seq,
        stop_timeout_s=value.stop_timeout_s,
        image_digest=value.image_digest,
        ip=value.ip,
        mac=value.mac,
        labels=dict(value.labels),
        root=root_out(value.root),
        snapshots=[snapshot_wish_out(wish) for wish in value.snapshots],
        run_generation=value.run_generation,
    )


def entry_in(message: session_pb2.SetEntry) -> model.SetEntry:
    return model.SetEntry(
        uid=model.Uid(message.uid),
        name=message.name,
        project=message.project,
        action=_ACTION_IN[message.action],
        spec=spec_in(message.spec),
        generation=message.generation,
        placement_generation=message.placement_generation,
        restart_seq=message.restart_seq,
        stop_timeout_s=message.stop_timeout_s,
        image_digest=model.Digest(message.image_digest),
        ip=message.ip,
        mac=message.mac,
        labels=dict(message.labels),
        root=root_in(message.root),
        snapshots=tuple(snapshot_wish_in(wish) for wish in message.snapshots),
        run_generation=message.run_generation,
    )


def host_set_out(value: model.HostSet) -> session_pb2.HostSet:
    return session_pb2.HostSet(
        order=order_out(value.order),
        entries=[entry_out(entry) for entry in value.entries],
        peers=[session_pb2.PeerHost(name=peer.name, address=peer.address) for peer in value.peers],
        network=network_out(value.network),
        images=[
            session_pb2.SetImage(
                digest=image.digest, blob_digest=image.blob_digest, spare=image.spare
            )
            for image in value.images
        ],
    )


def host_set_in(message: session_pb2.HostSet) -> model.HostSet:
    return model.HostSet(
        order=order_in(message.order),
        entries=tuple(entry_in(entry) for entry in message.entries),
        peers=tuple(model.PeerHost(name=peer.name, address=peer.address) for peer in message.peers),
        network=network_in(message.network),
        images=tuple(
            model.WantedImage(
                digest=model.Digest(image.digest),
                blob_digest=image.blob_digest,
                spare=image.spare,
            )
            for image in message.images
        ),
    )


def report_out(value: model.VEReport) -> session_pb2.VEReport:
    return session_pb2.VEReport(
        uid=value.uid,
        name=value.name,
        project=value.project,
        status=status_out(value.status),
        gone=value.gone,
        orphan=value.orphan,
        observed_restart_seq=value.status.observed_restart_seq,
        kept=value.kept,
        entry=entry_out(value.entry) if value.entry is not None else None,
        observed_root_seq=value.status.observed_root_seq,
        observed_snapshot_seq=value.status.observed_snapshot_seq,
        in_force=in_force_out(value.status),
        snapshots=[snapshot_status_out(snapshot) for snapshot in value.status.snapshots],
    )


def report_in(message: session_pb2.VEReport) -> model.VEReport:
    return model.VEReport(
        uid=model.Uid(message.uid),
        name=message.name,
        project=message.project,
        status=beside(message, status_in(message.status, message.observed_restart_seq)),
        gone=message.gone,
        orphan=message.orphan,
        kept=message.kept,
        entry=entry_in(message.entry) if message.HasField("entry") else None,
    )


def beside(
    message: "session_pb2.VEReport | store_pb2.StoredVEStatus", status: model.VEStatus
) -> model.VEStatus:
    """The status with what travels beside it."""
    told = message.observed_root_seq or message.observed_snapshot_seq or message.snapshots
    if not (told or message.HasField("in_force")):
        return status
    return msgspec.structs.replace(
        status,
        observed_root_seq=message.observed_root_seq,
        observed_snapshot_seq=message.observed_snapshot_seq,
        snapshots=tuple(snapshot_status_in(snapshot) for snapshot in message.snapshots),
        in_force=resources_in(message.in_force),
    )


def in_force_out(status: model.VEStatus) -> types_pb2.Resources | None:
    """Nothing for nothing."""
    return resources_out(status.in_force) if status.in_force != model.Resources() else None
