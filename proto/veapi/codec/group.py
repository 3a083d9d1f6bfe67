"""Templates and revisions of groups."""

from veapi import model
from veapi.codec.times import from_timestamp, to_timestamp
from veapi.codec.ve import spec_in, spec_out
from veapi.v1 import group_pb2


def template_out(value: model.Template) -> group_pb2.GroupTemplate:
    return group_pb2.GroupTemplate(labels=dict(value.labels), spec=spec_out(value.spec))


def template_in(message: group_pb2.GroupTemplate) -> model.Template:
    """Trusts the message: it was written by us."""
    return model.Template(labels=dict(message.labels), spec=spec_in(message.spec))


def revision_out(value: model.Revision) -> group_pb2.GroupRevision:
    return group_pb2.GroupRevision(
        number=value.number,
        template=template_out(value.template),
        created_at=to_timestamp(value.created_at),
        cause=value.cause,
        image_digest=value.image_digest,
    )


def revision_in(message: group_pb2.GroupRevision) -> model.Revision:
    return model.Revision(
        number=message.number,
        template=template_in(message.template),
        created_at=from_timestamp(message.created_at),
        cause=message.cause,
        image_digest=model.Digest(message.image_digest),
    )
