"""vectl capacity."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from veapi import units
from veapi.errors import InvalidInput
from veapi.units import format_size
from vectl import options
from vectl.columns import cores
from vectl.options import field_of
from vectl.output import Style, colours, one
from vectl.session import Session, pass_session
from vectl.table import Column, Writer
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.scheduler_pb2 import CapacityResponse, FlavorCapacity, Left, Loss
    from vectl.client import Client

_NAMED = 8
_READ: dict[str, Callable[[str, str], float]] = {
    "cpu": lambda field, text: units.parse_cpu(text, field=field) / 1000,
    "memory": lambda field, text: units.parse_size(text, field=field),
    "disk": lambda field, text: units.parse_size(text, field=field),
    "pids": lambda _field, text: options.Count(1 << 30).convert(text, None, None),
}
_FIELDS = {"memory": "memory_bytes", "disk": "disk_bytes"}


class Flavor(click.ParamType[dict[str, float]]):
    """Fields of Resources, of e.g. cpu=2,memory=4G."""

    name = "sizes"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: object
    ) -> dict[str, float]:
        del ctx
        found: dict[str, float] = {}
        for part in str(value).split(","):
            key, _, text = part.strip().partition("=")
            if key not in _READ or _FIELDS.get(key, key) in found:
                raise InvalidInput(
                    f"{field_of(param)}: {part[:80]!r} is not one of {', '.join(_READ)}, once each",
                    hint="write e.g. cpu=2,memory=4G,disk=20G,pids=512",
                )
            found[_FIELDS.get(key, key)] = _READ[key](f"flavor.{key}", text)
        return found


@options.command("capacity")
@click.option(
    "--flavor", "flavors", type=Flavor(), multiple=True, help="e.g. cpu=2,memory=4G; many times."
)
@options.output_option(wide=False)
@pass_session
def capacity(session: Session, flavors: tuple[dict[str, float], ...], *, style: Style) -> None:
    """How many more VEs fit: now, after the loss of any one host, of any one rack.

    Told are also what runs out first, and which VEs could not be placed again if a host or a rack was lost. What is left
    out of a flavor is as large as in a new VE.
    """

    async def work(client: "Client") -> "CapacityResponse":
        from veapi.v1.types_pb2 import Resources  # noqa: PLC0415  # protobuf only when asked

        return await client.capacity([Resources(**each) for each in flavors])  # type: ignore[arg-type]

    found = session.run(work)
    if style in ("json", "yaml"):
        one(found, style)
        return
    for line in lines(found):
        click.echo(line)


def lines(found: "CapacityResponse") -> Iterator[str]:
    """A line for each flavor, then one for each loss that would leave VEs without a host."""
    yield from Writer(_COLUMNS, wide=False, colour=colours()).lines(found.flavors, titles=True)
    yield f"{found.hosts_able} of {found.hosts} hosts take VEs."
    for loss in found.losses:
        yield one_line(_stranded(loss))
    if not found.losses:
        yield "All VEs could be placed again after the loss of any one host, and of any one rack."


def _stranded(loss: "Loss") -> str:
    names = [f"{each.project}/{each.name}" for each in loss.stranded]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"Without {loss.kind} {loss.name or '(none)'} {len(names)} of its {loss.ves} VEs have no place: "
        f"{', '.join(names[:_NAMED])}{more} ({loss.stranded[0].why})"
    )


def _size(flavor: "FlavorCapacity") -> str:
    size = flavor.resources
    return (
        f"cpu={cores(size.cpu)},memory={format_size(size.memory_bytes)},"
        f"disk={format_size(size.disk_bytes)},pids={size.pids}"
    )


def _left(left: "Left") -> str:
    return f"{left.more} ({left.name or 'no rack'})"


def _first(flavor: "FlavorCapacity") -> str:
    return ", ".join(f"{stop.resource} on {stop.hosts}" for stop in flavor.stopped_by)


_COLUMNS: "list[Column[FlavorCapacity]]" = [
    Column("FLAVOR", _size),
    Column("NOW", lambda flavor: str(flavor.now)),
    Column("WITHOUT A HOST", lambda flavor: _left(flavor.after_host)),
    Column("WITHOUT A RACK", lambda flavor: _left(flavor.after_rack)),
    Column("FIRST OUT", _first),
]
