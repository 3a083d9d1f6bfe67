"""vectl start, stop, restart, freeze, thaw."""

import math
from functools import partial
from typing import TYPE_CHECKING

import click

from veapi.errors import InvalidInput
from vectl import options
from vectl.follow import Goal
from vectl.mutate import Ask, Waiting, carry_out
from vectl.session import Session, pass_session

if TYPE_CHECKING:
    from vectl.client import Client

# A clean stop may take as long as --timeout says; the kill after it, and the news of it, take a little more.
_AFTER_KILL_S = 10.0

_force_option = click.option("--force", is_flag=True, help="Kill it at once.")
stop_timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=options.Duration(),
    help="How long a clean stop may take until it is killed; 10s more are waited."
    "  [default: killed after 30s, waits 60s]",
)


@options.command("start")
@options.names_argument
@options.timeout_option()
@options.detach_option
@pass_session
def start(session: Session, names: tuple[str, ...], *, timeout_s: float, detach: bool) -> None:
    """Start VEs and wait until they run."""

    async def work(client: "Client") -> None:
        def ask(name: str) -> Ask:
            return Ask(name, partial(client.set_run, name, "running"), Goal.RUNNING, "started")

        await carry_out(client, session, [ask(name) for name in names], Waiting(timeout_s, detach))

    session.run(work)


@options.command("stop")
@options.names_argument
@_force_option
@stop_timeout_option
@options.detach_option
@pass_session
def stop(
    session: Session, names: tuple[str, ...], *, force: bool, timeout_s: float | None, detach: bool
) -> None:
    """Stop VEs cleanly (or at once) and wait until they are stopped."""
    grace_s, wait_s = times(timeout_s)

    async def work(client: "Client") -> None:
        def ask(name: str) -> Ask:
            call = partial(client.set_run, name, "stopped", stop_timeout_s=grace_s, force=force)
            return Ask(name, call, Goal.STOPPED, "stopped")

        await carry_out(client, session, [ask(name) for name in names], Waiting(wait_s, detach))

    session.run(work)


@options.command("restart")
@options.names_argument
@_force_option
@stop_timeout_option
@options.detach_option
@pass_session
def restart(
    session: Session, names: tuple[str, ...], *, force: bool, timeout_s: float | None, detach: bool
) -> None:
    """Stop VEs, start them again, and wait until they run."""
    grace_s, wait_s = times(timeout_s)

    async def work(client: "Client") -> None:
        def ask(name: str) -> Ask:
            call = partial(client.restart, name, stop_timeout_s=grace_s, force=force)
            return Ask(name, call, Goal.RESTARTED, "restarted")

        await carry_out(client, session, [ask(name) for name in names], Waiting(wait_s, detach))

    session.run(work)


@options.command("freeze")
@options.names_argument
@options.timeout_option()
@options.detach_option
@pass_session
def freeze(session: Session, names: tuple[str, ...], *, timeout_s: float, detach: bool) -> None:
    """Freeze VEs: their processes stand still, and go on at `vectl thaw`. Memory and address stay."""

    async def work(client: "Client") -> None:
        def ask(name: str) -> Ask:
            return Ask(name, partial(client.set_run, name, "frozen"), Goal.FROZEN, "frozen")

        await carry_out(client, session, [ask(name) for name in names], Waiting(timeout_s, detach))

    session.run(work)


@options.command("thaw")
@options.names_argument
@options.timeout_option()
@options.detach_option
@pass_session
def thaw(session: Session, names: tuple[str, ...], *, timeout_s: float, detach: bool) -> None:
    """Let frozen VEs go on. One that is stopped is not started by it."""

    async def work(client: "Client") -> None:
        def ask(name: str) -> Ask:
            call = partial(client.set_run, name, "running", only_from="frozen")
            return Ask(name, call, Goal.RUNNING, "thawed")

        await carry_out(client, session, [ask(name) for name in names], Waiting(timeout_s, detach))

    session.run(work)


def times(timeout_s: float | None) -> tuple[int, float]:
    """Whole seconds that a clean stop may take (0: the controller's default), and seconds to wait."""
    if timeout_s is None:
        return 0, options.DEFAULT_TIMEOUT_S
    if timeout_s <= 0:
        raise InvalidInput("timeout: 0 leaves no time for a clean stop", hint="use --force")
    return math.ceil(timeout_s), timeout_s + _AFTER_KILL_S
