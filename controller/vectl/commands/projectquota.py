"""vectl project set, show."""

from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput
from vectl import options
from vectl.options import Cpu, Size
from vectl.output import Style, one
from vectl.quotatable import RESOURCES, UNLIMITED, rows
from vectl.session import Session, pass_session

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import Project
    from vectl.client import Client


class Limit(click.ParamType[int]):
    """As the kind, or `none` or 0: no limit."""

    def __init__(self, kind: click.ParamType[int]) -> None:
        self._kind = kind
        self.name = kind.name

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if str(value).strip().lower() in (UNLIMITED, "0"):
            return 0
        return int(self._kind.convert(value, param, ctx))


_COUNT = Limit(click.IntRange(min=0))


@options.command("set")
@click.argument("name")
@click.option("--ves", type=_COUNT, help="VEs; none: no limit, as with all of these.")
@click.option("--cpu", "cpu_millis", type=Limit(Cpu()), help="Cores of all VEs together.")
@click.option("--memory", "memory_bytes", type=Limit(Size()), help="Memory, e.g. 64G.")
@click.option("--disk", "disk_bytes", type=Limit(Size()), help="Disk limits, and deleted roots.")
@click.option("--addresses", type=_COUNT, help="Addresses.")
@click.option("--snapshots", type=_COUNT, help="Snapshots.")
@pass_session
def set_(session: Session, /, name: str, **amounts: int | None) -> None:
    """Say what a project may have. What is not named stays; less than it has blocks growth, and takes nothing away."""
    asked = {field: amounts[field] for field in RESOURCES}
    given = {field: amount for field, amount in asked.items() if amount is not None}
    if not given:
        raise InvalidInput(
            "what is to be set?", hint=f"e.g. `vectl project set {name} --ves 10 --memory 64G`"
        )

    async def work(client: "Client") -> "Project":
        return await client.set_quota(name, given)

    project = session.run(work)
    click.echo(f"project/{project.name} set")
    above = [
        f"{row.name} {row.shown(row.used)} of {row.limit()}" for row in rows(project) if row.above
    ]
    if above:
        click.echo(f"it has more: {', '.join(above)}; nothing of that may grow", err=True)


@options.command("show")
@click.argument("name")
@options.output_option(wide=False)
@pass_session
def show(session: Session, name: str, *, style: Style) -> None:
    """What a project has, beside what it may have."""

    async def work(client: "Client") -> "Project":
        return await client.project(name)

    project = session.run(work)
    if style == "name":
        click.echo(f"project/{project.name}")
    elif style in ("json", "yaml"):
        one(project, style)
    else:
        click.echo(f"{'RESOURCE':<11}{'USED':<11}QUOTA")
        for row in rows(project):
            click.echo(f"{row.name:<11}{row.shown(row.used):<11}{row.limit()}")
