"""vectl events."""

from typing import TYPE_CHECKING

import click

from vectl import options
from vectl.columns import EVENT_COLUMNS
from vectl.output import Printer, Style
from vectl.session import Session, pass_session

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import Event
    from vectl.client import Client


@options.command("events")
@click.argument("name", required=False, default="", shell_complete=options.complete_ve)
@click.option("-w", "--watch", is_flag=True, help="Then show new ones as they come.")
@options.output_option()
@options.no_headers_option
@options.all_projects_option
@pass_session
def events(
    session: Session, name: str, *, watch: bool, style: Style, no_headers: bool, all_projects: bool
) -> None:
    """What happened to VEs, oldest first; to one VE when it is named."""
    printer: Printer[Event] = Printer(style, EVENT_COLUMNS, prefix="ve/", headers=not no_headers)

    async def once(client: "Client") -> None:
        found = await client.events(ve=name, all_projects=all_projects)
        printer.many(found, [event.ve for event in found])

    async def for_ever(client: "Client") -> None:
        if style in ("table", "wide"):
            printer.many([], [])
        async for event in client.watch_events(ve=name, all_projects=all_projects):
            printer.later(event, event.ve)

    session.run(for_ever if watch else once)
