"""vectl snapshot, vectl restore."""

from functools import partial
from typing import TYPE_CHECKING

import click

from veapi.errors import VerackError
from vectl import options
from vectl.columns import SNAPSHOT_COLUMNS
from vectl.follow import Goal
from vectl.mutate import Ask, Waiting, carry_out
from vectl.output import Printer, Style
from vectl.session import Ended, Session, pass_session
from vectl.snapshots import until_gone, until_taken
from vectl.sure import sure
from vectl.text import complain

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import VE
    from vectl.client import Client


@options.command("take")
@options.name_argument
@click.argument("tag", default="")
@options.timeout_option()
@options.detach_option
@pass_session
def take(session: Session, name: str, tag: str, *, timeout_s: float, detach: bool) -> None:
    """Take a snapshot of a VE's root, running or not. Without a TAG it gets one from the time."""

    async def work(client: "Client") -> str:
        async with client.watch(names=[name]) as watch:
            ve = await client.take_snapshot(name, tag)
            new = ve.snapshots[-1]
            if detach:
                return f"snapshot/{name}/{new.tag} will be taken"
            session.stands = f"The request stands: `vectl snapshot list {name}` shows it."
            await until_taken(aiter(watch), ve, new.seq, timeout_s=timeout_s)
            return f"snapshot/{name}/{new.tag} taken"

    click.echo(session.run(work))


@options.command("list")
@options.name_argument
@options.output_option(wide=False)
@options.no_headers_option
@pass_session
def list_(session: Session, name: str, *, style: Style, no_headers: bool) -> None:
    """Snapshots of a VE, oldest first."""

    async def work(client: "Client") -> "VE":
        return await client.get(name)

    snapshots = list(session.run(work).snapshots)
    printer = Printer(style, SNAPSHOT_COLUMNS, prefix=f"snapshot/{name}/", headers=not no_headers)
    printer.many(snapshots, [each.tag for each in snapshots])


@options.command("delete")
@options.name_argument
@click.argument("tags", nargs=-1, required=True)
@options.timeout_option()
@options.detach_option
@pass_session
def delete(
    session: Session, name: str, tags: tuple[str, ...], *, timeout_s: float, detach: bool
) -> None:
    """Delete snapshots of a VE. Its root and its other snapshots are not touched."""

    async def work(client: "Client") -> int:
        code = 0
        for tag in dict.fromkeys(tags):
            try:
                click.echo(await _delete(client, name, tag, timeout_s, detach=detach))
            except VerackError as error:
                complain(error.message, error.hint)
                code = code or error.exit_code
        return code

    if code := session.run(work):
        raise Ended(code)


async def _delete(client: "Client", name: str, tag: str, timeout_s: float, *, detach: bool) -> str:
    async with client.watch(names=[name]) as watch:
        ve = await client.delete_snapshot(name, tag)
        doomed = next((each for each in ve.snapshots if each.tag == tag), None)
        if doomed is None:
            return f"snapshot/{name}/{tag} deleted"
        if detach:
            return f"snapshot/{name}/{tag} will be deleted"
        await until_gone(aiter(watch), ve, doomed.seq, timeout_s=timeout_s)
    return f"snapshot/{name}/{tag} deleted"


@options.command("restore")
@options.name_argument
@click.argument("tag")
@options.yes_option
@options.timeout_option()
@options.detach_option
@pass_session
def restore(
    session: Session, name: str, tag: str, *, yes: bool, timeout_s: float, detach: bool
) -> None:
    """Make a VE's root what it was in a snapshot. One that runs is stopped for it, and started again.

    What was written since is lost: take a snapshot before, if it may be wanted. All snapshots stay.
    """
    if not yes:
        _confirm(name, tag)

    async def work(client: "Client") -> None:
        ask = Ask(name, partial(client.restore, name, tag), Goal.SETTLED, f"restored from {tag}")
        await carry_out(client, session, [ask], Waiting(timeout_s, detach))

    session.run(work)


def _confirm(name: str, tag: str) -> None:
    question = f"Make {name} what it was in {tag}? What was written since is lost."
    sure(question, doing=f"restoring {name}")
