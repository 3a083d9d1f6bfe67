"""Values of a VE: spec, placement, status, and what is kept of a deleted one."""

from veapi import codec
from veapi.model import VE, Deleted, Digest, Placement, Uid, VEStatus
from veapi.v1 import store_pb2
from vecontroller.store.values.parsing import SCHEMA, checked, model, parse


def encode_ve(value: VE) -> bytes:
    return _stored_ve(value).SerializeToString(deterministic=True)


def _stored_ve(value: VE) -> store_pb2.StoredVE:
    return store_pb2.StoredVE(
        schema=SCHEMA,
        op_id=value.op_id,
        uid=value.uid,
        name=value.name,
        project=value.project,
        labels=dict(value.labels),
        generation=value.generation,
        spec=codec.spec_out(value.spec),
        created_at=codec.to_timestamp(value.created_at),
        delete_requested_at=codec.to_timestamp(value.delete_requested_at),
        restart_seq=value.restart_seq,
        stop_timeout_s=value.stop_timeout_s,
        image_digest=value.image_digest,
        ip=value.ip,
        mac=value.mac,
        request_id=value.request_id,
        root=codec.root_out(value.root),
        snapshots=[codec.snapshot_wish_out(wish) for wish in value.snapshots],
        snapshot_seq=value.snapshot_seq,
        purge=value.purge,
        run_generation=value.run_generation,
        policy_generation=value.policy_generation,
        group=value.group,
        group_revision=value.group_revision,
        planned_host=value.planned_host,
    )


def decode_ve(data: bytes) -> VE:
    return _checked_ve(parse(store_pb2.StoredVE, data))


def _checked_ve(message: store_pb2.StoredVE) -> VE:
    return checked(model(lambda: _ve(message)), message.uid, message.name, message.project)


def _ve(message: store_pb2.StoredVE) -> VE:
    deleting = message.HasField("delete_requested_at")
    return VE(
        uid=Uid(message.uid),
        name=message.name,
        project=message.project,
        labels=dict(message.labels),
        generation=message.generation,
        spec=codec.spec_in(message.spec),
        created_at=codec.from_timestamp(message.created_at),
        delete_requested_at=codec.from_timestamp(message.delete_requested_at) if deleting else None,
        restart_seq=message.restart_seq,
        stop_timeout_s=message.stop_timeout_s,
        image_digest=Digest(message.image_digest),
        ip=message.ip,
        mac=message.mac,
        op_id=message.op_id,
        request_id=message.request_id,
        root=codec.root_in(message.root),
        snapshots=tuple(codec.snapshot_wish_in(wish) for wish in message.snapshots),
        snapshot_seq=message.snapshot_seq,
        purge=message.purge,
        run_generation=message.run_generation,
        policy_generation=message.policy_generation,
        group=message.group,
        group_revision=message.group_revision,
        planned_host=message.planned_host,
    )


def encode_deleted(value: Deleted) -> bytes:
    return store_pb2.StoredDeleted(
        schema=SCHEMA,
        op_id=value.op_id,
        ve=_stored_ve(value.ve),
        placement=codec.placement_out(value.placement),
        deleted_at=codec.to_timestamp(value.deleted_at),
        purge_at=codec.to_timestamp(value.purge_at),
        purging=value.purging,
        disk_used_bytes=value.disk_used_bytes,
        snapshots=[codec.snapshot_status_out(snapshot) for snapshot in value.snapshots],
        left=value.left,
        unconfirmed=value.unconfirmed,
    ).SerializeToString(deterministic=True)


def decode_deleted(data: bytes) -> Deleted:
    message = parse(store_pb2.StoredDeleted, data)
    value = Deleted(
        ve=_checked_ve(message.ve),
        placement=codec.placement_in(message.placement),
        deleted_at=codec.from_timestamp(message.deleted_at),
        purge_at=codec.from_timestamp(message.purge_at),
        purging=message.purging,
        disk_used_bytes=message.disk_used_bytes,
        snapshots=tuple(codec.snapshot_status_in(snapshot) for snapshot in message.snapshots),
        op_id=message.op_id,
        left=message.left,
        unconfirmed=message.unconfirmed,
    )
    return checked(value, value.placement.host)


def encode_placement(value: Placement) -> bytes:
    return store_pb2.StoredPlacement(
        schema=SCHEMA, op_id=value.op_id, placement=codec.placement_out(value)
    ).SerializeToString()


def decode_placement(data: bytes) -> Placement:
    message = parse(store_pb2.StoredPlacement, data)
    value = codec.placement_in(message.placement, message.op_id)
    return checked(value, value.host, value.generation > 0)


def encode_status(value: VEStatus) -> bytes:
    return store_pb2.StoredVEStatus(
        schema=SCHEMA,
        status=codec.status_out(value),
        observed_restart_seq=value.observed_restart_seq,
        observed_root_seq=value.observed_root_seq,
        observed_snapshot_seq=value.observed_snapshot_seq,
        in_force=codec.in_force_out(value),
        snapshots=[codec.snapshot_status_out(snapshot) for snapshot in value.snapshots],
    ).SerializeToString()


def decode_status(data: bytes) -> VEStatus:
    message = parse(store_pb2.StoredVEStatus, data)
    return model(
        lambda: codec.beside(message, codec.status_in(message.status, message.observed_restart_seq))
    )
