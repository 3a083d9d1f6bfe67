"""The program `vecontroller`: runs a controller; makes a cluster's CA and certificates."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import click
import structlog

from veapi.daemon import EndedEarly, configure_logs, run_until_signal
from veapi.errors import VerackError
from vecontroller.config import Config, load
from vecontroller.identity_cli import DEFAULT_CONFIG, cert, init, join, refusing
from vecontroller.restore_cli import restore

log = structlog.get_logger()
EXIT_DEPOSED = 75
"""Another controller leads now; started anew, this one stands by (systemd does that)."""
EXIT_FAULT = 70
_CONFIG = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The controller's configuration.",
)
_EMBEDDED = click.option(
    "--embedded-etcd", is_flag=True, help="Run an etcd of its own, whatever the configuration says."
)


@click.group(invoke_without_command=True)
@click.version_option(package_name="verack", message="%(version)s")
@_CONFIG
@_EMBEDDED
@click.pass_context
def main(context: click.Context, *, config: Path, embedded_etcd: bool) -> None:
    """Controller of a verack cluster. Without a command: run."""
    if context.invoked_subcommand is None:
        context.invoke(run, config=config, embedded_etcd=embedded_etcd)


@main.command()
@_CONFIG
@_EMBEDDED
@refusing
def run(*, config: Path, embedded_etcd: bool) -> None:
    """Runs the controller until SIGTERM or SIGINT."""
    settings = load(config, embedded_etcd=embedded_etcd)
    configure_logs(level=settings.log.level, as_json=settings.log.json)
    try:
        _run(settings)
    except Exception as error:  # noqa: BLE001 - the last resort
        raise _ending(error) from None


main.add_command(init)
main.add_command(cert)
main.add_command(join)
main.add_command(restore)


def _run(settings: Config) -> None:
    from vecontroller.app import serve  # noqa: PLC0415 - gRPC is not loaded to issue a certificate

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run_until_signal(lambda stop: serve(settings, stop)))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop's where it is installed."""
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415

        return uvloop.new_event_loop
    return None


def _ending(error: Exception) -> Exception:
    """What the program ends with: an expected error as it is, else an exit code after a line in the log."""
    from vecontroller.leader import NotLeader  # noqa: PLC0415

    causes = _leaves(error)
    if any(isinstance(cause, NotLeader) or _is_end_of_term(cause) for cause in causes):
        log.error("leadership lost, ending", exit_code=EXIT_DEPOSED)
        return click.exceptions.Exit(EXIT_DEPOSED)
    for cause in causes:
        if isinstance(cause, VerackError):
            return cause
    log.error("controller failed", exc_info=error, exit_code=EXIT_FAULT)
    return click.exceptions.Exit(EXIT_FAULT)


def _is_end_of_term(cause: BaseException) -> bool:
    return isinstance(cause, EndedEarly) and cause.args == ("leadership",)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
