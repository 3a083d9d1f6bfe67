"""vectl cluster backup, verify."""

from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from veapi.backupfile import Backup, Writer, verify
from veapi.errors import Conflict, InvalidInput, RemoteFailed
from veapi.units import format_size
from vectl import options
from vectl.output import moment
from vectl.session import Session, pass_session
from vectl.text import one_line
from vectl.wholefile import whole

if TYPE_CHECKING:
    from veapi.v1.cluster_pb2 import BackupEnd, BackupStart
    from vectl.client import Client

_FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@options.command("backup")
@_FILE
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@pass_session
def backup(session: Session, file: Path, *, force: bool) -> None:
    """Everything that the cluster's store holds, in one file that `vectl cluster verify` can check.

    The file appears when all of it is there and checked; until then, and after Ctrl-C, there is none. Roots of VEs and images are not in it: they
    are on the hosts.
    """
    if file.exists() and not force:
        raise Conflict(f"{file} is there already", hint="choose another name, or give --force")
    try:
        with whole(file) as out:
            taken = session.run(lambda client: _take(client, out))
    except OSError as error:
        raise Conflict(
            f"can't write {file}: {error.strerror}", hint="choose another place"
        ) from None
    click.echo(one_line(f"cluster/{taken.cluster} backed up: {file}, {_size(taken)}"))


@options.command("verify")
@_FILE
def verify_(file: Path) -> None:
    """Whether a file is a whole backup, and of what. Needs no controller."""
    try:
        found = verify(file)
    except OSError as error:
        raise InvalidInput(
            f"can't read {file}: {error.strerror}", hint="name a file of `vectl cluster backup`"
        ) from None
    for line in facts(found):
        click.echo(line)


def facts(found: Backup) -> list[str]:
    """A line for each thing that a backup says of itself."""
    from google.protobuf.timestamp_pb2 import Timestamp  # noqa: PLC0415  # not for --help

    rows = [
        ("Cluster", found.cluster),
        ("Incarnation", str(found.incarnation)),
        ("Revision", str(found.revision)),
        ("Taken", moment(Timestamp(seconds=found.taken_at))),
        ("Version", found.version),
        ("Size", format_size(found.size_bytes)),
        ("SHA-256", found.sha256),
    ]
    return [f"{title + ':':<13}{one_line(text)}" for title, text in rows]


def _size(taken: Backup) -> str:
    return f"{format_size(taken.size_bytes)}, revision {taken.revision}"


async def _take(client: "Client", out: BinaryIO) -> Backup:
    from veapi.v1.cluster_pb2 import BackupStart  # noqa: PLC0415  # not for --help
    from vectl.backup import backup as frames  # noqa: PLC0415  # brings grpc

    writer, start = Writer(out), BackupStart()
    async with aclosing(frames(client)) as coming:
        async for frame in coming:
            match frame:
                case bytes():
                    writer.add(frame)
                case BackupStart():
                    start = frame
                case _:
                    return _ended(writer, start, frame)
    raise RemoteFailed("the backup broke off", hint="take it again")


def _ended(writer: Writer, start: "BackupStart", end: "BackupEnd") -> Backup:
    found = Backup(
        cluster=start.cluster,
        incarnation=start.incarnation,
        revision=start.revision,
        taken_at=start.taken_at.seconds,
        version=start.version,
        size_bytes=end.size_bytes,
        sha256=end.sha256,
    )
    writer.end(found)
    return found
