"""vectl simulate."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput, NoHostFits
from veapi.units import format_size
from vectl import manifest, messagefile, options
from vectl.columns import cores
from vectl.members import with_members
from vectl.output import Style, colours, one
from vectl.session import Ended, Session, pass_session
from vectl.table import Column, Writer
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.simulate_pb2 import (
        SavedView,
        SimulatedHost,
        SimulatedVE,
        SimulateRequest,
        Simulation,
    )
    from vectl.client import Client

_MOST_ADDED = 10_000


@options.command("simulate")
@click.option(
    "--remove-host", "hosts", multiple=True, help="As if that host were gone; many times."
)
@click.option(
    "--remove-rack", "racks", multiple=True, help="As if all hosts of that rack were gone."
)
@click.option("--add", "count", type=options.Count(_MOST_ADDED), help="As if so many hosts came.")
@click.option("--like", default="", help="Which host those are like, but empty.")
@click.option("--rack", default="", help="The rack of those; else that of the host they are like.")
@click.option("--apply", "files", multiple=True, help="As if that manifest were applied.")
@click.option(
    "--view", "view", default="", help="On the view in that file, not on the live cluster."
)
@click.option("--save-view", "save", default="", help="Write the live cluster's view into a file.")
@options.output_option(wide=False)
@pass_session
def simulate(  # noqa: PLR0913  # options
    session: Session,
    *,
    hosts: tuple[str, ...],
    racks: tuple[str, ...],
    count: int | None,
    like: str,
    rack: str,
    files: tuple[str, ...],
    view: str,
    save: str,
    style: Style,
) -> None:
    """What would go where, and what would not fit, if hosts or VEs came or went. Nothing is changed.

    All options together are one case. The code is 5 when a VE that has a host now, or is new, would have none.
    """
    request = _request(hosts, racks, count, like, rack)
    wanted = with_members(manifest.read(files, sys.stdin.buffer))
    asked = bool(hosts or racks or count or wanted)
    if save and (view or asked):
        raise InvalidInput("--save-view stands alone", hint="then: vectl simulate --view FILE ...")
    if not save and not asked and not view:
        raise InvalidInput("simulate what?", hint="e.g. vectl simulate --remove-host h1")
    if view:
        hint = "give a file that `vectl simulate --save-view FILE` wrote"
        messagefile.read(view, request.view, what="view", hint=hint)
        request.view.SetInParent()
    if save:
        _save(session, save)
        return

    async def work(client: "Client") -> "Simulation":
        return await client.simulate(request, wanted)

    found = session.run(work)
    _show(found, style)
    if any(not ve.to_host and ve.why != "waiting" for ve in found.ves):
        raise Ended(NoHostFits.exit_code)


def _request(
    hosts: tuple[str, ...], racks: tuple[str, ...], count: int | None, like: str, rack: str
) -> "SimulateRequest":
    from veapi.v1.simulate_pb2 import AddedHosts, SimulateRequest  # noqa: PLC0415  # protobuf

    if bool(count) != bool(like) or (rack and not count):
        raise InvalidInput(
            "--add and --like go together, and --rack with them",
            hint="e.g. vectl simulate --add 4 --like h1 --rack r3",
        )
    add = [AddedHosts(count=count, like=like, rack=rack)] if count else []
    return SimulateRequest(remove_hosts=hosts, remove_racks=racks, add=add)


def _save(session: Session, path: str) -> None:
    async def work(client: "Client") -> "SavedView":
        return await client.save_view()

    view = session.run(work)
    messagefile.write(view, path)
    click.echo(f"{path}: {len(view.hosts)} hosts, {len(view.ves)} VEs at revision {view.revision}")


def _show(found: "Simulation", style: Style) -> None:
    match style:
        case "json" | "yaml":
            one(found, style)
        case "name":
            for ve in found.ves:
                click.echo(f"ve/{ve.name}")
        case _:
            for line in lines(found):
                click.echo(line)


def lines(found: "Simulation") -> Iterator[str]:
    """A line for each VE, with the hint of each that fits nowhere; then the hosts that are not as before; then the sum."""
    if found.ves:
        yield from Writer(_VES, wide=False, colour=colours()).lines(found.ves, titles=True)
    for hint in dict.fromkeys(ve.hint for ve in found.ves if not ve.to_host):
        yield "  " + one_line(hint)
    changed = [host for host in found.hosts if _differs(host)]
    if changed:
        yield from Writer(_HOSTS, wide=False, colour=colours()).lines(changed, titles=True)
    same = len(found.hosts) - len(changed)
    yield (
        f"{len(changed)} hosts change, {same} stay as they are." if changed else "No host changes."
    )
    without = sum(not ve.to_host for ve in found.ves)
    yield f"{len(found.ves) - without} of {len(found.ves)} VEs fit, {without} don't."


def _differs(host: "SimulatedHost") -> bool:
    before, after = host.committed_before, host.committed_after
    return bool(host.change) or before != after or host.ves_before != host.ves_after


def _both(before: str, after: str) -> str:
    return f"{before} > {after}"


def _sizes(host: "SimulatedHost", field: str) -> str:
    before, after, room = (
        format_size(getattr(each, field))
        for each in (host.committed_before, host.committed_after, host.room)
    )
    return f"{_both(before, after)} of {room}"


def _cpu(host: "SimulatedHost") -> str:
    before, after = host.committed_before.cpu, host.committed_after.cpu
    return f"{_both(cores(before), cores(after))} of {cores(host.room.cpu)}"


_VES: "list[Column[SimulatedVE]]" = [
    Column("VE", lambda ve: ve.name),
    Column("PROJECT", lambda ve: ve.project),
    Column("WHY", lambda ve: ve.why),
    Column("FROM", lambda ve: ve.from_host),
    Column("TO", lambda ve: ve.to_host),
    Column("SAYS", lambda ve: ve.message),
]
_HOSTS: "list[Column[SimulatedHost]]" = [
    Column("HOST", lambda host: host.name),
    Column("RACK", lambda host: host.rack),
    Column("CHANGE", lambda host: host.change),
    Column("VES", lambda host: _both(str(host.ves_before), str(host.ves_after))),
    Column("CPU", _cpu),
    Column("MEM", lambda host: _sizes(host, "memory_bytes")),
    Column("DISK", lambda host: _sizes(host, "disk_bytes")),
]
