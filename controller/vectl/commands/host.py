"""vectl host."""

from typing import TYPE_CHECKING

import click

from veapi.units import format_size
from vectl import options
from vectl.columns import HOST_COLUMNS, cores, labels_text
from vectl.output import Printer, Style, age, moment, one
from vectl.session import Session, pass_session
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import Host
    from vectl.client import Client


@options.command("list")
@options.output_option()
@click.option("-l", "--selector", default="", help="Labels, e.g. rack=r1.")
@options.no_headers_option
@pass_session
def list_(session: Session, *, style: Style, selector: str, no_headers: bool) -> None:
    """Hosts, what they have and what is committed."""

    async def work(client: "Client") -> "list[Host]":
        return await client.hosts(selector=selector)

    hosts = session.run(work)
    printer = Printer(style, HOST_COLUMNS, prefix="host/", headers=not no_headers)
    printer.many(hosts, [host.name for host in hosts])


@options.command("show")
@click.argument("name", shell_complete=options.complete_host)
@options.output_option(wide=False)
@pass_session
def show(session: Session, name: str, *, style: Style) -> None:
    """All about one host."""

    async def work(client: "Client") -> "Host":
        return await client.host(name)

    host = session.run(work)
    match style:
        case "json" | "yaml":
            one(host, style)
        case "name":
            click.echo(f"host/{host.name}")
        case _:
            for line in facts(host):
                click.echo(line)


def facts(host: "Host") -> list[str]:
    """A line for each thing that is known."""
    capacity, committed = host.room, host.committed
    rows = [
        ("Name", host.name),
        ("State", host.state),
        ("Cordoned", (host.cordon_reason or "yes") if host.cordoned else ""),
        ("Vouched off", _vouched(host)),
        ("Labels", labels_text(host.labels)),
        ("Taints", ", ".join(host.taints)),
        ("VEs", str(host.ves)),
        ("CPU", f"{cores(committed.cpu)} of {cores(capacity.cpu)} committed"),
        ("Memory", _share(committed.memory_bytes, capacity.memory_bytes)),
        ("Disk", _share(committed.disk_bytes, capacity.disk_bytes)),
        ("Pids", f"{committed.pids} of {capacity.pids} committed"),
        ("Machine", _machine(host)),
        ("Images", str(len(host.images))),
        ("Address", host.address),
        ("Metrics", host.metrics_address),
        ("Version", host.version),
        ("Boot", host.boot_id),
        ("Machine id", host.machine_id),
        ("Heartbeat", _heartbeat(host)),
    ]
    return [f"{title + ':':<13}{one_line(text)}" for title, text in rows if text]


def _vouched(host: "Host") -> str:
    """By whom, and since when."""
    when = moment(host.powered_off_at)
    return f"{when} by {host.powered_off_by}" if when else ""


def _machine(host: "Host") -> str:
    """Its capacity, where VEs may have more or less."""
    has = host.capacity
    if has == host.room:
        return ""
    disk, memory = format_size(has.disk_bytes), format_size(has.memory_bytes)
    return f"{cores(has.cpu)} cores, {memory} of memory, {disk} of disk, {has.pids} pids"


def _share(part: int, whole: int) -> str:
    return f"{format_size(part)} of {format_size(whole)} committed"


def _heartbeat(host: "Host") -> str:
    when = moment(host.last_heartbeat_at)
    return f"{when} ({age(host.last_heartbeat_at)} ago)" if when else ""
