"""vectl image."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from veapi.errors import VerackError
from veapi.units import format_size
from vectl import options
from vectl.columns import IMAGE_COLUMNS
from vectl.output import Printer, Style, age, moment, one
from vectl.progress import Meter
from vectl.session import Ended, Session, pass_session
from vectl.source import open_source
from vectl.text import complain, one_line

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import Image
    from vectl.client import Client

_IMPORT_TIMEOUT_S = 1800.0
_image_argument = click.argument("name", shell_complete=options.complete_image)


@options.command("import")
@click.argument("name")
@click.argument("source", type=click.Path(path_type=Path))
@options.timeout_option(_IMPORT_TIMEOUT_S)
@pass_session
def import_(session: Session, name: str, source: Path, *, timeout_s: float) -> None:
    """Upload a root file system: a tarball (tar, gz, xz, zst) or a folder.

    A folder is packed by tar on the way: the same folder gives the same image.
    """
    chunks, size_bytes = open_source(source)

    async def work(client: "Client") -> "Image":
        meter = Meter(sys.stderr, size_bytes)
        session.stands = f"Whether image {name} is there, `vectl image list` shows."
        try:
            return await client.import_image(
                name, chunks, meter.show, size_bytes=size_bytes, timeout_s=timeout_s
            )
        finally:
            meter.close()

    image = session.run(work)
    size = format_size(image.size_bytes)
    click.echo(f"image/{name} imported: {image.digest}, {size}, on {len(image.hosts)} hosts")


@options.command("list")
@options.output_option()
@options.no_headers_option
@pass_session
def list_(session: Session, *, style: Style, no_headers: bool) -> None:
    """Images and where they are."""

    async def work(client: "Client") -> "list[Image]":
        return await client.images()

    images = session.run(work)
    printer = Printer(style, IMAGE_COLUMNS, prefix="image/", headers=not no_headers)
    printer.many(images, [image.tags[0] if image.tags else image.digest for image in images])


@options.command("show")
@_image_argument
@options.output_option(wide=False)
@pass_session
def show(session: Session, name: str, *, style: Style) -> None:
    """All about one image, by tag or digest."""

    async def work(client: "Client") -> "Image":
        return await client.image(name)

    image = session.run(work)
    match style:
        case "json" | "yaml":
            one(image, style)
        case "name":
            click.echo(f"image/{name}")
        case _:
            for line in facts(image):
                click.echo(line)


def facts(image: "Image") -> list[str]:
    """A line for each thing that is known."""
    rows = [
        ("Names", ", ".join(image.tags)),
        ("Digest", image.digest),
        ("Size", format_size(image.size_bytes)),
        ("Blob", f"{format_size(image.blob_bytes)}, {image.blob_digest}"),
        ("Created", f"{moment(image.created_at)} ({age(image.created_at)} ago)"),
        ("Held by", ", ".join(image.hosts)),
    ]
    return [f"{title + ':':<10}{one_line(text)}" for title, text in rows if text]


@options.command("delete")
@click.argument("names", nargs=-1, required=True, shell_complete=options.complete_image)
@pass_session
def delete(session: Session, names: tuple[str, ...]) -> None:
    """Delete images. VEs that were made of them are not touched."""

    async def work(client: "Client") -> int:
        code = 0
        for name in names:
            try:
                await client.delete_image(name)
                click.echo(f"image/{name} deleted")
            except VerackError as error:
                complain(error.message, error.hint)
                code = code or error.exit_code
        return code

    if code := session.run(work):
        raise Ended(code)
