"""vectl host taint."""

from typing import TYPE_CHECKING

import click

from veapi import wishes
from veapi.errors import InvalidInput
from vectl import options
from vectl.session import Session, pass_session
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import Host
    from vectl.client import Client

_REMOVAL = "-"


@options.command("taint")
@click.argument("name", shell_complete=options.complete_host)
@click.argument("taints", nargs=-1)
@pass_session
def taint(session: Session, name: str, taints: tuple[str, ...]) -> None:
    """Say what VEs must tolerate to get on a host: KEY, KEY=VALUE, with :prefer only if others fit too; KEY- takes it away.

    VEs that are there stay.
    """
    if not taints:
        raise InvalidInput("taint wants KEY[=VALUE][:prefer] or KEY-", hint="e.g. gpu=a100 or gpu-")
    add = [wishes.taint("taint", each) for each in taints if not each.endswith(_REMOVAL)]
    remove = [each.removesuffix(_REMOVAL) for each in taints if each.endswith(_REMOVAL)]

    async def work(client: "Client") -> "Host":
        return await client.taint_host(name, add, remove)

    host = session.run(work)
    click.echo(one_line(f"host/{host.name} tainted: {', '.join(host.taints) or 'by nothing'}"))
