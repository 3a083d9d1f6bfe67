"""vectl cluster status, disarm, arm."""

from typing import TYPE_CHECKING

import click

from vectl import options
from vectl.output import Style, moment, one
from vectl.session import Session, pass_session
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.hostlife_pb2 import SwitchStatus
    from vectl.client import Client


_RESTORED = "nobody has confirmed that yet, so nothing is changed: vectl cluster confirm"


@options.command("status")
@options.output_option(wide=False)
@pass_session
def status(session: Session, *, style: Style) -> None:
    """Who leads, whether hosts fence their VEs, and whether VEs are moved from silent hosts."""

    async def work(client: "Client") -> "SwitchStatus":
        return await client.host_life.status()

    found = session.run(work)
    match style:
        case "json" | "yaml":
            one(found, style)
        case "name":
            click.echo(one_line(f"cluster/{found.cluster}"))
        case _:
            for line in facts(found):
                click.echo(line)


@options.command("disarm")
@click.option(
    "--for", "for_s", type=options.Duration(), required=True, help="How long, e.g. 1h; 7d at most."
)
@pass_session
def disarm(session: Session, *, for_s: float) -> None:
    """Fence and move nothing for a while, for planned work on the network or the controllers."""

    async def work(client: "Client") -> "SwitchStatus":
        return await client.host_life.disarm(for_s)

    found = session.run(work)
    click.echo(one_line(f"cluster/{found.cluster} disarmed until {moment(found.disarmed_until)}"))


@options.command("arm")
@pass_session
def arm(session: Session) -> None:
    """End a disarming before its time. Each host's VEs are moved again once it has confirmed that."""

    async def work(client: "Client") -> "SwitchStatus":
        return await client.host_life.arm()

    found = session.run(work)
    click.echo(one_line(f"cluster/{found.cluster} armed"))


def facts(found: "SwitchStatus") -> list[str]:
    """A line for each thing that is known."""
    timing, until = found.timing, moment(found.disarmed_until)
    rows = [
        ("Name", found.cluster),
        ("Incarnation", str(found.incarnation)),
        ("Restored", _RESTORED if found.restored else ""),
        ("Leader", f"{found.leader}, since revision {found.epoch}"),
        ("Heartbeat", f"each {timing.heartbeat_s:g}s"),
        ("Fences", f"after {timing.fence_after_s:g}s, killing takes {timing.kill_within_s:g}s"),
        ("Moves", f"after {timing.move_after_s:g}s of silence"),
        ("Armed", f"no, until {until}" if until else "yes"),
        ("Stopped", found.moves_stopped),
    ]
    lines = [f"{title + ':':<13}{one_line(text)}" for title, text in rows if text]
    lines += [one_line(f"Unconfirmed: {each.host}: {each.why}") for each in found.unconfirmed]
    return lines
