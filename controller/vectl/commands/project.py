"""vectl project."""

from typing import TYPE_CHECKING

import click

from vectl import options
from vectl.columns import PROJECT_COLUMNS
from vectl.output import Printer, Style
from vectl.session import Session, pass_session
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import Project
    from vectl.client import Client


@options.command("create")
@click.argument("name")
@pass_session
def create(session: Session, name: str) -> None:
    """Make a project."""

    async def work(client: "Client") -> "Project":
        return await client.create_project(name)

    click.echo(f"project/{session.run(work).name} created")


@options.command("delete")
@click.argument("name")
@pass_session
def delete(session: Session, name: str) -> None:
    """Delete a project that has no VE, no deleted one that is kept, and no group. The project `default` stays."""

    async def work(client: "Client") -> None:
        await client.delete_project(name)

    session.run(work)
    click.echo(one_line(f"project/{name} deleted"))


@options.command("list")
@options.output_option()
@options.no_headers_option
@pass_session
def list_(session: Session, *, style: Style, no_headers: bool) -> None:
    """Projects and how many VEs each has; with -o wide also what else, of what each may have."""

    async def work(client: "Client") -> "list[Project]":
        return await client.projects()

    projects = session.run(work)
    printer = Printer(style, PROJECT_COLUMNS, prefix="project/", headers=not no_headers)
    printer.many(projects, [project.name for project in projects])
