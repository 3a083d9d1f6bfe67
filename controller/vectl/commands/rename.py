"""vectl rename."""

from typing import TYPE_CHECKING

import click

from vectl import options
from vectl.session import Session, pass_session

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import VE
    from vectl.client import Client


@options.command("rename")
@options.name_argument
@click.argument("new_name")
@pass_session
def rename(session: Session, name: str, new_name: str) -> None:
    """Give a VE another name. Inside, its host name follows at its next start."""

    async def work(client: "Client") -> "VE":
        return await client.rename(name, new_name)

    ve = session.run(work)
    click.echo(f"ve/{name} renamed to {ve.name}; its host name follows at its next start")
