"""What a host may claim, in number and size: pure, and asked where messages of hosts come in.

A host may say anything. What is out of bounds is InvalidInput there and ends that host's session; so neither the store nor
whoever reckons with it ever meets such a value, and one host can't stop a controller that serves them all.
"""

import re
from collections.abc import Iterable, Mapping
from ipaddress import AddressValueError, IPv4Address

import msgspec

from veapi import codec
from veapi.errors import InvalidInput
from veapi.model import (
    EVENTS_KEPT,
    Event,
    HeldImage,
    HostFacts,
    ImageConfig,
    Resources,
    SetEntry,
    SnapshotStatus,
    VEReport,
    VEStatus,
)
from veapi.validate import SPEC_LIMIT_BYTES

NUMBER_LIMIT = 2**53
"""Largest whole number that every reader of the wire and every sum over hosts keeps exactly."""
CPU_LIMIT_MILLIS = 2**50
"""Less, as the wire has cores: more would not come back as the same number of thousandths."""
EARLIEST_S = 0.0
LATEST_S = 7_258_118_400.0
"""The years 1970 to 2200, in Unix seconds."""
PORT_LIMIT = 65_535
IMAGES_LIMIT = 1_000
LABELS_LIMIT = 64
REPORTS_LIMIT = 10_000
"""Reports in one message."""
ADDRESSES_LIMIT = 16
SNAPSHOTS_LIMIT = 256
"""Of one VE: more than its record has room for wishes."""
ENTRY_LIMIT_BYTES = 2 * SPEC_LIMIT_BYTES
TAG_LIMIT_BYTES = 128
ERROR_LIMIT_BYTES = 200
"""Of a snapshot: there may be many in one status."""
TEXT_LIMIT_BYTES = 1024
_CPUS = re.compile(r"(?:[0-9]{1,5}(?:-[0-9]{1,5})?(?:,[0-9]{1,5}(?:-[0-9]{1,5})?)*)?", re.ASCII)
CONFIG_LIMIT_BYTES = 64 << 10
_LISTENS_AT = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")
HINT = "look at that host's veagent: it must be of this version, and its machine's clock right"


def check_count(field: str, count: int, limit: int) -> None:
    """InvalidInput when a host sends more of them than `limit`."""
    if count > limit:
        raise InvalidInput(f"{field}: {count} are more than {limit}", hint=HINT)


def check_text(field: str, value: str) -> None:
    """InvalidInput for a text of more than 1 KiB."""
    size = len(value.encode())
    if size > TEXT_LIMIT_BYTES:
        raise InvalidInput(f"{field}: {size} bytes are more than {TEXT_LIMIT_BYTES}", hint=HINT)


def check_capacity(capacity: Resources) -> None:
    """InvalidInput for an amount that no host has."""
    _check_amount("capacity", capacity)


def _check_amount(field: str, amount: Resources) -> None:
    _check_number(f"{field}.cpu_millis", amount.cpu_millis, CPU_LIMIT_MILLIS)
    _check_number(f"{field}.memory_bytes", amount.memory_bytes)
    _check_number(f"{field}.disk_bytes", amount.disk_bytes)
    _check_number(f"{field}.pids", amount.pids)


def check_facts(facts: HostFacts) -> None:
    """InvalidInput, naming the field, for what no host may say of itself."""
    check_capacity(facts.capacity)
    _check_texts("facts", (facts.boot_id, facts.version, facts.refuses, facts.machine_id))
    _check_address("address", facts.address)
    _check_port("peer_port", facts.peer_port)
    if facts.metrics_address:
        _check_listens_at("metrics_address", facts.metrics_address)
    _check_labels(facts.labels)
    check_count("images", len(facts.images), IMAGES_LIMIT)
    for image in facts.images:
        _check_image(image)


def check_image_config(config: ImageConfig) -> None:
    """InvalidInput for one that is too large for the store."""
    texts = (*config.command, *config.env, *config.env.values(), config.user, config.cwd)
    size = sum(len(text.encode()) + 1 for text in texts)
    if size > CONFIG_LIMIT_BYTES:
        raise InvalidInput(
            f"config of an image: {size} bytes are more than {CONFIG_LIMIT_BYTES}", hint=HINT
        )


def check_report(report: VEReport) -> VEReport:
    """The report with its times in whole microseconds, as the store has them, and its prose not at any length.

    InvalidInput, naming the field, for what no host may say of a VE.
    """
    _check_texts("report", (report.uid, report.name, report.project))
    entry = report.entry if report.orphan else None
    if entry is not None:
        _check_entry(entry)
    return msgspec.structs.replace(report, status=_checked_status(report.status), entry=entry)


def _check_entry(entry: SetEntry) -> None:
    """Of an orphan: what can't be the record of a VE can't have been asked of it. Its words are checked where it is adopted."""
    size = codec.entry_out(entry).ByteSize()
    if size > ENTRY_LIMIT_BYTES:
        raise InvalidInput(f"entry: {size} bytes are more than {ENTRY_LIMIT_BYTES}", hint=HINT)
    numbers = {
        "generation": entry.generation,
        "placement_generation": entry.placement_generation,
        "restart_seq": entry.restart_seq,
        "run_generation": entry.run_generation,
        "root.seq": entry.root.seq,
        **{
            f"spec.{name}": amount
            for name, amount in msgspec.structs.asdict(entry.spec.limits).items()
        },
    }
    for field, number in numbers.items():
        _check_number(f"entry.{field}", number)
    for wish in entry.snapshots:
        _check_number("entry.snapshots.seq", wish.seq)
        _whole_micros("entry.snapshots.created_at", wish.created_at)


def _checked_status(status: VEStatus) -> VEStatus:
    check_text("status.host", status.host)
    check_count("status.addresses", len(status.addresses), ADDRESSES_LIMIT)
    _check_texts("status.addresses", status.addresses)
    for field in (
        "restarts",
        "observed_generation",
        "placement_generation",
        "observed_restart_seq",
        "observed_root_seq",
        "observed_snapshot_seq",
        "init_pid",
        "oom_kills",
        "disk_used_bytes",
    ):
        _check_number(f"status.{field}", getattr(status, field))
    _check_cpus(status.cpus)
    _check_amount("status.in_force", status.in_force)
    check_count("status.snapshots", len(status.snapshots), SNAPSHOTS_LIMIT)
    started = status.started_at
    return msgspec.structs.replace(
        status,
        reason=_cut(status.reason),
        message=_cut(status.message),
        started_at=None if started is None else _whole_micros("status.started_at", started),
        events=tuple(_checked_event(event) for event in status.events[-EVENTS_KEPT:]),
        snapshots=tuple(_checked_snapshot(each) for each in status.snapshots),
    )


def _check_cpus(cpus: str) -> None:
    check_text("status.cpus", cpus)
    if _CPUS.fullmatch(cpus) is None:
        raise InvalidInput(f"status.cpus: {cpus[:80]!r} is no list of processors", hint=HINT)


def _checked_snapshot(snapshot: SnapshotStatus) -> SnapshotStatus:
    if len(snapshot.tag.encode()) > TAG_LIMIT_BYTES:
        raise InvalidInput(f"status.snapshots: a tag of {len(snapshot.tag)} characters", hint=HINT)
    check_text("status.snapshots.image_digest", snapshot.image_digest)
    _check_number("status.snapshots.seq", snapshot.seq)
    _check_number("status.snapshots.size_bytes", snapshot.size_bytes)
    return msgspec.structs.replace(
        snapshot,
        taken_at=_whole_micros("status.snapshots.taken_at", snapshot.taken_at),
        error=_cut(snapshot.error, ERROR_LIMIT_BYTES),
    )


def _checked_event(event: Event) -> Event:
    check_text("event.host", event.host)
    return msgspec.structs.replace(
        event,
        at=_whole_micros("event.time", event.at),
        reason=_cut(event.reason),
        message=_cut(event.message),
    )


def _check_address(field: str, value: str) -> None:
    """What other hosts send to: never a name that somebody would have to look up."""
    check_text(field, value)
    try:
        address = IPv4Address(value)
    except AddressValueError:
        raise InvalidInput(f"{field}: {value!r} is not an IPv4 address", hint=HINT) from None
    if address.is_unspecified or address.is_multicast:
        raise InvalidInput(f"{field}: {value} is not the address of a host", hint=HINT)


def _check_listens_at(field: str, value: str) -> None:
    check_text(field, value)
    found = _LISTENS_AT.fullmatch(value)
    if found is None:
        raise InvalidInput(f"{field}: {value!r} is not host:port", hint=HINT)
    _check_port(field, int(found[2]))


def _check_port(field: str, port: int) -> None:
    if not 1 <= port <= PORT_LIMIT:
        raise InvalidInput(f"{field}: {port} is not a port from 1 to {PORT_LIMIT}", hint=HINT)


def _check_image(image: HeldImage) -> None:
    _check_texts("images", (image.digest, image.blob_digest))
    _check_number("images.size_bytes", image.size_bytes)
    _check_number("images.blob_bytes", image.blob_bytes)


def _check_labels(labels: Mapping[str, str]) -> None:
    check_count("labels", len(labels), LABELS_LIMIT)
    _check_texts("labels", labels)
    _check_texts("labels", labels.values())


def _check_texts(field: str, values: Iterable[str]) -> None:
    for value in values:
        check_text(field, value)


def _check_number(field: str, value: int, limit: int = NUMBER_LIMIT) -> None:
    if not 0 <= value <= limit:
        raise InvalidInput(f"{field}: {value:.6g} is not from 0 to {limit}", hint=HINT)


def _whole_micros(field: str, seconds: float) -> float:
    """As it comes back from the store; else what was written would for ever differ from what was said."""
    if not EARLIEST_S <= seconds <= LATEST_S:
        raise InvalidInput(f"{field}: {seconds:.6g} s is not in the years 1970 to 2200", hint=HINT)
    stamp = codec.to_timestamp(seconds)
    assert stamp is not None
    return codec.from_timestamp(stamp)


def _cut(prose: str, limit_bytes: int = TEXT_LIMIT_BYTES) -> str:
    """Prose may quote what a program in a VE said, so its length is no fault of the host."""
    return prose.encode()[:limit_bytes].decode(errors="ignore")
