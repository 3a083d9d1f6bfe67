"""vectl plan."""

import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from vectl import manifest, messagefile, options
from vectl.output import Style, colours, one
from vectl.session import Ended, Session, pass_session
from vectl.table import Column, Writer
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.plan_pb2 import Plan, PlannedVE
    from vectl.client import Client

_WORDS = {
    "create": "to create",
    "change": "to change",
    "start": "to start",
    "stop": "to stop",
    "freeze": "to freeze",
    "unchanged": "unchanged",
    "refused": "refused",
}


@options.command("plan")
@click.option(
    "-f", "--file", "files", multiple=True, required=True, help="Manifest: file, folder or -."
)
@click.option("--out", "out", default="", help="Write the plan into a file, for apply --plan.")
@options.output_option(wide=False)
@pass_session
def plan(session: Session, *, files: tuple[str, ...], out: str, style: Style) -> None:
    """What apply would do to each VE, and on which host; nothing is changed.

    The code is 0 when all of it can be done, 5 when something fits nowhere; else that of the first refusal.
    """
    wanted = manifest.read_all(files, sys.stdin.buffer)

    async def work(client: "Client") -> "Plan":
        return await client.plan(wanted)

    found = session.run(work)
    if out:
        messagefile.write(found, out)
    _show(found, style)
    code = next((ve.exit_code for ve in found.ves if ve.exit_code), 0)
    if code:
        raise Ended(code)


def _show(found: "Plan", style: Style) -> None:
    match style:
        case "json" | "yaml":
            one(found, style)
        case "name":
            for ve in found.ves:
                click.echo(f"ve/{ve.name}")
        case _:
            for line in lines(found):
                click.echo(line)


def lines(found: "Plan") -> Iterator[str]:
    """A line for each VE; what to do about those that can't be done; the sums."""
    yield from Writer(_COLUMNS, wide=False, colour=colours()).lines(found.ves, titles=True)
    for hint in dict.fromkeys(ve.hint for ve in found.ves if ve.hint):
        yield "  " + one_line(hint)
    counts = Counter(ve.action for ve in found.ves)
    sums = [f"{counts[action]} {word}" for action, word in _WORDS.items() if counts[action]]
    nowhere = sum(ve.action == "create" and not ve.host for ve in found.ves)
    yield ", ".join(sums) + (f"; {nowhere} of them fit nowhere." if nowhere else ".")


def _says(ve: "PlannedVE") -> str:
    if ve.action in ("create", "refused", "unchanged"):
        return ve.message
    return "; ".join(
        f"{each.field.removeprefix('spec.')}: {each.before or 'none'} > {each.after or 'none'}"
        for each in ve.changes
        if each.before != each.after
    )


_COLUMNS: "list[Column[PlannedVE]]" = [
    Column("VE", lambda ve: ve.name),
    Column("PROJECT", lambda ve: ve.project),
    Column("ACTION", lambda ve: ve.action),
    Column("HOST", lambda ve: ve.host),
    Column("SAYS", _says),
]
