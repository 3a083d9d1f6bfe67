"""Specs that users send, as values: what is unset is taken from a base, and all of it is checked.

In proto3 an unset number is 0 and an unset text is empty; so neither is a value that can be asked for, unless the request
names the field. The base of a new VE is `DEFAULTS`, that of an existing one is what it has: a field that a manifest leaves
out keeps its value.
"""

from collections.abc import Callable, Collection

import msgspec

from veapi import schedule, validate, wishes
from veapi.errors import InvalidInput
from veapi.model import Spec
from veapi.units import format_cpu
from veapi.v1 import api_pb2, types_pb2

DEFAULTS = Spec(image="", cpu_millis=1000, memory_bytes=256 << 20, disk_bytes=4 << 30, pids=512)
"""Of a new VE: one core, 256M of memory, 4G of disk, 512 processes, running, on any host."""

FIELDS = tuple(field.name for field in types_pb2.VESpec.DESCRIPTOR.fields)
"""Names of the fields of a spec, as requests use them."""
_Read = Callable[[types_pb2.VESpec], object]


def _wishes(kind: str) -> _Read:
    return lambda message: wishes.read(kind, getattr(message, kind))


_OF_THEIR_OWN: dict[str, tuple[str, _Read]] = {
    "cpu": ("cpu_millis", lambda message: validate.cpu_millis("spec.cpu", message.cpu)),
    "run": ("run", lambda message: validate.run("spec.run", message.run)),
    "on_host_loss": (
        "on_host_loss",
        lambda message: validate.on_host_loss("spec.on_host_loss", message.on_host_loss),
    ),
    "snapshot_schedule": (
        "snapshot_schedule",
        lambda message: schedule.canonical(
            schedule.parse(message.snapshot_schedule, field="spec.snapshot_schedule")
        ),
    ),
    "env": ("env", lambda message: dict(message.env)),
    "command": ("command", lambda message: tuple(message.command)),
    **{kind: (kind, _wishes(kind)) for kind in wishes.READERS},
    "priority": (
        "priority",
        lambda message: wishes.priority("spec.priority", message.priority),
    ),
}
"""Fields that are another value here than on the wire, and how they are read."""


def merged(message: types_pb2.VESpec, base: Spec, *, fields: Collection[str] = ()) -> Spec:
    """The message over the base: what is set in it, and `fields` even if they are not. InvalidInput names the field."""
    return picked(message, base, {field.name for field, _ in message.ListFields()}.union(fields))


def picked(message: types_pb2.VESpec, base: Spec, fields: Collection[str]) -> Spec:
    """Only these fields of the message over the base."""
    known(fields)
    values = dict(_value(message, field) for field in sorted(fields))
    return validate.spec(msgspec.structs.replace(base, **values))


def known(fields: Collection[str]) -> None:
    """InvalidInput for a name that is no field of a spec."""
    for field in fields:
        if field not in FIELDS:
            raise InvalidInput(
                f"fields: {field[:80]!r} is no field of a spec",
                hint=f"there are {', '.join(FIELDS)}",
            )


def _value(message: types_pb2.VESpec, field: str) -> tuple[str, object]:
    """The field's name in `Spec`, and its value."""
    if field not in _OF_THEIR_OWN:
        return field, getattr(message, field)
    name, read = _OF_THEIR_OWN[field]
    return name, read(message)


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
    """What a person reads of each; what is 0 or empty by default says nothing."""
    always = {
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
    numbers = {field: str(getattr(spec, field) or "") for field in _NUMBERS}
    return {
        **always,
        **numbers,
        "snapshot_schedule": spec.snapshot_schedule,
        "env": " ".join(f"{key}={value}" for key, value in sorted(spec.env.items())),
        "command": " ".join(spec.command),
        **{kind: "; ".join(getattr(spec, kind)) for kind in wishes.READERS},
    }


_NUMBERS = (
    "cpu_weight",
    "swap_bytes",
    "io_weight",
    "io_read_bps",
    "io_write_bps",
    "net_in_bps",
    "net_out_bps",
    "priority",
)
