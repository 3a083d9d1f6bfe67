"""vectl exec, enter."""

import sys
from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput, VerackError
from vectl import options
from vectl.attached import EXEC_FAILED, Attached, window
from vectl.session import Ended, Session, pass_session
from vectl.text import complain

if TYPE_CHECKING:
    from collections.abc import Callable

    from vectl.client import Client
    from vectl.streams import Command

_user_option = click.option(
    "-u", "--user", default="", metavar="USER[:GROUP]", help="As this user of the VE (else root)."
)
_cwd_option = click.option(
    "-w",
    "--cwd",
    default="",
    metavar="DIR",
    help="In this folder of the VE (else the user's home).",
)
_env_option = click.option(
    *("-e", "--env"), type=options.Variable(), multiple=True, help="Set a variable; many times."
)


@options.command("exec")
@click.option("-i", "--interactive", is_flag=True, help="Give it our input.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@_user_option
@_cwd_option
@_env_option
@options.name_argument
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_session
def exec_(
    session: Session,
    name: str,
    command: tuple[str, ...],
    *,
    interactive: bool,
    tty: bool,
    user: str,
    cwd: str,
    env: tuple[tuple[str, str], ...],
) -> None:
    """Run a command in a VE, e.g. `vectl exec -it web -- sh`.

    The exit code is the command's own; 125 when it could not be run at all.
    """
    if not command:
        raise InvalidInput("exec: the command is missing", hint=f"vectl exec {name} -- COMMAND")

    def asked() -> "Command":
        from vectl.streams import Command  # noqa: PLC0415  # brings grpc

        return Command(
            words=command,
            user=user,
            cwd=cwd,
            env=dict(env),
            stdin=interactive,
            window=window() if tty else None,
        )

    _end_with(session, name, asked)


@options.command("enter")
@_user_option
@_cwd_option
@_env_option
@options.name_argument
@pass_session
def enter(
    session: Session, name: str, *, user: str, cwd: str, env: tuple[tuple[str, str], ...]
) -> None:
    """A login shell in a VE, on a terminal.

    The shell is the user's own, as the VE's /etc/passwd has it; /bin/sh when there is none.
    """

    def asked() -> "Command":
        from vectl.streams import Command  # noqa: PLC0415  # brings grpc

        at = window() if sys.stdin is not None and sys.stdin.isatty() else None
        return Command(login=True, user=user, cwd=cwd, env=dict(env), stdin=True, window=at)

    _end_with(session, name, asked)


def _end_with(session: Session, name: str, asked: "Callable[[], Command]") -> None:
    """Ends with the command's own code, or with 125."""

    async def work(client: "Client") -> int:
        return await Attached(client, name, asked()).run()

    try:
        code = session.run(work)
    except VerackError as error:
        complain(error.message, error.hint)
        code = EXEC_FAILED
    raise Ended(code)
