"""Values of groups: what was asked, and what their keeper must not forget."""

from veapi import codec
from veapi.model import Group, GroupStatus
from veapi.v1 import group_pb2
from vecontroller.store.values.parsing import SCHEMA, checked, model, parse


def encode_group(value: Group) -> bytes:
    return group_pb2.StoredGroup(
        schema=SCHEMA,
        op_id=value.op_id,
        uid=value.uid,
        name=value.name,
        project=value.project,
        labels=dict(value.labels),
        generation=value.generation,
        replicas=value.replicas,
        max_unavailable=value.max_unavailable,
        min_ready_s=value.min_ready_s,
        progress_deadline_s=value.progress_deadline_s,
        paused=value.paused,
        revisions=[codec.revision_out(revision) for revision in value.revisions],
        created_at=codec.to_timestamp(value.created_at),
        delete_requested_at=codec.to_timestamp(value.delete_requested_at),
        keep_ves=value.keep_ves,
        purge=value.purge,
        tries=value.tries,
        request_id=value.request_id,
    ).SerializeToString(deterministic=True)


def decode_group(data: bytes) -> Group:
    value = model(lambda: _group(parse(group_pb2.StoredGroup, data)))
    return checked(value, value.uid, value.name, value.project, value.revisions)


def _group(message: group_pb2.StoredGroup) -> Group:
    deleting = message.HasField("delete_requested_at")
    return Group(
        uid=message.uid,
        name=message.name,
        project=message.project,
        labels=dict(message.labels),
        generation=message.generation,
        replicas=message.replicas,
        max_unavailable=message.max_unavailable,
        min_ready_s=message.min_ready_s,
        progress_deadline_s=message.progress_deadline_s,
        paused=message.paused,
        revisions=tuple(codec.revision_in(revision) for revision in message.revisions),
        created_at=codec.from_timestamp(message.created_at),
        delete_requested_at=codec.from_timestamp(message.delete_requested_at) if deleting else None,
        keep_ves=message.keep_ves,
        purge=message.purge,
        tries=message.tries,
        request_id=message.request_id,
        op_id=message.op_id,
    )


def encode_group_status(value: GroupStatus) -> bytes:
    return group_pb2.StoredGroupStatus(
        schema=SCHEMA,
        op_id=value.op_id,
        uid=value.uid,
        stable=value.stable,
        stopped_revision=value.stopped_revision,
        stopped_try=value.stopped_try,
        stopped_why=value.stopped_why,
        events=[codec.event_out(event) for event in value.events],
    ).SerializeToString()


def decode_group_status(data: bytes) -> GroupStatus:
    message = parse(group_pb2.StoredGroupStatus, data)
    value = model(
        lambda: GroupStatus(
            uid=message.uid,
            stable=message.stable,
            stopped_revision=message.stopped_revision,
            stopped_try=message.stopped_try,
            stopped_why=message.stopped_why,
            events=tuple(codec.event_in(event) for event in message.events),
            op_id=message.op_id,
        )
    )
    return checked(value, value.uid)
