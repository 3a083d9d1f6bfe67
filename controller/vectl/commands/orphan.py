"""vectl orphan."""

from functools import partial
from typing import TYPE_CHECKING

import click

from vectl import gone, options
from vectl.columns import ORPHAN_COLUMNS
from vectl.output import Printer, Style
from vectl.session import Session, pass_session
from vectl.sure import sure

if TYPE_CHECKING:
    from veapi.v1.api_pb2 import Orphan
    from veapi.v1.types_pb2 import VE
    from vectl.client import Client

_host_option = click.option(
    "--host", default="", shell_complete=options.complete_host, help="Only of this host."
)


@options.command("list")
@_host_option
@options.output_option(wide=False)
@options.no_headers_option
@pass_session
def list_(session: Session, *, host: str, style: Style, no_headers: bool) -> None:
    """What hosts have and nobody asks for: roots and VEs of which the cluster does not know."""

    async def work(client: "Client") -> "list[Orphan]":
        return await client.orphans(host)

    orphans = session.run(work)
    printer = Printer(style, ORPHAN_COLUMNS, prefix="orphan/", headers=not no_headers)
    printer.many(orphans, [each.uid for each in orphans])


@options.command("adopt")
@click.argument("uid")
@_host_option
@click.option("--name", default="", help="Its name from now on.  [default: as it was]")
@pass_session
def adopt(session: Session, uid: str, *, host: str, name: str) -> None:
    """Make an orphan a VE again, where it is and as it was. UID may also be the name that it had."""

    async def work(client: "Client") -> "VE":
        return await client.adopt_orphan(uid, host=host, name=name)

    ve = session.run(work)
    click.echo(f"ve/{ve.name} adopted: on {ve.placement.host}, {', '.join(ve.status.addresses)}")


@options.command("purge")
@click.argument("uid")
@_host_option
@options.yes_option
@options.timeout_option()
@options.detach_option
@pass_session
def purge(
    session: Session, uid: str, *, host: str, yes: bool, timeout_s: float, detach: bool
) -> None:
    """Remove an orphan from its host, with its disk, for good, and wait until it is gone."""
    if not yes:
        question = f"Remove orphan {uid} for good, with its disk?"
        sure(question, doing=f"purging {uid}")

    async def work(client: "Client") -> None:
        orphan = await client.purge_orphan(uid, host=host)
        session.stands = gone.STANDS
        what = f"orphan/{orphan.uid}"
        if detach:
            click.echo(f"{what} will be purged from {orphan.host}")
            return
        there = partial(gone.is_there, client, orphan.uid, orphan.name or orphan.uid)
        await gone.until_gone(there, what=what, host=orphan.host, timeout_s=timeout_s)
        click.echo(f"{what} purged from {orphan.host}")

    session.run(work)
