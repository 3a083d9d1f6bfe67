"""Specs that users send, as values: what is unset is taken from a base, and all of it is checked.

In proto3 an unset number is 0 and an unset text is empty; so neither is a value that can be asked for. The base of a new
VE is `DEFAULTS`, that of an existing one is what it has: a field that a manifest leaves out keeps its value.
"""

from veapi import validate
from veapi.model import Spec
from veapi.units import format_cpu
from veapi.v1 import api_pb2, types_pb2

DEFAULTS = Spec(image="", cpu_millis=1000, memory_bytes=256 << 20, disk_bytes=4 << 30, pids=512)
"""Of a new VE: one core, 256M of memory, 4G of disk, 512 processes, running, on any host."""


def merged(message: types_pb2.VESpec, base: Spec) -> Spec:
    """The message over the base. InvalidInput names the field."""
    return validate.spec(
        Spec(
            image=message.image or base.image,
            cpu_millis=validate.cpu_millis("spec.cpu", message.cpu)
            if message.cpu
            else base.cpu_millis,
            memory_bytes=message.memory_bytes or base.memory_bytes,
            disk_bytes=message.disk_bytes or base.disk_bytes,
            pids=message.pids or base.pids,
            run=validate.run("spec.run", message.run) if message.run else base.run,
            ip=message.ip or base.ip,
            host=message.host or base.host,
            on_host_loss=validate.on_host_loss("spec.on_host_loss", message.on_host_loss)
            if message.on_host_loss
            else base.on_host_loss,
        )
    )


def changes(
    before: Spec | None, after: Spec, labels_before: dict[str, str], labels_after: dict[str, str]
) -> list[api_pb2.FieldChange]:
    """What differs, field by field, in a fixed order. `before` None: everything is new."""
    old = _fields(before) if before is not None else {}
    found = [
        (f"spec.{field}", old.get(field, ""), value) for field, value in _fields(after).items()
    ]
    found += [
        (f"metadata.labels.{key}", labels_before.get(key, ""), labels_after.get(key, ""))
        for key in sorted(labels_before.keys() | labels_after.keys())
        if labels_before.get(key) != labels_after.get(key)
    ]
    return [
        api_pb2.FieldChange(field=field, before=was, after=now)
        for field, was, now in found
        if was != now or field.startswith("metadata.")
    ]


def _fields(spec: Spec) -> dict[str, str]:
    return {
        "image": spec.image,
        "cpu": format_cpu(spec.cpu_millis),
        "memory_bytes": str(spec.memory_bytes),
        "disk_bytes": str(spec.disk_bytes),
        "pids": str(spec.pids),
        "run": spec.run.value,
        "ip": spec.ip,
        "host": spec.host,
        "on_host_loss": spec.on_host_loss.value,
    }
