"""vectl undelete and purge: of deleted VEs that are kept."""

import re
from functools import partial
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from vectl import gone, options
from vectl.follow import Goal
from vectl.mutate import Ask, Waiting, carry_out
from vectl.session import Session, pass_session
from vectl.sure import sure

if TYPE_CHECKING:
    from vectl.client import Client

_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of deleted VEs that begin like that."""
    del param

    async def names(client: "Client") -> list[str]:
        return [ve.name for ve in await client.deleted()]

    return options.complete(ctx, names, incomplete)


_which = click.argument("which", metavar="NAME|UID", shell_complete=_complete)


@options.command("undelete")
@_which
@click.option("--name", "new_name", default="", help="Under another name.")
@options.timeout_option()
@options.detach_option
@pass_session
def undelete(
    session: Session, which: str, *, new_name: str, timeout_s: float, detach: bool
) -> None:
    """Bring a deleted VE back, with its root, and wait until it is as it was.

    It has its own address again if that is free, else another one. `vectl list --deleted` shows what is kept.
    """
    name, uid = _named(which)

    async def work(client: "Client") -> None:
        ask = Ask(
            new_name or name or await _name_of(client, uid),
            lambda: client.undelete(name, uid=uid, new_name=new_name),
            Goal.SETTLED,
            "undeleted",
        )
        how = Waiting(timeout_s, detach, fresh=True, all_projects=bool(uid))
        await carry_out(client, session, [ask], how)

    session.run(work)


@options.command("purge")
@_which
@options.yes_option
@options.timeout_option()
@options.detach_option
@pass_session
def purge(session: Session, which: str, *, yes: bool, timeout_s: float, detach: bool) -> None:
    """Have the disk of a deleted VE removed now, and wait until it is. It can't be brought back then."""
    name, uid = _named(which)
    if not yes:
        sure(f"Remove {which} for good?", doing=f"purging {which}")

    async def work(client: "Client") -> None:
        ve = await client.purge(name, uid=uid)
        session.stands = gone.STANDS
        what, host = f"ve/{ve.name} ({ve.uid})", ve.placement.host or ve.status.host
        if detach:
            click.echo(f"{what} will be purged from {host}")
            return
        there = partial(gone.is_there, client, ve.uid, ve.name)
        await gone.until_gone(there, what=what, host=host, timeout_s=timeout_s)
        click.echo(f"{what} purged")

    session.run(work)


def _named(which: str) -> tuple[str, str]:
    """Name and uid; one of them is empty."""
    return ("", which) if _UID.fullmatch(which) else (which, "")


async def _name_of(client: "Client", uid: str) -> str:
    """The uid itself when nothing of it is kept: the controller says so."""
    kept = await client.deleted(all_projects=True)
    return next((ve.name for ve in kept if ve.uid == uid), uid)
