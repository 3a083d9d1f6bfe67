"""Values of the store to model values and back. The first field of every value is the version of its schema.

A value of a newer schema, or one that is no value of ours, is `Unreadable`: its key is quarantined by the mirror and
never rewritten, as a rewrite would lose what we can't see.
"""

from collections.abc import Callable
from typing import Protocol

from vecontroller.store import keys
from vecontroller.store.keys import Kind
from vecontroller.store.values.cluster import (
    Leader,
    Ref,
    decode_beat,
    decode_cluster,
    decode_host_spec,
    decode_host_status,
    decode_image,
    decode_leader,
    decode_project,
    decode_ref,
    encode_beat,
    encode_cluster,
    encode_host_spec,
    encode_host_status,
    encode_image,
    encode_leader,
    encode_project,
    encode_ref,
)
from vecontroller.store.values.group import (
    decode_group,
    decode_group_status,
    encode_group,
    encode_group_status,
)
from vecontroller.store.values.parsing import SCHEMA, Unreadable
from vecontroller.store.values.ve import (
    decode_deleted,
    decode_placement,
    decode_status,
    decode_ve,
    encode_deleted,
    encode_placement,
    encode_status,
    encode_ve,
)

__all__ = [
    "SCHEMA",
    "Leader",
    "Ref",
    "Unreadable",
    "decode_beat",
    "decode_cluster",
    "decode_deleted",
    "decode_group",
    "decode_group_status",
    "decode_host_spec",
    "decode_host_status",
    "decode_image",
    "decode_leader",
    "decode_placement",
    "decode_project",
    "decode_ref",
    "decode_status",
    "decode_ve",
    "encode_beat",
    "encode_cluster",
    "encode_deleted",
    "encode_group",
    "encode_group_status",
    "encode_host_spec",
    "encode_host_status",
    "encode_image",
    "encode_leader",
    "encode_placement",
    "encode_project",
    "encode_ref",
    "encode_status",
    "encode_ve",
    "op_id",
]


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
    Kind.VE_LEFT: decode_deleted,
    Kind.VE_PLACEMENT: decode_placement,
    Kind.VE_NAME: decode_ref,
    Kind.ADDRESS: decode_ref,
    Kind.IMAGE_TAG: decode_ref,
    Kind.IMAGE: decode_image,
    Kind.HOST_SPEC: decode_host_spec,
    Kind.PROJECT: decode_project,
    Kind.CLUSTER: decode_cluster,
    Kind.GROUP: decode_group,
    Kind.GROUP_STATUS: decode_group_status,
}
