"""vectl rebuild."""

from functools import partial
from typing import TYPE_CHECKING

import click

from vectl import options
from vectl.commands.run import stop_timeout_option, times
from vectl.follow import Goal
from vectl.mutate import Ask, Waiting, carry_out
from vectl.session import Session, pass_session
from vectl.sure import some, sure

if TYPE_CHECKING:
    from vectl.client import Client


@options.command("rebuild")
@options.names_argument
@click.option(
    "--image",
    default="",
    shell_complete=options.complete_image,
    help="Tag or digest.  [default: its own image, as the tag is now]",
)
@options.yes_option
@stop_timeout_option
@options.detach_option
@pass_session
def rebuild(
    session: Session,
    names: tuple[str, ...],
    *,
    image: str,
    yes: bool,
    timeout_s: float | None,
    detach: bool,
) -> None:
    """Give VEs new roots from an image, and wait until they run again (those that ran).

    All that was written to the root is lost; name, address, limits and snapshots stay.
    """
    grace_s, wait_s = times(timeout_s)
    if not yes:
        _confirm(names)

    async def work(client: "Client") -> None:
        def ask(name: str) -> Ask:
            call = partial(client.rebuild, name, image, stop_timeout_s=grace_s)
            return Ask(name, call, Goal.SETTLED, "rebuilt")

        await carry_out(client, session, [ask(name) for name in names], Waiting(wait_s, detach))

    session.run(work)


def _confirm(names: tuple[str, ...]) -> None:
    question = f"Replace the root of {some(names)}? What is on it is lost."
    sure(question, doing=f"rebuilding {some(names)}")
