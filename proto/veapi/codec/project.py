"""What projects may have and have, as messages."""

from veapi import model
from veapi.v1 import types_pb2


def amounts_out(value: model.ProjectAmounts) -> types_pb2.ProjectAmounts:
    return types_pb2.ProjectAmounts(
        ves=value.ves,
        cpu_millis=value.cpu_millis,
        memory_bytes=value.memory_bytes,
        disk_bytes=value.disk_bytes,
        addresses=value.addresses,
        snapshots=value.snapshots,
    )


def amounts_in(message: types_pb2.ProjectAmounts) -> model.ProjectAmounts:
    return model.ProjectAmounts(
        ves=message.ves,
        cpu_millis=message.cpu_millis,
        memory_bytes=message.memory_bytes,
        disk_bytes=message.disk_bytes,
        addresses=message.addresses,
        snapshots=message.snapshots,
    )
