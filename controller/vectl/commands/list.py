"""vectl list."""

import asyncio
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from veapi.errors import InvalidInput, NotFound
from vectl import options
from vectl.columns import DELETED_COLUMNS, RACK_LABEL, ve_columns
from vectl.output import Printer, Style
from vectl.session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from veapi.v1.types_pb2 import VE
    from vectl.client import Client


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of VEs; behind --deleted, of deleted ones."""
    if not ctx.params.get("deleted"):
        return options.complete_ve(ctx, param, incomplete)

    async def names(client: "Client") -> list[str]:
        return [ve.name for ve in await client.deleted()]

    return options.complete(ctx, names, incomplete)


@options.command("list")
@click.argument("names", nargs=-1, shell_complete=_complete)
@options.output_option()
@click.option("-l", "--selector", default="", help="Labels, e.g. tier=web,!old.")
@click.option("--deleted", is_flag=True, help="Those that were deleted and are kept for a while.")
@click.option("-w", "--watch", is_flag=True, help="Then show every change as it comes.")
@options.no_headers_option
@options.all_projects_option
@pass_session
def list_(
    session: Session,
    names: tuple[str, ...],
    *,
    style: Style,
    selector: str,
    deleted: bool,
    watch: bool,
    no_headers: bool,
    all_projects: bool,
) -> None:
    """VEs, where they are and what they have: all of the project, or those named."""
    if deleted and watch:
        raise InvalidInput("--deleted can't be watched", hint="leave --watch out")
    if names and selector:
        raise InvalidInput("names and --selector: both say which", hint="leave one of them out")

    async def kept(client: "Client") -> None:
        ves = await client.deleted(selector=selector, all_projects=all_projects, names=names)
        printer = Printer(style, DELETED_COLUMNS, prefix="ve/", headers=not no_headers)
        printer.many(ves, [ve.name for ve in ves])
        _refuse_missing(names, ves, "deleted VE that is kept has the name")

    async def once(client: "Client") -> None:
        racks, (ves, _) = await asyncio.gather(
            _racks(client, style),
            client.list_ves(selector=selector, all_projects=all_projects, names=names),
        )
        _printer(style, racks, headers=not no_headers).many(ves, [ve.name for ve in ves])
        _refuse_missing(names, ves, "VE")

    async def for_ever(client: "Client") -> None:
        async with client.watch(
            selector=selector, all_projects=all_projects, names=names
        ) as changes:
            printer = _printer(style, await _racks(client, style), headers=not no_headers)
            ves = list((await changes.snapshot()).values())
            if style in ("table", "wide", "name"):
                printer.many(ves, [ve.name for ve in ves])
            else:
                for ve in ves:
                    printer.later(ve, ve.name, "added")
            async for change in changes:
                printer.later(change.ve, change.ve.name, change.kind.name.lower())

    session.run(kept if deleted else for_ever if watch else once)


def _refuse_missing(names: tuple[str, ...], found: "Iterable[VE]", what: str) -> None:
    """NotFound names those that are not there. What is there was shown."""
    there = {ve.name for ve in found}
    missing = [name for name in dict.fromkeys(names) if name not in there]
    if missing:
        raise NotFound(
            f"no {what} {', '.join(missing)}", hint="see `vectl list` without names, and --project"
        )


def _printer(style: Style, racks: dict[str, str], *, headers: bool) -> "Printer[VE]":
    return Printer(style, ve_columns(racks), prefix="ve/", headers=headers)


async def _racks(client: "Client", style: Style) -> dict[str, str]:
    """Rack by host, when the form shows it."""
    if style not in ("table", "wide"):
        return {}
    return {host.name: host.labels.get(RACK_LABEL, "") for host in await client.hosts()}
