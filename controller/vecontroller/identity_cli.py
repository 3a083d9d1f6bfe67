"""The commands `init`, `cert` and `join` of vecontroller."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click

from veapi.channel import Role
from veapi.errors import VerackError
from vecontroller.identity import LEAF_DAYS, create_ca, issue, issue_etcd
from vecontroller.joining import HOME, bring_in

P = ParamSpec("P")
_ETCD = ("etcd", "etcd-client")
_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
DEFAULT_CONFIG = HOME / "controller.toml"


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
@click.argument("role", type=click.Choice([*(role.value for role in Role), *_ETCD]))
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
    """Issue a certificate for a host, a user or a controller NAME; or, by etcd's own CA, for a member or a client.

    Issuing again for the same folder renews it.
    """
    if role in _ETCD:
        member = role == "etcd"
        identity = issue_etcd(directory, name, out, member=member, addresses=addresses, days=days)
    else:
        identity = issue(directory, Role(role), name, out, addresses=addresses, days=days)
    click.echo(f"{role} {name}: {identity.cert}, {identity.key}, {identity.ca}")


@click.command()
@click.argument("name")
@click.option("--address", required=True, help="Where others shall dial it, host:port.")
@click.option(
    "--config", type=_FILE, default=DEFAULT_CONFIG, show_default=True, help="Of this controller."
)
@click.option(
    "--dir", "directory", type=_DIRECTORY, required=True, help="Where the cluster's CA is."
)
@click.option("--etcd-dir", type=_DIRECTORY, required=True, help="Where etcd's CA is.")
@click.option("--out", type=_DIRECTORY, required=True, help="Gets all that the new one needs.")
@refusing
def join(
    *, name: str, address: str, config: Path, directory: Path, etcd_dir: Path, out: Path
) -> None:
    """Bring in another controller NAME: its keys and its configuration, made from those of this one.

    Whoever has the folder is a controller: take it to the new machine by a safe way, and remove it here.
    """
    newcomer = bring_in(config, name, address, cluster_ca=directory, etcd_ca=etcd_dir, out=out)
    click.echo(f"made {out} for controller {name} of cluster {newcomer.cluster}. Next:")
    click.echo(
        f"  1. copy what is in {out} to {HOME} on the machine at {address}, owned by the user verack"
    )
    click.echo(
        "  2. start it there: systemctl enable --now vecontroller; it stands by until it is needed"
    )
    click.echo(
        f'  3. add "{address}" to `controllers` of agent.toml and `endpoints` of contexts.toml; no hurry:'
    )
    click.echo(
        "     the other controllers lead agents and vectl to it, as long as one of those is reached"
    )
    click.echo(f"  4. remove {out}")
