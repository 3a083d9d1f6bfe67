"""VEs: specs, placements, statuses, events, wishes for roots and snapshots."""

from veapi import model
from veapi.codec.times import from_timestamp, to_timestamp
from veapi.v1 import session_pb2, types_pb2


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
        image_digest=value.image_digest,
    )


def snapshot_status_in(message: session_pb2.SnapshotStatus) -> model.SnapshotStatus:
    return model.SnapshotStatus(
        tag=message.tag,
        seq=message.seq,
        taken_at=from_timestamp(message.taken_at),
        size_bytes=message.size_bytes,
        error=message.error,
        image_digest=model.Digest(message.image_digest),
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
        root_since=value.root_since,
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
        root_since=message.root_since,
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
        armed_generation=value.armed_generation,
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
        armed_generation=message.armed_generation,
    )
