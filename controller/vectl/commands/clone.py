"""vectl clone."""

from typing import TYPE_CHECKING

import click

from vectl import options
from vectl.follow import Goal
from vectl.mutate import Ask, Waiting, carry_out
from vectl.session import Session, pass_session
from vectl.specoptions import spec_options
from vectl.wanted import Wanted

if TYPE_CHECKING:
    from vectl.client import Client


@options.command("clone")
@options.name_argument
@click.argument("new_name")
@click.option("--snapshot", default="", help="Of this snapshot instead of the root as it is now.")
@spec_options()
@click.option("--stopped", is_flag=True, help="Make it, but don't start it.")
@options.timeout_option()
@options.detach_option
@pass_session
def clone(
    session: Session,
    name: str,
    new_name: str,
    *,
    snapshot: str,
    stopped: bool,
    timeout_s: float,
    detach: bool,
) -> None:
    """Make a VE whose root is a copy of another's, on the same host, and wait until it runs.

    It has the limits of its source but for what is given here, an address of its own, and only the labels that are given.
    """
    given = frozenset(session.asked.keys() - {"labels"})
    run = "stopped" if stopped else "running"
    wanted = Wanted(name=new_name, run=run, given=given, **session.asked)  # type: ignore[arg-type]

    async def work(client: "Client") -> None:
        from vectl.client import new_request_id  # noqa: PLC0415  # brings grpc

        number = new_request_id()
        ask = Ask(
            new_name,
            lambda: client.clone(name, wanted, snapshot=snapshot, request_id=number),
            Goal.STOPPED if stopped else Goal.RUNNING,
            f"cloned from {name}",
        )
        await carry_out(client, session, [ask], Waiting(timeout_s, detach, fresh=True))

    session.run(work)
