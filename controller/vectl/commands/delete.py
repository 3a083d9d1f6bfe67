"""vectl delete."""

import sys
from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput, NotFound
from vectl import options
from vectl.follow import Goal
from vectl.mutate import Ask, Waiting, carry_out
from vectl.session import Session, pass_session

if TYPE_CHECKING:
    from vectl.client import Client


@options.command("delete")
@click.argument("names", nargs=-1, shell_complete=options.complete_ve)
@click.option(
    "-f", "--file", "files", multiple=True, help="The VEs of a manifest: file, folder or -."
)
@options.yes_option
@options.timeout_option()
@options.detach_option
@pass_session
def delete(
    session: Session,
    names: tuple[str, ...],
    *,
    files: tuple[str, ...],
    yes: bool,
    timeout_s: float,
    detach: bool,
) -> None:
    """Delete VEs with their disks, and wait until they are gone.

    Of a manifest, what is not there is skipped.
    """
    if bool(names) == bool(files):
        raise InvalidInput("which VEs?", hint="give names, or -f with a manifest")
    doomed = _of_manifests(files) if files else [(name, "") for name in names]
    if not yes:
        _confirm([name for name, _ in doomed])
    how = Waiting(timeout_s, detach, all_projects=any(project for _, project in doomed))

    async def work(client: "Client") -> None:
        asks = [
            _ask(client, name, project)
            for name, project in doomed
            if not files or await _is_there(client, name, project)
        ]
        await carry_out(client, session, asks, how)

    session.run(work)


def _of_manifests(files: tuple[str, ...]) -> list[tuple[str, str]]:
    from vectl import manifest  # noqa: PLC0415  # YAML is not for names

    return [(one.name, one.project) for one in manifest.read_all(files, sys.stdin.buffer)]


def _ask(client: "Client", name: str, project: str) -> Ask:
    return Ask(name, lambda: client.delete(name, project=project), Goal.GONE, "deleted")


async def _is_there(client: "Client", name: str, project: str) -> bool:
    try:
        await client.get(name, project=project)
    except NotFound:
        click.echo(f"ve/{name} is not there")
        return False
    return True


def _confirm(names: list[str]) -> None:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    if not sys.stdin.isatty():
        raise InvalidInput(
            f"not deleting {shown} without being sure",
            hint="say --yes, there is no terminal to ask on",
        )
    click.confirm(f"Delete {shown} with the disks?", abort=True, err=True)
