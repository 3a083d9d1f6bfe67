"""vectl host cordon, uncordon, remove, add, fence, unfence, replace, resume-moves."""

from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput
from vectl import options
from vectl.session import Session, pass_session
from vectl.sure import sure
from vectl.text import one_line

if TYPE_CHECKING:
    from veapi.v1.hostlife_pb2 import ResumeMovesResponse
    from veapi.v1.types_pb2 import Host
    from vectl.client import Client

_host_argument = click.argument("name", shell_complete=options.complete_host)


@options.command("cordon")
@_host_argument
@click.option("--reason", default="", help="Why, for those who wonder later.")
@pass_session
def cordon(session: Session, name: str, *, reason: str) -> None:
    """Put no new VEs on a host. Those that are there run on."""
    host = _cordon(session, name, on=True, reason=reason)
    click.echo(one_line(f"host/{host.name} cordoned; its {host.ves} VEs stay"))


@options.command("uncordon")
@_host_argument
@pass_session
def uncordon(session: Session, name: str) -> None:
    """Put new VEs on a host again."""
    host = _cordon(session, name, on=False, reason="")
    click.echo(one_line(f"host/{host.name} takes new VEs again"))


def _cordon(session: Session, name: str, *, on: bool, reason: str) -> "Host":
    async def work(client: "Client") -> "Host":
        return await client.host_life.cordon(name, on=on, reason=reason)

    return session.run(work)


@options.command("remove")
@_host_argument
@click.option(
    "--forget-ves", is_flag=True, help="With the records of its VEs; it must be vouched to be off."
)
@options.yes_option
@pass_session
def remove(session: Session, name: str, *, forget_ves: bool, yes: bool) -> None:
    """Take a host out of the cluster that is off and has nothing; it is refused when it comes again."""
    if forget_ves and not yes:
        sure(f"Forget all VEs of host {name}, with their names and addresses?")

    async def work(client: "Client") -> int:
        return await client.host_life.remove(name, forget_ves=forget_ves)

    ves = session.run(work)
    click.echo(one_line(f"host/{name} removed" + (f", and {ves} VEs forgotten" if ves else "")))


@options.command("add")
@click.argument("name")
@pass_session
def add(session: Session, name: str) -> None:
    """Let a host that was removed come again."""

    async def work(client: "Client") -> None:
        await client.host_life.add(name)

    session.run(work)
    click.echo(one_line(f"host/{name} may come again"))


@options.command("fence")
@_host_argument
@click.option("--powered-off", is_flag=True, help="You have seen to it that the machine is off.")
@options.yes_option
@pass_session
def fence(session: Session, name: str, *, powered_off: bool, yes: bool) -> None:
    """Vouch that a silent host is off: its VEs that may be moved are started elsewhere at once.

    If it runs after all, they run twice.
    """
    if not powered_off:
        raise InvalidInput(
            "fence wants --powered-off",
            hint="power the machine off first, then vouch for it; nothing here can do that for you",
        )
    if not yes:
        sure(f"Is host {name} powered off? If it is not, its VEs may run twice.")
    host = _fence(session, name, powered_off=True)
    click.echo(one_line(f"host/{host.name} vouched to be off by {host.powered_off_by}"))


@options.command("unfence")
@_host_argument
@pass_session
def unfence(session: Session, name: str) -> None:
    """Take the word back that a host is off. What was moved meanwhile stays where it is."""
    host = _fence(session, name, powered_off=False)
    click.echo(one_line(f"host/{host.name} is not vouched to be off"))


def _fence(session: Session, name: str, *, powered_off: bool) -> "Host":
    async def work(client: "Client") -> "Host":
        return await client.host_life.fence(name, powered_off=powered_off)

    return session.run(work)


@options.command("replace")
@_host_argument
@options.yes_option
@pass_session
def replace(session: Session, name: str, *, yes: bool) -> None:
    """Let another machine come in a host's place, once, with the same certificate name.

    VEs that the host had are made there anew, of their images.
    """
    if not yes:
        sure(f"Make the VEs of host {name} anew on another machine? Their disks are not there.")

    async def work(client: "Client") -> "Host":
        return await client.host_life.replace(name)

    host = session.run(work)
    click.echo(one_line(f"host/{host.name} may be another machine"))


@options.command("resume-moves")
@options.yes_option
@pass_session
def resume_moves(session: Session, *, yes: bool) -> None:
    """Go on moving VEs from silent hosts, after so many fell silent at once that it was stopped."""

    def ask(*, dry_run: bool) -> "ResumeMovesResponse":
        async def work(client: "Client") -> "ResumeMovesResponse":
            return await client.host_life.resume_moves(dry_run=dry_run)

        return session.run(work)

    would = ask(dry_run=True)
    if not would.stopped:
        click.echo("moves are not stopped")
        return
    click.echo(one_line(f"Stopped: {would.stopped}"), err=True)
    for each in would.hosts:
        click.echo(one_line(f"  {each.host}: {each.ves} VEs may be moved"), err=True)
    if not yes:
        ves = sum(each.ves for each in would.hosts)
        sure(f"Move up to {ves} VEs from {len(would.hosts)} silent hosts?")
    ask(dry_run=False)
    click.echo("moves resumed")
