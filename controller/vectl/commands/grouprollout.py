"""vectl group rollout status, pause, resume, undo, history."""

from typing import TYPE_CHECKING

import click

from vectl import options
from vectl.columns import cores
from vectl.commands.group import TIMEOUT_S, name_argument
from vectl.groupasks import ask_and_wait
from vectl.output import Printer, Style, age
from vectl.session import Session, pass_session
from vectl.table import Column

if TYPE_CHECKING:
    from veapi.v1.group_pb2 import Group, GroupRevision
    from vectl.client import Client

MAX_REVISION = 1_000_000_000


def _columns(current: int) -> "list[Column[GroupRevision]]":
    return [
        Column("REVISION", lambda each: f"{each.number}{' *' if each.number == current else ''}"),
        Column("CAUSE", lambda each: each.cause),
        Column("IMAGE", lambda each: each.template.spec.image),
        Column("CPU", lambda each: cores(each.template.spec.cpu)),
        Column("AGE", lambda each: age(each.created_at)),
    ]


@options.command("status")
@name_argument
@options.timeout_option(TIMEOUT_S)
@options.detach_option
@pass_session
def status(session: Session, name: str, *, timeout_s: float, detach: bool) -> None:
    """Wait until the rollout is over, and say how it ended; with --detach say how it is now."""
    ask_and_wait(
        session, name, lambda groups: groups.get(name), "", timeout_s=timeout_s, detach=detach
    )


@options.command("pause")
@name_argument
@pass_session
def pause(session: Session, name: str) -> None:
    """Change no VE any more until `resume`. Missing ones are still made."""
    ask_and_wait(
        session, name, lambda groups: groups.pause(name), "paused", timeout_s=0.0, detach=True
    )


@options.command("resume")
@name_argument
@options.timeout_option(TIMEOUT_S)
@options.detach_option
@pass_session
def resume(session: Session, name: str, *, timeout_s: float, detach: bool) -> None:
    """Go on with a rollout that was paused, or try one again that was stopped; and wait until it is over."""
    ask_and_wait(
        session,
        name,
        lambda groups: groups.resume(name),
        "resumed",
        timeout_s=timeout_s,
        detach=detach,
    )


@options.command("undo")
@name_argument
@click.option(
    "--to", "number", type=options.Count(MAX_REVISION), help="Revision; else the last but one."
)
@options.timeout_option(TIMEOUT_S)
@options.detach_option
@pass_session
def undo(
    session: Session, name: str, *, number: int | None, timeout_s: float, detach: bool
) -> None:
    """Back to an earlier template, as a new revision; and wait until all VEs have it."""
    ask_and_wait(
        session,
        name,
        lambda groups: groups.undo(name, number or 0),
        "rolled back",
        timeout_s=timeout_s,
        detach=detach,
    )


@options.command("history")
@name_argument
@options.output_option(wide=False)
@options.no_headers_option
@pass_session
def history(session: Session, name: str, *, style: Style, no_headers: bool) -> None:
    """The templates that the group had, the newest last."""

    async def work(client: "Client") -> "Group":
        from vectl.groupcalls import Groups  # noqa: PLC0415  # brings grpc

        return await Groups(client).get(name)

    group = session.run(work)
    columns = _columns(group.status.revision)
    printer = Printer(style, columns, prefix="revision/", headers=not no_headers)
    printer.many(group.revisions, [str(each.number) for each in group.revisions])
