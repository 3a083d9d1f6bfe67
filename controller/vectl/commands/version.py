"""vectl version."""

from typing import TYPE_CHECKING

import click

from veapi import __version__
from vectl import options
from vectl.session import Session, pass_session
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.api_pb2 import VersionResponse
    from vectl.client import Client


@options.command("version")
@click.option("--client", "client_only", is_flag=True, help="Ask no controller.")
@pass_session
def version(session: Session, *, client_only: bool) -> None:
    """Versions of vectl and of the controller, which cluster it is and who leads."""
    click.echo(f"vectl {__version__}")
    if client_only:
        return

    async def work(client: "Client") -> "VersionResponse":
        return await client.version()

    found = session.run(work)
    click.echo(
        one_line(
            f"vecontroller {found.version}, cluster {found.cluster}, led by {found.leader}"
            f" (epoch {found.epoch}, incarnation {found.incarnation})"
        )
    )
