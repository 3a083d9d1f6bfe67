"""What the tables of VEs, hosts, images, projects and events show."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from veapi.units import format_cpu, format_size
from vectl.output import age, moment
from vectl.quotatable import UNLIMITED, cell
from vectl.table import Column

if TYPE_CHECKING:
    from veapi.v1.api_pb2 import Orphan
    from veapi.v1.types_pb2 import VE, Event, Host, Image, Project, Snapshot

RACK_LABEL = "rack"


def labels_text(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def cores(cpu: float) -> str:
    return format_cpu(round(cpu * 1000))


def ve_host(ve: "VE") -> str:
    return ve.status.host or ve.placement.host


def host_state(host: "Host") -> str:
    """With what operators said of it."""
    said = (("Cordoned", host.cordoned), ("VouchedOff", host.HasField("powered_off_at")))
    return ",".join((host.state, *(word for word, holds in said if holds)))


def ve_columns(racks: Mapping[str, str]) -> "list[Column[VE]]":
    """`racks`: of hosts by name."""
    return [
        Column("NAME", lambda ve: ve.name),
        Column("PROJECT", lambda ve: ve.project),
        Column("STATE", lambda ve: ve.status.state),
        Column("HOST", ve_host),
        Column("RACK", lambda ve: racks.get(ve_host(ve), "")),
        Column("IP", lambda ve: ",".join(ve.status.addresses)),
        Column("CPU", lambda ve: cores(ve.spec.cpu)),
        Column("MEM", lambda ve: format_size(ve.spec.memory_bytes)),
        Column("DISK", lambda ve: format_size(ve.spec.disk_bytes)),
        Column("AGE", lambda ve: age(ve.created_at)),
        Column("PIDS", lambda ve: str(ve.spec.pids), wide=True),
        Column("IMAGE", lambda ve: ve.spec.image, wide=True),
        Column("RESTARTS", lambda ve: str(ve.status.restarts), wide=True),
        Column("REASON", lambda ve: ve.status.reason, wide=True),
        Column("LABELS", lambda ve: labels_text(ve.labels), wide=True),
        Column("GROUP", lambda ve: ve.group, wide=True),
        Column("UID", lambda ve: ve.uid, wide=True),
    ]


DELETED_COLUMNS: "list[Column[VE]]" = [
    Column("NAME", lambda ve: ve.name),
    Column("PROJECT", lambda ve: ve.project),
    Column("STATE", lambda ve: ve.status.state),
    Column("HOST", ve_host),
    Column("USED", lambda ve: format_size(ve.status.disk_used_bytes)),
    Column("DELETED", lambda ve: age(ve.delete_requested_at)),
    Column("KEPT UNTIL", lambda ve: moment(ve.purge_at)),
    Column("UID", lambda ve: ve.uid),
    Column("IMAGE", lambda ve: ve.spec.image, wide=True),
    Column("LABELS", lambda ve: labels_text(ve.labels), wide=True),
]

HOST_COLUMNS: "list[Column[Host]]" = [
    Column("NAME", lambda host: host.name),
    Column("STATE", host_state),
    Column("RACK", lambda host: host.labels.get(RACK_LABEL, "")),
    Column("VES", lambda host: str(host.ves)),
    Column("CPU", lambda host: f"{cores(host.committed.cpu)}/{cores(host.room.cpu)}"),
    Column(
        "MEM",
        lambda host: _share(host.committed.memory_bytes, host.room.memory_bytes),
    ),
    Column("DISK", lambda host: _share(host.committed.disk_bytes, host.room.disk_bytes)),
    Column("PIDS", lambda host: f"{host.committed.pids}/{host.room.pids}"),
    Column("ADDRESS", lambda host: host.address, wide=True),
    Column("METRICS", lambda host: host.metrics_address, wide=True),
    Column("VERSION", lambda host: host.version, wide=True),
    Column("HEARTBEAT", lambda host: age(host.last_heartbeat_at), wide=True),
    Column("TAINTS", lambda host: ",".join(host.taints), wide=True),
    Column("LABELS", lambda host: labels_text(host.labels), wide=True),
]

IMAGE_COLUMNS: "list[Column[Image]]" = [
    Column("NAME", lambda image: ",".join(image.tags)),
    Column("DIGEST", lambda image: image.digest[: len("sha256:") + 12]),
    Column("SIZE", lambda image: format_size(image.size_bytes)),
    Column("BLOB", lambda image: format_size(image.blob_bytes)),
    Column("HOSTS", lambda image: str(len(image.hosts))),
    Column("AGE", lambda image: age(image.created_at)),
    Column("HELD BY", lambda image: ",".join(image.hosts), wide=True),
    Column("WHOLE DIGEST", lambda image: image.digest, wide=True),
]

SNAPSHOT_COLUMNS: "list[Column[Snapshot]]" = [
    Column("TAG", lambda snapshot: snapshot.tag),
    Column("STATE", lambda snapshot: snapshot.state),
    Column("AGE", lambda snapshot: age(snapshot.created_at)),
    Column("SIZE", lambda snapshot: format_size(snapshot.size_bytes)),
    Column("BY", lambda snapshot: snapshot.rule or "hand"),
    Column("MESSAGE", lambda snapshot: snapshot.message),
]

ORPHAN_COLUMNS: "list[Column[Orphan]]" = [
    Column("UID", lambda orphan: orphan.uid),
    Column("HOST", lambda orphan: orphan.host),
    Column("NAME", lambda orphan: orphan.name),
    Column("PROJECT", lambda orphan: orphan.project),
    Column("STATE", lambda orphan: orphan.status.state),
    Column("MEM", lambda orphan: format_size(orphan.spec.memory_bytes)),
    Column("DISK", lambda orphan: format_size(orphan.spec.disk_bytes)),
    Column("RECORD", lambda orphan: "yes" if orphan.HasField("spec") else "none"),
]

PROJECT_COLUMNS: "list[Column[Project]]" = [
    Column("NAME", lambda project: project.name),
    Column("VES", lambda project: str(project.ves)),
    Column("CPU", lambda project: cell(project, "cpu_millis"), wide=True),
    Column("MEMORY", lambda project: cell(project, "memory_bytes"), wide=True),
    Column("DISK", lambda project: cell(project, "disk_bytes"), wide=True),
    Column("ADDRESSES", lambda project: cell(project, "addresses"), wide=True),
    Column("SNAPSHOTS", lambda project: cell(project, "snapshots"), wide=True),
    Column("MAX VES", lambda project: str(project.quota.ves or UNLIMITED), wide=True),
    Column("AGE", lambda project: age(project.created_at)),
]

EVENT_COLUMNS: "list[Column[Event]]" = [
    Column("AGE", lambda event: age(event.time)),
    Column("TYPE", lambda event: event.type),
    Column("REASON", lambda event: event.reason),
    Column("PROJECT", lambda event: event.project, wide=True),
    Column("VE", lambda event: event.ve),
    Column("HOST", lambda event: event.host),
    Column("MESSAGE", lambda event: event.message),
]


def _share(part: int, whole: int) -> str:
    return f"{format_size(part)}/{format_size(whole)}"
