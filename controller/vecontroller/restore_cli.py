"""The command `restore` of vecontroller."""

import asyncio
from pathlib import Path

import click

from veapi.clock import SystemClock
from veapi.daemon import configure_logs
from veapi.errors import InvalidInput
from vecontroller.config import load
from vecontroller.identity_cli import DEFAULT_CONFIG, refusing

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=_FILE)
@click.option(
    "--config", type=_FILE, default=DEFAULT_CONFIG, show_default=True, help="Of this controller."
)
@click.option(
    "--snapshot",
    type=_FILE,
    help="Write a snapshot for the members of an external etcd here, instead of a store.",
)
@refusing
def restore(*, file: Path, config: Path, snapshot: Path | None) -> None:
    """Make the embedded etcd's store of a backup FILE of `vectl cluster backup`, while the controller is stopped.

    Hosts change nothing by a restored store before `vectl cluster confirm`.
    """
    from vecontroller.restoring import (  # noqa: PLC0415 - gRPC is not loaded to issue a certificate
        restore_embedded,
        restore_snapshot,
    )

    configure_logs(level="error", as_json=False)
    if snapshot is not None:
        done = asyncio.run(restore_snapshot(file, snapshot, SystemClock()))
        click.echo(f"{snapshot}: cluster {done.backup.cluster}, incarnation {done.incarnation}")
        click.echo("next: `etcdctl snapshot restore` of it on every member of etcd")
        return
    settings = load(config)
    if not settings.etcd.embedded:
        raise InvalidInput(
            f"{config}: its etcd is not embedded",
            hint="make a snapshot for its members by --snapshot OUT.db; docs/operations/disaster.md",
        )
    done = asyncio.run(restore_embedded(file, settings.data, settings.cluster, SystemClock()))
    click.echo(f"restored cluster {done.backup.cluster}, incarnation {done.incarnation}")
    click.echo("next: start the controller, wait for all hosts, then: vectl cluster confirm")
