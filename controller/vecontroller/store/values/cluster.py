"""Values of all that is no VE: hosts, images, projects, the cluster's record, its leader, and keys that point at others."""

from dataclasses import dataclass

from veapi import codec
from veapi.errors import InvalidInput
from veapi.model import (
    Cluster,
    Digest,
    HostFacts,
    HostName,
    HostSpec,
    Image,
    Project,
    ProjectAmounts,
)
from veapi.v1 import store_pb2
from vecontroller import claims, timing
from vecontroller.store.values.parsing import SCHEMA, Unreadable, checked, model, parse


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


def encode_host_status(value: HostFacts) -> bytes:
    return store_pb2.StoredHostStatus(
        schema=SCHEMA, facts=codec.facts_out(value)
    ).SerializeToString(deterministic=True)


def decode_host_status(data: bytes) -> HostFacts:
    message = parse(store_pb2.StoredHostStatus, data)
    checked(message, message.HasField("facts"))
    facts = model(lambda: codec.facts_in(message.facts))
    try:
        claims.check_capacity(facts.capacity)
    except InvalidInput as error:
        raise Unreadable(f"no value of ours: {error.message}", hint=error.hint) from None
    return facts


def encode_host_spec(value: HostSpec) -> bytes:
    return store_pb2.StoredHostSpec(
        schema=SCHEMA,
        op_id=value.op_id,
        taints=value.taints,
        powered_off_at=codec.to_timestamp(value.powered_off_at),
        powered_off_by=value.powered_off_by,
        cordoned=value.cordoned,
        cordon_reason=value.cordon_reason,
        removed_at=codec.to_timestamp(value.removed_at),
        replaced=value.replaced,
    ).SerializeToString()


def decode_host_spec(data: bytes) -> HostSpec:
    message = parse(store_pb2.StoredHostSpec, data)
    off, removed = message.HasField("powered_off_at"), message.HasField("removed_at")
    return HostSpec(
        taints=tuple(message.taints),
        op_id=message.op_id,
        powered_off_at=codec.from_timestamp(message.powered_off_at) if off else None,
        powered_off_by=message.powered_off_by,
        cordoned=message.cordoned,
        cordon_reason=message.cordon_reason,
        removed_at=codec.from_timestamp(message.removed_at) if removed else None,
        replaced=message.replaced,
    )


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
    message = parse(store_pb2.StoredImage, data)
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
    return checked(value, value.digest)


def encode_ref(target: str, op_id: str = "") -> bytes:
    return store_pb2.StoredRef(schema=SCHEMA, op_id=op_id, target=target).SerializeToString()


def decode_ref(data: bytes) -> Ref:
    message = parse(store_pb2.StoredRef, data)
    return checked(Ref(message.target, message.op_id), message.target)


def encode_project(value: Project) -> bytes:
    return store_pb2.StoredProject(
        schema=SCHEMA,
        op_id=value.op_id,
        name=value.name,
        created_at=codec.to_timestamp(value.created_at),
        quota=codec.amounts_out(value.quota) if value.quota != ProjectAmounts() else None,
    ).SerializeToString()


def decode_project(data: bytes) -> Project:
    message = parse(store_pb2.StoredProject, data)
    value = Project(
        name=message.name,
        created_at=codec.from_timestamp(message.created_at),
        op_id=message.op_id,
        quota=codec.amounts_in(message.quota),
    )
    return checked(value, value.name)


def encode_cluster(value: Cluster) -> bytes:
    return store_pb2.StoredCluster(
        schema=SCHEMA,
        name=value.name,
        incarnation=value.incarnation,
        timing=codec.timing_out(value.timing),
        network=codec.network_out(value.network),
        arming=value.arming,
        disarmed_until=codec.to_timestamp(value.disarmed_until),
        moves_stopped=value.moves_stopped,
        moves_resumed=value.moves_resumed,
        confirmed_incarnation=value.confirmed_incarnation,
        op_id=value.op_id,
    ).SerializeToString()


def decode_cluster(data: bytes) -> Cluster:
    message = parse(store_pb2.StoredCluster, data)
    value = Cluster(
        name=message.name,
        incarnation=message.incarnation,
        timing=codec.timing_in(message.timing),
        network=codec.network_in(message.network),
        arming=message.arming,
        disarmed_until=codec.from_timestamp(message.disarmed_until)
        if message.HasField("disarmed_until")
        else None,
        moves_stopped=message.moves_stopped,
        moves_resumed=tuple(HostName(name) for name in message.moves_resumed),
        confirmed_incarnation=message.confirmed_incarnation or 1,
        op_id=message.op_id,
    )
    try:
        timing.check(value.timing)
    except InvalidInput as error:
        raise Unreadable(f"the cluster's record: {error.message}", hint=error.hint) from None
    return checked(value, value.name, value.incarnation > 0)


def encode_leader(value: Leader) -> bytes:
    return store_pb2.StoredLeader(
        schema=SCHEMA, name=value.name, address=value.address, run_id=value.run_id
    ).SerializeToString()


def decode_leader(data: bytes) -> Leader:
    message = parse(store_pb2.StoredLeader, data)
    return checked(Leader(message.name, message.address, message.run_id), message.run_id)


def encode_beat(count: int) -> bytes:
    return store_pb2.StoredBeat(schema=SCHEMA, count=count).SerializeToString()


def decode_beat(data: bytes) -> int:
    return parse(store_pb2.StoredBeat, data).count
