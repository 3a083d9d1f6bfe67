"""The commands `init` and `cert` of vecontroller."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click

from veapi.channel import Role
from veapi.errors import VerackError
from vecontroller.identity import LEAF_DAYS, create_ca, issue

P = ParamSpec("P")
_DIRECTORY = click.Path(file_okay=False, path_type=Path)


def refusing(command: Callable[P, None]) -> Callable[P, None]:
    """Shows expected errors as a sentence and a hint; ends with the error's own exit code."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except VerackError as error:
            click.echo(f"error: {error.message}", err=True)
            if error.hint:
                click.echo(f"hint: {error.hint}", err=True)
            raise click.exceptions.Exit(error.exit_code) from None

    return wrapped


@click.command()
@click.option("--cluster", required=True, help="Name of the new cluster.")
@click.option("--dir", "directory", type=_DIRECTORY, required=True, help="Where the CA shall be.")
@refusing
def init(cluster: str, directory: Path) -> None:
    """Make the certificate authority of a new cluster.

    Whoever reads ca.key can pose as anybody: keep it off the hosts, and keep a backup.
    """
    cert, key = create_ca(directory, cluster)
    click.echo(f"CA of cluster {cluster}: {cert}, {key}")
    click.echo(f"next: vecontroller cert controller c1 --dir {directory} --out DIR --address IP")


@click.command()
@click.argument("role", type=click.Choice([role.value for role in Role]))
@click.argument("name")
@click.option("--dir", "directory", type=_DIRECTORY, required=True, help="Where the CA is.")
@click.option("--out", type=_DIRECTORY, required=True, help="Gets ca.crt, tls.crt and tls.key.")
@click.option("--address", "addresses", multiple=True, help="IP or DNS name of it; repeatable.")
@click.option(
    "--days", type=int, default=LEAF_DAYS, show_default=True, help="How long it is valid."
)
@refusing
def cert(
    *, role: str, name: str, directory: Path, out: Path, addresses: tuple[str, ...], days: int
) -> None:
    """Issue a certificate for a host, a user or a controller NAME.

    Issuing again for the same folder renews it.
    """
    identity = issue(directory, Role(role), name, out, addresses=addresses, days=days)
    click.echo(f"{role} {name}: {identity.cert}, {identity.key}, {identity.ca}")
