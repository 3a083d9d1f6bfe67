"""Values of the store to model values and back. The first field of every value is the version of its schema.

A value of a newer schema, or one that is no value of ours, is `Unreadable`: its key is quarantined by the mirror and
never rewritten, as a rewrite would lose what we can't see.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from veapi import codec
from veapi.errors import InvalidInput, VerackError
from veapi.model import (
    VE,
    Cluster,
    Deleted,
    Digest,
    HostFacts,
    HostSpec,
    Image,
    Placement,
    Project,
    Uid,
    VEStatus,
)
from veapi.v1 import store_pb2
from vecontroller import claims
from vecontroller.store import keys
from vecontroller.store.keys import Kind

SCHEMA = 1


class Unreadable(VerackError):
    """A value that this version can't read: of a newer schema, or garbage."""

    kind = "unreadable"


@dataclass(frozen=True, slots=True)
class Leader:
    """Content of the key `leader`. `run_id` is random per process: it tells two runs of one controller apart."""

    name: str
    address: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Ref:
    """A key that points at something: a name or an address at a uid, a tag at a digest."""

    target: str
    op_id: str = ""


M = TypeVar("M", bound=Message)
V = TypeVar("V")


def _parse(cls: Callable[[], M], data: bytes) -> M:
    """The message, if it is one of a schema that we know."""
    message = cls()
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise Unreadable(f"no value of ours: {error}") from None
    schema = getattr(message, "schema", 0)
    if schema > SCHEMA:
        raise Unreadable(
            f"schema {schema} is newer than {SCHEMA}", hint="update this controller to read it"
        )
    if schema < 1:
        raise Unreadable("no value of ours: it has no schema")
    return message


def _checked(value: V, *required: object) -> V:
    """`value`, unless a field is empty that never is in a value that we wrote."""
    if not all(required):
        raise Unreadable("no value of ours: a field that is always set is empty")
    return value


def _model(make: Callable[[], V]) -> V:
    """What `make` gives; an unknown word of an enum is Unreadable."""
    try:
        return make()
    except (ValueError, OverflowError) as error:
        raise Unreadable(f"no value of ours: {error}") from None


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
    )


def decode_ve(data: bytes) -> VE:
    return _checked_ve(_parse(store_pb2.StoredVE, data))


def _checked_ve(message: store_pb2.StoredVE) -> VE:
    return _checked(_model(lambda: _ve(message)), message.uid, message.name, message.project)


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
    ).SerializeToString(deterministic=True)


def decode_deleted(data: bytes) -> Deleted:
    message = _parse(store_pb2.StoredDeleted, data)
    value = Deleted(
        ve=_checked_ve(message.ve),
        placement=codec.placement_in(message.placement),
        deleted_at=codec.from_timestamp(message.deleted_at),
        purge_at=codec.from_timestamp(message.purge_at),
        purging=message.purging,
        disk_used_bytes=message.disk_used_bytes,
        snapshots=tuple(codec.snapshot_status_in(snapshot) for snapshot in message.snapshots),
        op_id=message.op_id,
    )
    return _checked(value, value.placement.host)


def encode_placement(value: Placement) -> bytes:
    return store_pb2.StoredPlacement(
        schema=SCHEMA, op_id=value.op_id, placement=codec.placement_out(value)
    ).SerializeToString()


def decode_placement(data: bytes) -> Placement:
    message = _parse(store_pb2.StoredPlacement, data)
    value = codec.placement_in(message.placement, message.op_id)
    return _checked(value, value.host, value.generation > 0)


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
    message = _parse(store_pb2.StoredVEStatus, data)
    return _model(
        lambda: codec.beside(message, codec.status_in(message.status, message.observed_restart_seq))
    )


def encode_host_status(value: HostFacts) -> bytes:
    return store_pb2.StoredHostStatus(
        schema=SCHEMA, facts=codec.facts_out(value)
    ).SerializeToString(deterministic=True)


def decode_host_status(data: bytes) -> HostFacts:
    message = _parse(store_pb2.StoredHostStatus, data)
    _checked(message, message.HasField("facts"))
    facts = _model(lambda: codec.facts_in(message.facts))
    try:
        claims.check_capacity(facts.capacity)
    except InvalidInput as error:
        raise Unreadable(f"no value of ours: {error.message}", hint=error.hint) from None
    return facts


def encode_host_spec(value: HostSpec) -> bytes:
    return store_pb2.StoredHostSpec(
        schema=SCHEMA, op_id=value.op_id, taints=value.taints
    ).SerializeToString()


def decode_host_spec(data: bytes) -> HostSpec:
    message = _parse(store_pb2.StoredHostSpec, data)
    return HostSpec(taints=tuple(message.taints), op_id=message.op_id)


def encode_image(value: Image) -> bytes:
    return store_pb2.StoredImage(
        schema=SCHEMA,
        op_id=value.op_id,
        digest=value.digest,
        blob_digest=value.blob_digest,
        size_bytes=value.size_bytes,
        blob_bytes=value.blob_bytes,
        created_at=codec.to_timestamp(value.created_at),
        config=codec.image_config_out(value.config),
        prefetch=codec.prefetch_out(value.prefetch),
    ).SerializeToString()


def decode_image(data: bytes) -> Image:
    message = _parse(store_pb2.StoredImage, data)
    value = Image(
        digest=Digest(message.digest),
        blob_digest=message.blob_digest,
        size_bytes=message.size_bytes,
        blob_bytes=message.blob_bytes,
        created_at=codec.from_timestamp(message.created_at),
        config=codec.image_config_in(message.config),
        prefetch=codec.prefetch_in(message.prefetch),
        op_id=message.op_id,
    )
    return _checked(value, value.digest)


def encode_ref(target: str, op_id: str = "") -> bytes:
    return store_pb2.StoredRef(schema=SCHEMA, op_id=op_id, target=target).SerializeToString()


def decode_ref(data: bytes) -> Ref:
    message = _parse(store_pb2.StoredRef, data)
    return _checked(Ref(message.target, message.op_id), message.target)


def encode_project(value: Project) -> bytes:
    return store_pb2.StoredProject(
        schema=SCHEMA,
        op_id=value.op_id,
        name=value.name,
        created_at=codec.to_timestamp(value.created_at),
    ).SerializeToString()


def decode_project(data: bytes) -> Project:
    message = _parse(store_pb2.StoredProject, data)
    value = Project(
        name=message.name,
        created_at=codec.from_timestamp(message.created_at),
        op_id=message.op_id,
    )
    return _checked(value, value.name)


def encode_cluster(value: Cluster) -> bytes:
    return store_pb2.StoredCluster(
        schema=SCHEMA,
        name=value.name,
        incarnation=value.incarnation,
        timing=codec.timing_out(value.timing),
        network=codec.network_out(value.network),
    ).SerializeToString()


def decode_cluster(data: bytes) -> Cluster:
    message = _parse(store_pb2.StoredCluster, data)
    value = Cluster(
        name=message.name,
        incarnation=message.incarnation,
        timing=codec.timing_in(message.timing),
        network=codec.network_in(message.network),
    )
    return _checked(value, value.name, value.incarnation > 0)


def encode_leader(value: Leader) -> bytes:
    return store_pb2.StoredLeader(
        schema=SCHEMA, name=value.name, address=value.address, run_id=value.run_id
    ).SerializeToString()


def decode_leader(data: bytes) -> Leader:
    message = _parse(store_pb2.StoredLeader, data)
    return _checked(Leader(message.name, message.address, message.run_id), message.run_id)


def encode_beat(count: int) -> bytes:
    return store_pb2.StoredBeat(schema=SCHEMA, count=count).SerializeToString()


def decode_beat(data: bytes) -> int:
    return _parse(store_pb2.StoredBeat, data).count


def op_id(key: str, data: bytes) -> str:
    """The operation that wrote the value of this key; empty where values carry none. Raises Unreadable."""
    parsed = keys.parse(key)
    decode = _WITH_OP_ID.get(parsed[0]) if parsed is not None else None
    return decode(data).op_id if decode is not None else ""


class _Operated(Protocol):
    """A value that says which operation wrote it."""

    @property
    def op_id(self) -> str: ...


_WITH_OP_ID: dict[Kind, Callable[[bytes], _Operated]] = {
    Kind.VE_SPEC: decode_ve,
    Kind.VE_DELETED: decode_deleted,
    Kind.VE_PLACEMENT: decode_placement,
    Kind.VE_NAME: decode_ref,
    Kind.ADDRESS: decode_ref,
    Kind.IMAGE_TAG: decode_ref,
    Kind.IMAGE: decode_image,
    Kind.HOST_SPEC: decode_host_spec,
    Kind.PROJECT: decode_project,
}
