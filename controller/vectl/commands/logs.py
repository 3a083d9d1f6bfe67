"""vectl logs."""

import sys
from typing import TYPE_CHECKING

import click

from veapi.clock import SystemClock
from vectl import options
from vectl.moment import parse_since
from vectl.session import Session, pass_session
from vectl.text import EscapeFilter

if TYPE_CHECKING:
    from vectl.client import Client

_MAX_LINES = 1_000_000


@options.command("logs")
@options.name_argument
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("--tail", type=options.Count(_MAX_LINES), help="Only the last lines.")
@click.option("--since", help="Only what was written since: 10m ago, or a time.")
@pass_session
def logs(session: Session, name: str, *, follow: bool, tail: int | None, since: str | None) -> None:
    """What a VE wrote to its console.

    On a terminal, escape sequences and control characters are left out; into a file or pipe goes every byte.
    """
    began = parse_since(since, now=SystemClock().wall()) if since is not None else 0.0
    harmless = EscapeFilter() if sys.stdout.isatty() else None

    async def work(client: "Client") -> None:
        async for data in client.logs(name, follow=follow, tail=tail or 0, since=began):
            if harmless is None:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            else:
                click.echo(harmless.feed(data), nl=False)

    session.run(work)
