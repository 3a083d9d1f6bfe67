"""vectl show."""

import shlex
from typing import TYPE_CHECKING

import click

from veapi.units import format_bits, format_size
from vectl import options
from vectl.columns import EVENT_COLUMNS, cores, labels_text
from vectl.output import Style, age, colours, moment, one
from vectl.session import Session, pass_session
from vectl.table import Writer
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import VE, Event
    from vectl.client import Client


@options.command("show")
@options.name_argument
@options.output_option(wide=False)
@pass_session
def show(session: Session, name: str, *, style: Style) -> None:
    """All about one VE; its last events come last."""

    async def work(client: "Client") -> "VE":
        return await client.get(name)

    ve = session.run(work)
    match style:
        case "json" | "yaml":
            one(ve, style)
        case "name":
            click.echo(f"ve/{ve.name}")
        case _:
            for line in [*facts(ve), *_events(list(ve.status.events))]:
                click.echo(line)


def facts(ve: "VE") -> list[str]:
    """A line for each thing that is known."""
    status = ve.status
    rows = [
        ("Name", ve.name),
        ("Project", ve.project),
        ("UID", ve.uid),
        ("State", status.state),
        ("Reason", ": ".join(part for part in (status.reason, status.message) if part)),
        ("Host", status.host or ve.placement.host),
        ("Why there", ve.placement.message),
        ("Addresses", ", ".join(status.addresses)),
        ("Image", ve.spec.image),
        ("Image digest", ve.image_digest),
        *limits(ve),
        *wishes(ve),
        ("Wanted", ve.spec.run),
        ("On host loss", ve.spec.on_host_loss),
        ("Group", f"{ve.group}, its revision {ve.group_revision}" if ve.group else ""),
        ("Labels", labels_text(ve.labels)),
        ("Created", _ago(moment(ve.created_at), age(ve.created_at))),
        ("Started", _ago(moment(status.started_at), age(status.started_at))),
        ("Restarts", str(status.restarts)),
        ("Out of memory", f"{status.oom_kills} kills" if status.oom_kills else ""),
        ("Generation", f"{ve.generation}, carried out {status.observed_generation}"),
        ("Resource version", str(ve.resource_version)),
        ("Delete asked", moment(ve.delete_requested_at)),
        *(
            ("Condition", f"{found.type} {found.status} {found.reason} {found.message}")
            for found in status.conditions
        ),
    ]
    return [f"{title + ':':<18}{one_line(text)}".rstrip() for title, text in rows if text]


def limits(ve: "VE") -> list[tuple[str, str]]:
    """What it may have; weights and rates only where they are not the default."""
    spec = ve.spec
    return [
        ("CPU", cores(spec.cpu)),
        ("CPU weight", str(spec.cpu_weight or "")),
        ("Processors", ve.status.cpus),
        ("Memory", format_size(spec.memory_bytes)),
        ("Swap", format_size(spec.swap_bytes) if spec.swap_bytes else ""),
        ("Disk", format_size(spec.disk_bytes)),
        ("Disk weight", str(spec.io_weight or "")),
        ("Disk reads", f"{format_size(spec.io_read_bps)}/s" if spec.io_read_bps else ""),
        ("Disk writes", f"{format_size(spec.io_write_bps)}/s" if spec.io_write_bps else ""),
        ("Network in", format_bits(spec.net_in_bps) if spec.net_in_bps else ""),
        ("Network out", format_bits(spec.net_out_bps) if spec.net_out_bps else ""),
        ("Pids", str(spec.pids)),
        ("Snapshots", spec.snapshot_schedule),
        ("Environment", " ".join(f"{key}={value}" for key, value in sorted(spec.env.items()))),
        ("Command", shlex.join(spec.command)),
    ]


def wishes(ve: "VE") -> list[tuple[str, str]]:
    """A line for each."""
    kinds = ("require", "prefer", "tolerate", "near", "apart", "spread")
    found = [(kind.capitalize(), text) for kind in kinds for text in getattr(ve.spec, kind)]
    return [*found, ("Priority", str(ve.spec.priority or ""))]


def _ago(when: str, since: str) -> str:
    return f"{when} ({since} ago)" if when else ""


def _events(events: "list[Event]") -> list[str]:
    if not events:
        return ["Events:           none"]
    columns = [column for column in EVENT_COLUMNS if column.title not in ("VE", "PROJECT")]
    writer = Writer(columns, wide=False, colour=colours())
    return ["Events:", *("  " + line for line in writer.lines(events, titles=True))]
