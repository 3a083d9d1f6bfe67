"""vectl delete."""

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput, NotFound
from vectl import options
from vectl.follow import Goal
from vectl.groupasks import delete_and_wait, split
from vectl.mutate import Ask, Waiting, carry_out
from vectl.output import moment
from vectl.session import Session, pass_session
from vectl.sure import some, sure

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import VE
    from vectl.client import Client


@options.command("delete")
@click.argument("names", nargs=-1, shell_complete=options.complete_ve)
@click.option(
    "-f", "--file", "files", multiple=True, help="What a manifest says: file, folder or -."
)
@click.option("--purge", is_flag=True, help="Keep nothing of them.")
@options.yes_option
@options.timeout_option()
@options.detach_option
@pass_session
def delete(
    session: Session,
    names: tuple[str, ...],
    *,
    files: tuple[str, ...],
    purge: bool,
    yes: bool,
    timeout_s: float,
    detach: bool,
) -> None:
    """Delete VEs and wait until they are gone.

    Their disks are kept for a time, for `vectl undelete`, unless --purge is given. Of a manifest, what is not there is skipped.
    """
    if bool(names) == bool(files):
        raise InvalidInput("which VEs?", hint="give names, or -f with a manifest")
    doomed, groups = _of_manifests(files) if files else ([(name, "") for name in names], [])
    if not yes:
        _confirm([name for name, _ in [*doomed, *groups]], purge=purge)
    how = Waiting(timeout_s, detach, all_projects=any(project for _, project in doomed))

    async def work(client: "Client") -> None:
        asks = [
            _ask(client, name, project, purge=purge)
            for name, project in doomed
            if not files or await _is_there(client, name, project)
        ]
        if asks:
            await carry_out(client, session, asks, how)
        if asks and not (purge or detach):
            _say_kept([name for name, _ in doomed], await _kept(client, doomed))
        await delete_and_wait(
            client,
            session,
            groups,
            purge=purge,
            timeout_s=None if detach else timeout_s,
            skip_missing=True,
        )

    session.run(work)


def _of_manifests(files: tuple[str, ...]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """VEs and groups, by name and project."""
    from vectl import manifest  # noqa: PLC0415  # YAML is not for names

    ves, groups = split(manifest.read(files, sys.stdin.buffer))
    return [(one.name, one.project) for one in ves], [(one.name, one.project) for one in groups]


def _ask(client: "Client", name: str, project: str, *, purge: bool) -> Ask:
    call = partial(client.delete, name, project=project, purge=purge)
    return Ask(name, call, Goal.GONE, "deleted")


async def _is_there(client: "Client", name: str, project: str) -> bool:
    try:
        await client.get(name, project=project)
    except NotFound:
        click.echo(f"ve/{name} is not there")
        return False
    return True


async def _kept(client: "Client", doomed: "list[tuple[str, str]]") -> "list[VE]":
    names = sorted({name for name, _ in doomed})
    return await client.deleted(names=names, all_projects=any(project for _, project in doomed))


def _say_kept(names: list[str], kept: "list[VE]") -> None:
    """How long each can be brought back."""
    newest = {ve.name: ve for ve in sorted(kept, key=lambda ve: ve.delete_requested_at.seconds)}
    for name in names:
        if name in newest:
            until = moment(newest[name].purge_at)
            click.echo(f"{name} is kept until {until}; `vectl undelete {name}`", err=True)


def _confirm(names: list[str], *, purge: bool) -> None:
    how = " for good, with the disks" if purge else ""
    sure(f"Delete {some(names)}{how}?", doing=f"deleting {some(names)}")
