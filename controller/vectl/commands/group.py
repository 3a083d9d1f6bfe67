"""vectl group list, show, scale, delete."""

from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput
from veapi.units import format_size
from vectl import options
from vectl.columns import EVENT_COLUMNS, cores, labels_text
from vectl.groupasks import ask_and_wait, complete_group, delete_and_wait
from vectl.output import Printer, Style, age, colours, moment, one
from vectl.session import Session, pass_session
from vectl.sure import sure
from vectl.table import Column, Writer
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.group_pb2 import Group, GroupMember
    from vectl.client import Client

TIMEOUT_S = 600.0
name_argument = click.argument("name", shell_complete=complete_group)

COLUMNS: "list[Column[Group]]" = [
    Column("NAME", lambda group: group.name),
    Column("PROJECT", lambda group: group.project),
    Column("STATE", lambda group: group.status.state),
    Column("WANTED", lambda group: str(group.spec.replicas)),
    Column("VES", lambda group: str(group.status.ves)),
    Column("UPDATED", lambda group: str(group.status.updated)),
    Column("AVAILABLE", lambda group: str(group.status.available)),
    Column("REVISION", lambda group: str(group.status.revision)),
    Column("AGE", lambda group: age(group.created_at)),
    Column("IMAGE", lambda group: group.spec.template.spec.image, wide=True),
    Column("MAX UNAVAILABLE", lambda group: group.spec.max_unavailable, wide=True),
    Column("REASON", lambda group: group.status.reason, wide=True),
    Column("LABELS", lambda group: labels_text(group.labels), wide=True),
]
MEMBER_COLUMNS: "list[Column[GroupMember]]" = [
    Column("VE", lambda each: each.name),
    Column("STATE", lambda each: each.state),
    Column("HOST", lambda each: each.host),
    Column("REVISION", lambda each: f"{each.revision}{' drifted' if each.drifted else ''}"),
    Column("AVAILABLE", lambda each: "yes" if each.available else "no"),
    Column("WHY NOT", lambda each: each.message),
]


@options.command("list")
@options.output_option()
@options.no_headers_option
@options.all_projects_option
@pass_session
def list_(session: Session, *, style: Style, no_headers: bool, all_projects: bool) -> None:
    """Groups, and how many of their VEs are as they shall be."""

    async def work(client: "Client") -> "list[Group]":
        from vectl.groupcalls import Groups  # noqa: PLC0415  # brings grpc

        return await Groups(client).list(all_projects=all_projects)

    groups = session.run(work)
    printer = Printer(style, COLUMNS, prefix="group/", headers=not no_headers)
    printer.many(groups, [group.name for group in groups])


@options.command("show")
@name_argument
@options.output_option(wide=False)
@pass_session
def show(session: Session, name: str, *, style: Style) -> None:
    """All about one group: its VEs, and what happened last."""

    async def work(client: "Client") -> "Group":
        from vectl.groupcalls import Groups  # noqa: PLC0415  # brings grpc

        return await Groups(client).get(name)

    group = session.run(work)
    match style:
        case "json" | "yaml":
            one(group, style)
        case "name":
            click.echo(f"group/{group.name}")
        case _:
            for line in [*facts(group), *_members(group), *_events(group)]:
                click.echo(line)


@options.command("scale")
@name_argument
@click.argument("replicas", required=False)
@click.option("--replicas", "wanted", metavar="N", help="The same, as kubectl has it.")
@options.timeout_option(TIMEOUT_S)
@options.detach_option
@pass_session
def scale(
    session: Session,
    name: str,
    replicas: str | None,
    *,
    wanted: str | None,
    timeout_s: float,
    detach: bool,
) -> None:
    """Change how many VEs there are, and wait until it is so.

    Down: the highest numbers are deleted, and kept for a time as all that is deleted.
    """
    from veapi.validate import MAX_REPLICAS  # noqa: PLC0415  # the model is not for help

    if (replicas is None) == (wanted is None):
        raise InvalidInput("say once how many VEs there shall be", hint="vectl group scale web 5")
    replicas = replicas or wanted or ""
    if not (replicas.isascii() and replicas.isdigit() and int(replicas[:9]) <= MAX_REPLICAS):
        raise InvalidInput(
            f"replicas: {replicas[:80]!r} is not a number from 0 to {MAX_REPLICAS}",
            hint="write a whole number",
        )
    ask_and_wait(
        session,
        name,
        lambda groups: groups.scale(name, int(replicas)),
        f"scaled to {int(replicas)}",
        timeout_s=timeout_s,
        detach=detach,
    )


@options.command("delete")
@name_argument
@click.option("--keep-ves", is_flag=True, help="The VEs stay, and belong to no group.")
@click.option("--purge", is_flag=True, help="Keep nothing of the VEs.")
@options.yes_option
@options.timeout_option(TIMEOUT_S)
@options.detach_option
@pass_session
def delete(
    session: Session,
    name: str,
    *,
    keep_ves: bool,
    purge: bool,
    yes: bool,
    timeout_s: float,
    detach: bool,
) -> None:
    """Delete a group with its VEs, and wait until it is gone. The VEs' disks are kept for a time unless --purge is given."""
    if keep_ves and purge:
        raise InvalidInput(
            "--keep-ves and --purge: they are opposites", hint="leave one of them out"
        )
    if not yes:
        how = "its VEs stay" if keep_ves else "with its VEs"
        sure(f"Delete group {name}, {how}?", doing=f"deleting group {name}")

    async def work(client: "Client") -> None:
        await delete_and_wait(
            client,
            session,
            [(name, "")],
            keep_ves=keep_ves,
            purge=purge,
            timeout_s=None if detach else timeout_s,
        )

    session.run(work)


def facts(group: "Group") -> list[str]:
    """A line for each thing that is known."""
    spec, status, ve = group.spec, group.status, group.spec.template.spec
    rows = [
        ("Name", group.name),
        ("Project", group.project),
        ("UID", group.uid),
        ("State", status.state),
        ("Reason", ": ".join(part for part in (status.reason, status.message) if part)),
        ("Wanted", str(spec.replicas)),
        ("VEs", f"{status.ves}, {status.updated} updated, {status.available} available"),
        ("Revision", str(status.revision)),
        ("Image", ve.image),
        ("CPU", cores(ve.cpu)),
        ("Memory", format_size(ve.memory_bytes)),
        ("Disk", format_size(ve.disk_bytes)),
        ("VE labels", labels_text(spec.template.labels)),
        ("Max unavailable", spec.max_unavailable),
        ("Min ready", f"{spec.min_ready:g}s"),
        ("Deadline", f"{spec.progress_deadline:g}s without progress"),
        ("Labels", labels_text(group.labels)),
        ("Created", moment(group.created_at)),
        ("Generation", str(group.generation)),
        ("Delete asked", moment(group.delete_requested_at)),
    ]
    return [f"{title + ':':<18}{one_line(text)}".rstrip() for title, text in rows if text]


def _members(group: "Group") -> list[str]:
    if not group.status.members:
        return ["VEs:              none"]
    writer = Writer(MEMBER_COLUMNS, wide=False, colour=colours())
    return ["VEs:", *("  " + line for line in writer.lines(group.status.members, titles=True))]


def _events(group: "Group") -> list[str]:
    if not group.status.events:
        return ["Events:           none"]
    columns = [each for each in EVENT_COLUMNS if each.title not in ("VE", "PROJECT", "HOST")]
    writer = Writer(columns, wide=False, colour=colours())
    return ["Events:", *("  " + line for line in writer.lines(group.status.events, titles=True))]
