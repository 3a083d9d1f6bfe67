"""vectl explain."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput, NoHostFits
from vectl import manifest, options
from vectl.output import Style, colours, one
from vectl.session import Ended, Session, pass_session
from vectl.table import Column, Writer
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.scheduler_pb2 import Explanation, HostVerdict
    from vectl.client import Client

SHOWN = 20


@options.command("explain")
@click.argument("name", required=False, default="", shell_complete=options.complete_ve)
@click.option("-f", "--file", "file", default="", help="Manifest of VEs that may not be there yet.")
@click.option("--all", "all_hosts", is_flag=True, help=f"Every host, not only the first {SHOWN}.")
@options.output_option(wide=False)
@pass_session
def explain(session: Session, name: str, *, file: str, all_hosts: bool, style: Style) -> None:
    """Why a VE goes where it goes, or why no host fits, and what would make one fit.

    Every host is told: all that it fails, with numbers, or how it scores. The code is 5 when none fits.
    """
    if bool(name) == bool(file):
        raise InvalidInput("explain wants a NAME or -f FILE", hint="vectl explain web")
    wanted = manifest.read_all((file,), sys.stdin.buffer) if file else []

    async def work(client: "Client") -> "list[Explanation]":
        if name:
            return [await client.explain(name)]
        return [await client.explain_new(each) for each in wanted]

    found = session.run(work)
    for each in found:
        _show(each, style, SHOWN if not all_hosts else len(each.verdicts))
    if any(each.refusal and not each.placement.host for each in found):
        raise Ended(NoHostFits.exit_code)


def _show(found: "Explanation", style: Style, shown: int) -> None:
    match style:
        case "json" | "yaml":
            one(found, style)
        case "name":
            for verdict in found.verdicts:
                if verdict.rank:
                    click.echo(f"host/{verdict.host}")
        case _:
            for line in lines(found, shown):
                click.echo(line)


def lines(found: "Explanation", shown: int) -> Iterator[str]:
    """The answer, what would change it, then a line for each host."""
    yield from _answer(found)
    for change in found.changes:
        yield "  " + one_line(f"it would fit: {change}")
    writer = Writer(_COLUMNS, wide=False, colour=colours())
    yield from writer.lines(found.verdicts[:shown], titles=bool(found.verdicts))
    more = len(found.verdicts) - shown
    if more > 0:
        yield f"and {more} more: --all shows them"


def _answer(found: "Explanation") -> Iterator[str]:
    fitting = [verdict for verdict in found.verdicts if verdict.rank]
    title = f"ve/{found.name}"
    if found.placement.host:
        yield one_line(f"{title}: on {found.placement.host}: {found.placement.message}")
        title = "placed now"
    if fitting:
        hosts = len(found.verdicts)
        yield one_line(f"{title}: {fitting[0].host}; {len(fitting)} of {hosts} hosts fit")
    else:
        yield one_line(f"{title}: no host fits: {found.refusal}")
        yield "  " + one_line(found.hint)


def _says(verdict: "HostVerdict") -> str:
    if verdict.rank:
        return ", ".join(part.text for part in verdict.score)
    return "; ".join(f"{each.check}: {each.why}" for each in verdict.failing)


_COLUMNS: "list[Column[HostVerdict]]" = [
    Column("RANK", lambda verdict: str(verdict.rank or "")),
    Column("HOST", lambda verdict: verdict.host),
    Column("RACK", lambda verdict: verdict.rack),
    Column("SAYS", _says),
]
