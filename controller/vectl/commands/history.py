"""vectl history."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from vectl import options
from vectl.output import Style, age, colours, moment, one
from vectl.session import Session, pass_session
from vectl.table import Column, Writer
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import VE, Placement, Stay
    from vectl.client import Client


@options.command("history")
@options.name_argument
@options.output_option(wide=False)
@pass_session
def history(session: Session, name: str, *, style: Style) -> None:
    """Where a VE lived and why it moved, oldest first; and what it had waited for."""

    async def work(client: "Client") -> "VE":
        return await client.get(name)

    ve = session.run(work)
    match style:
        case "json" | "yaml":
            one(ve.placement, style)
        case "name":
            for stay in stays(ve.placement):
                click.echo(f"host/{stay.host}")
        case _:
            for line in lines(ve):
                click.echo(line)


def lines(ve: "VE") -> Iterator[str]:
    """A line for each stay; the last one lasts."""
    if not ve.placement.host:
        yield one_line(f"ve/{ve.name} has no host yet: {ve.status.message or ve.status.reason}")
        return
    yield from Writer(_COLUMNS, wide=False, colour=colours()).lines(
        stays(ve.placement), titles=True
    )
    if ve.placement.waited_for:
        since = moment(ve.placement.waited_since)
        yield one_line(f"It had waited since {since}: {ve.placement.waited_for}")


def stays(placement: "Placement") -> "list[Stay]":
    """Those that ended, and the one that lasts."""
    from veapi.v1.types_pb2 import Stay  # noqa: PLC0415  # protobuf only when asked

    if not placement.host:
        return []
    now = Stay(
        host=placement.host,
        generation=placement.generation,
        began_at=placement.decided_at,
        message=placement.message,
    )
    return [*placement.past, now]


def _for(stay: "Stay") -> str:
    return age(stay.began_at, now=stay.ended_at.seconds or None)


_COLUMNS: "list[Column[Stay]]" = [
    Column("START", lambda stay: str(stay.generation)),
    Column("HOST", lambda stay: stay.host),
    Column("FROM", lambda stay: moment(stay.began_at)),
    Column("UNTIL", lambda stay: moment(stay.ended_at)),
    Column("FOR", _for),
    Column("WHY THERE", lambda stay: stay.message),
    Column("WHY LEFT", lambda stay: stay.ended),
]
