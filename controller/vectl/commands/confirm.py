"""vectl cluster confirm."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from vectl import options
from vectl.session import Session, pass_session
from vectl.sure import sure
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.cluster_pb2 import ConfirmHost, ConfirmResponse
    from vectl.client import Client

SHOWN = 20
"""Names of a line; of more their number is told."""


@options.command("confirm")
@click.option(
    "--without", multiple=True, metavar="HOST", help="A host that is off and not waited for."
)
@options.yes_option
@pass_session
def confirm(session: Session, *, without: tuple[str, ...], yes: bool) -> None:
    """Let a restored store count: until then nothing is started, stopped, moved or removed.

    First shows what would change, by what each host has said that it has.
    """
    would = _ask(session, incarnation=0, dry_run=True)
    if would.confirmed:
        click.echo(one_line(f"cluster/{would.cluster} needs no confirmation"))
        return
    for line in preview(would):
        click.echo(line, err=True)
    if not yes:
        sure("Let the restored store count?")
    _ask(session, incarnation=would.incarnation, without=without)
    click.echo(one_line(f"cluster/{would.cluster} confirmed"))


def _ask(
    session: Session, *, incarnation: int, without: tuple[str, ...] = (), dry_run: bool = False
) -> "ConfirmResponse":
    async def work(client: "Client") -> "ConfirmResponse":
        from vectl.confirming import confirm as ask  # noqa: PLC0415  # brings grpc

        return await ask(client, incarnation=incarnation, without=without, dry_run=dry_run)

    return session.run(work)


def preview(would: "ConfirmResponse") -> list[str]:
    """A line for each host, and one for what has none."""
    lines = [one_line(f"Restored: cluster {would.cluster}, incarnation {would.incarnation}")]
    lines += [one_line(f"  {each.host}: {'; '.join(_changes(each))}") for each in would.hosts]
    if would.unplaced:
        lines.append(one_line(f"  without a host: place {_names(would.unplaced)}"))
    return lines


def _changes(host: "ConfirmHost") -> Iterator[str]:
    if not host.heard:
        yield "not heard of yet"
        return
    found = [
        ("start", host.starts),
        ("stop", host.stops),
        ("restart", host.restarts),
        ("remove", host.removes),
        ("stay here, where they are", host.stays),
        ("left alone, nobody asks for them", host.orphans),
    ]
    said = [f"{what}: {_names(names)}" for what, names in found if names]
    yield from said or ["nothing changes"]


def _names(found: Iterable[str]) -> str:
    names = sorted(found)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} ({', '.join(names[:SHOWN])}{more})"
