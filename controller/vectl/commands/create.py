"""vectl create."""

from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput
from vectl import options
from vectl.follow import Goal
from vectl.mutate import Ask, Waiting, carry_out
from vectl.session import Session, pass_session
from vectl.wanted import Wanted

if TYPE_CHECKING:
    from vectl.client import Client

MAX_COUNT = 1000
MAX_PIDS = 4_194_304


@options.command("create")
@click.argument("name")
@click.option(
    "--image", required=True, shell_complete=options.complete_image, help="Tag or digest."
)
@click.option("--cpu", type=options.Cpu(), help="Cores, e.g. 2 or 0.5.")
@click.option("--memory", type=options.Size(), help="Memory, e.g. 1G.")
@click.option("--disk", type=options.Size(), help="Disk, e.g. 10G.")
@click.option("--pids", type=options.Count(MAX_PIDS), help="Processes and threads at most.")
@click.option("--label", "labels", type=options.Label(), multiple=True, help="k=v; many times.")
@click.option("--host", shell_complete=options.complete_host, help="The one host that may run it.")
@click.option("--ip", help="Address out of the cluster's pool.")
@click.option("--count", type=options.Count(MAX_COUNT), help="Make NAME-0 to NAME-(N-1).")
@click.option("--stopped", is_flag=True, help="Make it, but don't start it.")
@options.timeout_option()
@options.detach_option
@pass_session
def create(  # noqa: PLR0913  # one argument for each option
    session: Session,
    *,
    name: str,
    image: str,
    cpu: int | None,
    memory: int | None,
    disk: int | None,
    pids: int | None,
    labels: tuple[tuple[str, str], ...],
    host: str | None,
    ip: str | None,
    count: int | None,
    stopped: bool,
    timeout_s: float,
    detach: bool,
) -> None:
    """Make a VE and wait until it runs.

    What is not given has the controller's defaults. When no host fits, the VE stays Pending and the exit code is 5.
    """
    if count is not None and count > 1 and ip:
        raise InvalidInput(
            "--ip and --count: one address is not enough for many", hint="leave --ip out"
        )
    names = [name] if count is None else [f"{name}-{index}" for index in range(count)]
    wanted = [
        Wanted(
            name=each,
            image=image,
            labels=dict(labels),
            cpu_millis=cpu or 0,
            memory_bytes=memory or 0,
            disk_bytes=disk or 0,
            pids=pids or 0,
            run="stopped" if stopped else "running",
            ip=ip or "",
            host=host or "",
        )
        for each in names
    ]
    how = Waiting(timeout_s, detach, fresh=True)

    async def work(client: "Client") -> None:
        await carry_out(client, session, [_ask(client, each) for each in wanted], how)

    session.run(work)


def _ask(client: "Client", wanted: Wanted) -> Ask:
    goal = Goal.STOPPED if wanted.run == "stopped" else Goal.RUNNING
    return Ask(wanted.name, lambda: client.create(wanted), goal, "created")
