"""vectl console."""

import sys
from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput
from vectl import options
from vectl.attached import Attached, Detached, window
from vectl.detachkey import DEFAULT, DetachKeys, parse_keys
from vectl.session import Session, pass_session

if TYPE_CHECKING:
    from vectl.client import Client


@options.command("console")
@options.name_argument
@click.option(
    "--detach-key",
    default=DEFAULT,
    show_default=True,
    metavar="KEYS",
    help="Keys that leave it, joined by commas.",
)
@click.option("--force", is_flag=True, help="Take it over from who is there.")
@pass_session
def console(session: Session, name: str, *, detach_key: str, force: bool) -> None:
    """Be at a VE's console, as at the screen and keyboard of a machine.

    What it printed last is shown first. Ctrl-a q leaves it; Ctrl-a twice types one Ctrl-a.
    """
    keys = DetachKeys(parse_keys(detach_key))
    if sys.stdin is None or not sys.stdin.isatty():
        raise InvalidInput(
            "console: our input is no terminal",
            hint=f"`vectl logs -f {name}` shows what it prints, `vectl exec -i` takes a pipe",
        )
    click.echo(f"Console of {name}; {detach_key.replace(',', ' ')} leaves it.", err=True)

    async def work(client: "Client") -> str:
        from vectl.streams import Command  # noqa: PLC0415  # brings grpc

        command = Command(console=True, force=force, stdin=True, window=window())
        try:
            await Attached(client, name, command, typed=keys.watch).run()
        except Detached:
            return f"Left the console of {name}."
        return f"{name} has stopped."

    click.echo(f"\n{session.run(work)}", err=True)
