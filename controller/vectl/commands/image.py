"""vectl image."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from veapi import registry
from veapi.errors import InvalidInput, VerackError
from veapi.units import format_size
from vectl import options
from vectl.columns import IMAGE_COLUMNS
from vectl.output import Printer, Style, age, moment, one
from vectl.progress import Meter
from vectl.session import Ended, Session, pass_session
from vectl.source import open_source
from vectl.text import complain, one_line

if TYPE_CHECKING:
    from veapi.v1.types_pb2 import Image, Prefetch
    from vectl.client import Client

_IMPORT_TIMEOUT_S = 1800.0
_image_argument = click.argument("name", shell_complete=options.complete_image)


@options.command("import")
@click.argument("name")
@click.argument("source", type=click.Path(path_type=Path))
@options.timeout_option(_IMPORT_TIMEOUT_S)
@pass_session
def import_(session: Session, name: str, source: Path, *, timeout_s: float) -> None:
    """Upload a root file system or an OCI layout: a tarball (tar, gz, xz, zst) or a folder.

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


@options.command("pull")
@click.argument("source")
@click.argument("name", required=False)
@click.option("--insecure", is_flag=True, help="Also without TLS, or with any certificate.")
@options.timeout_option(_IMPORT_TIMEOUT_S)
@pass_session
def pull(
    session: Session, source: str, name: str | None, *, insecure: bool, timeout_s: float
) -> None:
    """Get an image from a registry: docker://REGISTRY/NAME:TAG.

    A host fetches it. NAME is how it is called here; without it, as the source calls it.
    """
    tag = name or tag_of(registry.source("SOURCE", source))

    async def work(client: "Client") -> "Image":
        from vectl.imagecalls import pull_image  # noqa: PLC0415 - it imports grpc

        meter = Meter(sys.stderr, 0)
        session.stands = f"Whether image {tag} is there, `vectl image list` shows."
        try:
            return await pull_image(
                client, tag, source, meter.show, insecure=insecure, timeout_s=timeout_s
            )
        finally:
            meter.close()

    image = session.run(work)
    size = format_size(image.size_bytes)
    click.echo(f"image/{tag} pulled: {image.digest}, {size}, on {len(image.hosts)} hosts")


def tag_of(source: str) -> str:
    """`app:1` of docker://registry/team/app:1; a digest in it is left out."""
    return source.partition("@")[0].rpartition("/")[2]


@options.command("prefetch")
@_image_argument
@click.option("-l", "--selector", default="", help="Hosts by their labels, e.g. rack=r1.")
@click.option("--hosts", default="", metavar="H1,H2", help="Hosts by name.")
@click.option("--off", is_flag=True, help="Prefetch it no more.")
@pass_session
def prefetch(session: Session, name: str, *, selector: str, hosts: str, off: bool) -> None:
    """Have hosts hold an image before a VE needs it.

    Kept with the image: hosts that match later get it too. Replaces what was asked before.
    """
    named = [host.strip() for host in hosts.split(",") if host.strip()]
    if off == bool(selector or named):
        raise InvalidInput(
            "say which hosts", hint="give -l SELECTOR, --hosts H1,H2 or both; or --off alone"
        )

    async def work(client: "Client") -> "Image":
        from vectl.imagecalls import set_prefetch  # noqa: PLC0415 - it imports grpc

        return await set_prefetch(client, name, selector=selector, hosts=named)

    image = session.run(work)
    wanted = ", ".join(image.wanted_on) or "no host"
    click.echo(f"image/{name} is prefetched no more" if off else f"image/{name} goes to {wanted}")


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
        ("Command", shlex.join(image.config.command)),
        ("User", image.config.user),
        ("Folder", image.config.cwd),
        ("Env", " ".join(f"{key}={value}" for key, value in sorted(image.config.env.items()))),
        ("Held by", ", ".join(image.hosts)),
        ("Wanted on", ", ".join(image.wanted_on)),
        ("Prefetch", _prefetch_text(image.prefetch)),
    ]
    return [f"{title + ':':<11}{one_line(text)}" for title, text in rows if text]


def _prefetch_text(prefetch: "Prefetch") -> str:
    selector = [f"hosts with {prefetch.selector}"] if prefetch.selector else []
    return ", ".join([*selector, *prefetch.hosts])


@options.command("delete")
@click.argument("names", nargs=-1, required=True, shell_complete=options.complete_image)
@pass_session
def delete(session: Session, names: tuple[str, ...]) -> None:
    """Delete images that no VE uses.

    Hosts free the space when the image was not used for a day (their setting), or at once when their pool is short.
    """

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
