"""vectl export, import."""

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from veapi import validate
from veapi.clock import SystemClock
from veapi.errors import Conflict, InvalidInput, VerackError
from veapi.units import format_size
from vectl import options, terminal
from vectl.archive import Archive, Writer
from vectl.follow import Goal
from vectl.mutate import Ask, Waiting, carry_out
from vectl.output import Style, one
from vectl.progress import Line
from vectl.session import Session, pass_session
from vectl.source import open_source

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import VE
    from vectl.client import Client

_PIPE = "-"
_IMPORT_S = 3600.0
_style_option = click.option(
    *("-o", "--output", "style"),
    type=click.Choice(("table", "json", "yaml", "name")),
    default="table",
    help="Form of the output.",
)


@options.command("export")
@options.name_argument
@click.argument("file")
@click.option("--snapshot", default="", metavar="TAG", help="As it was at this snapshot.")
@_style_option
@pass_session
def export(session: Session, name: str, file: str, *, snapshot: str, style: Style) -> None:
    """A VE, its root and what was asked for it, into one file; - is our output.

    It may run meanwhile: a snapshot is taken for it, and removed. The file has a checksum, and `vectl import` makes a VE of it.
    """
    if file == _PIPE and sys.stdout.isatty():
        raise InvalidInput("export: our output is a terminal", hint=f"vectl export {name} - >FILE")
    with _sink(file) as out:

        async def work(client: "Client") -> "VE":
            return await _write(client, name, snapshot, out)

        ve = session.run(work)
        size = out.tell() if file != _PIPE else 0
    if file == _PIPE:
        return
    match style:
        case "json" | "yaml":
            one(ve, style)
        case "name":
            click.echo(f"ve/{name}")
        case _:
            click.echo(f"ve/{name} exported: {file}, {format_size(size)}")


async def _write(client: "Client", name: str, snapshot: str, out: BinaryIO) -> "VE":
    from veapi.v1.types_pb2 import VE  # noqa: PLC0415  # not for --help

    writer, ve, count = Writer(at=int(SystemClock().wall())), VE(), 0
    line = Line(sys.stderr) if sys.stderr.isatty() else None
    try:
        async for piece in client.export(name, snapshot=snapshot):
            if isinstance(piece, bytes):
                count += len(piece)
                out.writelines(writer.root(piece))
                if line is not None:
                    line.text(f"{name}: {format_size(count)} packed")
            else:
                ve = piece
                out.write(writer.begin(_manifest(ve, snapshot)))
        out.write(writer.end())
        out.flush()
    finally:
        if line is not None:
            line.close()
    return ve


def _manifest(ve: "VE", snapshot: str) -> dict[str, object]:
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415  # not for --help

    return {
        "name": ve.name,
        "project": ve.project,
        "labels": dict(ve.labels),
        "spec": MessageToDict(ve.spec, preserving_proto_field_name=True),
        "snapshot": snapshot,
    }


@contextmanager
def _sink(file: str) -> Iterator[BinaryIO]:
    """A file that comes into being when all of it is written."""
    if file == _PIPE:
        yield sys.stdout.buffer
        return
    draft = Path(f"{file}.part")
    try:
        with draft.open("wb") as out:
            yield out
        draft.replace(file)
    except OSError as error:
        raise Conflict(
            f"can't write {file}: {error.strerror}", hint="choose another place"
        ) from None
    finally:
        draft.unlink(missing_ok=True)


@options.command("import")
@click.argument("file")
@click.argument("name", required=False)
@click.option("--stopped", is_flag=True, help="Make it, but don't start it.")
@options.timeout_option(_IMPORT_S)
@_style_option
@pass_session
def import_(
    session: Session, file: str, name: str | None, *, stopped: bool, timeout_s: float, style: Style
) -> None:
    """A VE out of a file of `vectl export`; - is our input.

    It is called as it was, or NAME, has the address that it had been given if that is free, and is placed anew. A file that was
    cut or changed leaves nothing.
    """
    if name is not None:
        validate.name("name", name)
    source = terminal.chunks(terminal.STDIN) if file == _PIPE else open_source(_plain(file))[0]

    async def work(client: "Client") -> "VE":
        return await _Import(client, session, Archive(source), timeout_s).run(name, stopped=stopped)

    ve = session.run(work)
    if style in ("json", "yaml"):
        one(ve, style)
    elif style == "name":
        click.echo(f"ve/{ve.name}")


def _plain(file: str) -> Path:
    if Path(file).is_dir():
        raise InvalidInput(f"{file} is a folder", hint="name a file of `vectl export`")
    return Path(file)


class _Import:
    """An image of the root, and a VE of that image."""

    def __init__(
        self, client: "Client", session: Session, archive: Archive, timeout_s: float
    ) -> None:
        self._client = client
        self._session = session
        self._archive = archive
        self._timeout_s = timeout_s
        self._line = Line(sys.stderr) if sys.stderr.isatty() else None

    async def run(self, name: str | None, *, stopped: bool) -> "VE":
        wanted = self._wanted(await self._archive.manifest(), name, stopped=stopped)
        await self._refuse_taken(wanted.name)
        image = f"imported-{wanted.name}-{os.urandom(4).hex()}"
        await self._upload(image)
        wanted.spec.image = image
        goal = Goal.STOPPED if wanted.spec.run == "stopped" else Goal.RUNNING
        ask = Ask(wanted.name, lambda: self._create(wanted), goal, "imported")
        await carry_out(
            self._client, self._session, [ask], Waiting(self._timeout_s, detach=False, fresh=True)
        )
        return await self._client.get(wanted.name)

    def _wanted(self, manifest: dict[str, object], name: str | None, *, stopped: bool) -> "VE":
        from google.protobuf.json_format import ParseDict, ParseError  # noqa: PLC0415

        from veapi.v1.types_pb2 import VE  # noqa: PLC0415

        told = {key: manifest.get(key) or default for key, default in _TOLD.items()}
        try:
            ve = ParseDict(told, VE(), ignore_unknown_fields=True)
        except ParseError:
            raise InvalidInput(
                "the file is refused: its spec can't be read", hint="export it again"
            ) from None
        ve.name = validate.name("name", name or ve.name)
        ve.project = self._client.context.project
        ve.spec.host = ""
        if stopped:
            ve.spec.run = "stopped"
        return ve

    async def _refuse_taken(self, name: str) -> None:
        """Before anything is sent."""
        ves, _ = await self._client.list_ves(names=[name])
        if ves:
            raise Conflict(f"name {name} is taken", hint="give another one: vectl import FILE NAME")

    async def _upload(self, image: str) -> None:
        def show(_: object) -> None:
            if self._line is not None:
                self._line.text(f"uploading {format_size(self._archive.read_bytes)}")

        try:
            await self._client.import_image(image, self._chunks(), show, timeout_s=self._timeout_s)
        finally:
            if self._line is not None:
                self._line.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        async for piece in self._archive.root():
            yield piece

    async def _create(self, wanted: "VE") -> "VE":
        """With its address, or another one when that is taken. Without a VE the image goes too."""
        try:
            return await self._with_address(wanted)
        except VerackError:
            with suppress(VerackError):
                await self._client.delete_image(wanted.spec.image)
            raise

    async def _with_address(self, wanted: "VE") -> "VE":
        try:
            return await self._client.create_ve(wanted)
        except (Conflict, InvalidInput) as error:
            if not wanted.spec.ip or wanted.spec.ip not in error.message:
                raise
        click.echo(f"Note: {wanted.spec.ip} is not free, it gets another address", err=True)
        wanted.spec.ip = ""
        return await self._client.create_ve(wanted)


_TOLD: dict[str, object] = {"name": "", "labels": {}, "spec": {}}
