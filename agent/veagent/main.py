"""The program `veagent`."""

import asyncio
import sys
from pathlib import Path

import click
import structlog

from veapi.daemon import configure_logs, run_until_signal  # first: it sets grpc's environment

from veagent import app  # isort: skip
from veagent.config import Config, RuntimeName, load
from veagent.facts import own_version
from veapi.errors import VerackError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("/etc/verack/agent.toml"),
    show_default=True,
    help="The host's configuration (TOML).",
)
@click.option(
    "--runtime",
    type=click.Choice(["lxc", "fake"]),
    help="Instead of the configuration's; fake needs no root and only seems to run VEs.",
)
@click.version_option(own_version(), prog_name="veagent")
def main(path: Path, runtime: RuntimeName | None) -> None:
    """Runs the VEs of this host as a controller wants them. Ends on SIGTERM; the VEs run on."""
    try:
        config = load(path, runtime=runtime)
        configure_logs(level=config.log.level, as_json=config.log.json)
        asyncio.run(_until_signal(config))
    except (VerackError, BaseExceptionGroup) as error:
        sys.exit(_tell(_first(error)))


async def _until_signal(config: Config) -> None:
    # A pidfd per program that we start, not a thread; from Python 3.12 on this is the default.
    if sys.version_info < (3, 12):
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)
    await run_until_signal(lambda stop: app.serve(config, stop))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _tell(error: BaseException) -> int:
    """To people on stderr; gives the exit code. What nobody expected goes to the log, with all that helps to find it."""
    if not isinstance(error, VerackError):
        structlog.get_logger().error("agent failed unexpectedly", exc_info=error)
        return VerackError.exit_code
    click.echo(f"veagent: {error.message}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    return error.exit_code
