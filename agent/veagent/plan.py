"""What a start is told, and what of a VE's wish only a start can change: pure."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from veagent.imageconfig import with_image
from veagent.ports import Nic, StartPlan
from veagent.record import VERecord
from veapi.model import Limits, SetEntry


def start_plan(
    entry: SetEntry,
    record: VERecord,
    *,
    root: Path,
    nic: Nic | None,
    cpus: tuple[int, ...],
) -> StartPlan:
    plan = StartPlan(
        uid=entry.uid,
        hostname=entry.name,
        root=root,
        id_base=record.id_base,
        limits=_begun_with(entry.spec.limits, record.limits),
        nic=nic,
        environment=entry.spec.env,
        cpus=cpus,
        command=entry.spec.command,
    )
    return with_image(plan, record.image_config)


def _begun_with(asked: Limits, held: Limits) -> Limits:
    """As asked, but of the disk's traffic only what this host can hold it to, which the record has."""
    return msgspec.structs.replace(
        asked,
        io_weight=held.io_weight,
        io_read_bps=held.io_read_bps,
        io_write_bps=held.io_write_bps,
    )


def outdated(entry: SetEntry, record: VERecord) -> Iterator[str]:
    """Fields that the running VE was started with otherwise. A new name is not among them: its next start takes it."""
    if entry.ip != record.ip:
        yield "ip"
    elif entry.mac != record.mac:
        yield "mac"
    if entry.spec.env != record.env:
        yield "env"
    if entry.spec.command != record.command:
        yield "command"
