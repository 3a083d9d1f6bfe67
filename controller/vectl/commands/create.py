"""vectl create."""

from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput
from vectl import options
from vectl.follow import Goal
from vectl.mutate import Ask, Waiting, carry_out
from vectl.session import Session, pass_session
from vectl.specoptions import host_option, spec_options
from vectl.wanted import Wanted

if TYPE_CHECKING:
    from vectl.client import Client

MAX_COUNT = 1000


@options.command("create")
@click.argument("name")
@click.option(
    "--image", required=True, shell_complete=options.complete_image, help="Tag or digest."
)
@spec_options()
@host_option
@click.option("--count", type=options.Count(MAX_COUNT), help="Make NAME-0 to NAME-(N-1).")
@click.option("--stopped", is_flag=True, help="Make it, but don't start it.")
@options.timeout_option()
@options.detach_option
@pass_session
def create(
    session: Session,
    *,
    name: str,
    image: str,
    host: str | None,
    count: int | None,
    stopped: bool,
    timeout_s: float,
    detach: bool,
) -> None:
    """Make a VE and wait until it runs.

    What is not given has the controller's defaults. When no host fits, the VE stays Pending and the exit code is 5.
    """
    if count is not None and count > 1 and session.asked.get("ip"):
        raise InvalidInput(
            "--ip and --count: one address is not enough for many", hint="leave --ip out"
        )
    names = [name] if count is None else [f"{name}-{index}" for index in range(count)]
    run = "stopped" if stopped else "running"
    wanted = [
        Wanted(name=each, image=image, run=run, host=host or "", **session.asked)  # type: ignore[arg-type]
        for each in names
    ]
    how = Waiting(timeout_s, detach, fresh=True)

    async def work(client: "Client") -> None:
        await carry_out(client, session, [_ask(client, each) for each in wanted], how)

    session.run(work)


def _ask(client: "Client", wanted: Wanted) -> Ask:
    goal = Goal.STOPPED if wanted.run == "stopped" else Goal.RUNNING
    return Ask(wanted.name, lambda: client.create(wanted), goal, "created")
