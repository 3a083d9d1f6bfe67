"""vectl push, pull."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from veapi import access
from veapi.errors import Conflict, InvalidInput, NotFound
from veapi.tarstream import FILE, Member, Reader, TarError
from veapi.totar import NotPacked, ToTar
from veapi.units import format_size
from veapi.untar import Refused, Rules, Untar
from vectl import options, terminal
from vectl.progress import Line
from vectl.session import Session, pass_session
from vectl.text import clean

if TYPE_CHECKING:
    from veapi.v1.api_pb2 import Transferred
    from vectl.client import Client

_BATCH_BYTES = 256 << 10
_PIPE = "-"
_recursive_option = click.option("-r", "--recursive", is_flag=True, help="Folders too.")


@options.command("push")
@_recursive_option
@click.option("--owner", default="", metavar="USER[:GROUP]", help="Of all, a user of the VE.")
@click.option("--mode", type=options.Mode(), help="Mode of a file that comes from -.")
@click.argument("sources", nargs=-1, required=True, metavar="LOCAL...")
@click.argument("target", metavar="NAME:PATH", shell_complete=options.complete_ve_path)
@pass_session
def push(
    session: Session,
    sources: tuple[str, ...],
    target: str,
    *,
    recursive: bool,
    owner: str,
    mode: int | None,
) -> None:
    """Copy files into a VE, e.g. `vectl push app.conf web:/etc/`; - is our input.

    Files belong to the VE's root, folders (-r) keep the numbers of their owners, unless --owner says whose they are. The VE may
    run or not.
    """
    name, path = split_target(target)
    access.user("owner", owner)
    plain = _PIPE in sources
    if plain and len(sources) > 1:
        raise InvalidInput("push: - can't be joined by others", hint="push them one by one")
    if mode is not None and not plain:
        raise InvalidInput("mode: only for -", hint="files bring their own mode")
    tar = ToTar(recursive=recursive)

    async def work(client: "Client") -> "Transferred":
        from veapi.v1.api_pb2 import PushStart  # noqa: PLC0415  # not for --help

        start = PushStart(
            path=path,
            into=len(sources) > 1 or path.endswith("/"),
            owner=owner if owner or recursive else "0:0",
            plain=plain,
            mode=mode or 0,
        )
        chunks = terminal.chunks(terminal.STDIN) if plain else _packed(tar, sources)
        with _Count() as count:
            return await client.push(name, start, chunks, count.show)

    done = session.run(work)
    _tell(done, [*tar.notes, *done.notes], f"{name}:{path}")


@options.command("pull")
@_recursive_option
@click.option("--links", is_flag=True, help="Also links that lead out of what is pulled.")
@click.option("--preserve", is_flag=True, help="Keep owners and set-id bits; only for root.")
@click.argument(
    "sources",
    nargs=-1,
    required=True,
    metavar="NAME:PATH...",
    shell_complete=options.complete_ve_path,
)
@click.argument("target", metavar="LOCAL")
@pass_session
def pull(
    session: Session,
    sources: tuple[str, ...],
    target: str,
    *,
    recursive: bool,
    links: bool,
    preserve: bool,
) -> None:
    """Copy files out of a VE, e.g. `vectl pull web:/var/log/app.log .`; - is our output.

    What comes is never trusted: nothing is written outside of LOCAL. The VE may run or not.
    """
    name, paths = _one_ve(sources)
    if preserve and os.geteuid() != 0:
        raise InvalidInput("preserve: only root may keep owners", hint="leave it out, or use sudo")
    if target == _PIPE and (recursive or len(paths) > 1):
        raise InvalidInput("pull: only one file goes to -", hint="name a folder to pull into")
    rules = Rules(own=preserve, special_bits=preserve, links_out=links)
    sink = _Out() if target == _PIPE else _Folder(target, rules, one=len(paths) == 1)

    async def work(client: "Client") -> "Transferred":
        from veapi.v1.api_pb2 import PullRequest  # noqa: PLC0415  # not for --help

        request = PullRequest(paths=paths, recursive=recursive)
        with sink, _Count() as count:
            return await _receive(client.pull(name, request), sink, count)

    done = session.run(work)
    if target != _PIPE:
        _tell(done, [*done.notes, *sink.notes], target)


async def _receive(
    pieces: "AsyncIterator[bytes | Transferred]", sink: "_Out | _Folder", count: "_Count"
) -> "Transferred":
    reader, received = Reader(), 0
    try:
        async for piece in pieces:
            if not isinstance(piece, bytes):
                reader.finish()
                sink.finish()
                return piece
            received += len(piece)
            count.show(received)
            for found in reader.feed(piece):
                sink.take(found)
    except (Refused, TarError) as error:
        raise Conflict(
            f"pull: refused what came: {error}", hint="the VE or its host is not to be trusted"
        ) from None
    except OSError as error:
        raise Conflict(
            f"can't write {error.filename or 'it'}: {error.strerror}",
            hint="something else has that name, or there is no room or right to write",
        ) from None
    raise AssertionError("the stream ends with what was told, or raises")


class _Out:
    """One file, to our output."""

    notes: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.buffer.flush()

    def take(self, found: Member | bytes) -> None:
        if isinstance(found, bytes):
            sys.stdout.buffer.write(found)
        elif found.kind != FILE:
            raise Refused("it is no file")

    def finish(self) -> None:
        return


class _Folder:
    """Into a folder that is there, or under a new name in one."""

    def __init__(self, target: str, rules: Rules, *, one: bool) -> None:
        self._target = target
        self._rules = rules
        self._one = one
        self._untar: Untar | None = None
        self._fd = -1

    @property
    def notes(self) -> list[str]:
        return self._untar.notes if self._untar is not None else []

    def __enter__(self) -> Self:
        folder, first = self._place()
        try:
            self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(
                f"{folder}: {error.strerror}", hint="LOCAL must be a folder, or a name in one"
            ) from None
        self._untar = Untar(self._fd, self._rules, first=first)
        return self

    def __exit__(self, *_: object) -> None:
        if self._untar is not None:
            self._untar.close()
        os.close(self._fd)

    def take(self, found: Member | bytes) -> None:
        assert self._untar is not None
        self._untar.take(found)

    def finish(self) -> None:
        assert self._untar is not None
        self._untar.finish()

    def _place(self) -> tuple[str, bytes | None]:
        if Path(self._target).is_dir() or not self._one or self._target.endswith("/"):
            return self._target, None
        above, _, name = self._target.rpartition("/")
        if name in ("", ".", ".."):
            raise InvalidInput(f"{self._target!r} is no name for a file", hint="name the file")
        return above or ("/" if self._target.startswith("/") else "."), os.fsencode(name)


class _Count:
    """Bytes so far, on a terminal."""

    def __init__(self) -> None:
        self._line = Line(sys.stderr) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._line is not None:
            self._line.close()

    def show(self, count: int) -> None:
        if self._line is not None:
            self._line.text(format_size(count))


async def _packed(tar: ToTar, sources: tuple[str, ...]) -> AsyncIterator[bytes]:
    """The files as one tar, read in a thread."""
    pieces = _batches(tar, sources)
    try:
        while (batch := await asyncio.to_thread(next, pieces, None)) is not None:
            yield batch
    except NotPacked as error:
        raise NotFound(f"push: {error}", hint="nothing, or only a part, was pushed") from None


def _batches(tar: ToTar, sources: tuple[str, ...]) -> Iterator[bytes]:
    held = bytearray()
    for source in sources:
        for piece in tar.pack(os.fsencode(Path(source).absolute())):
            held += piece
            if len(held) >= _BATCH_BYTES:
                yield bytes(held)
                held.clear()
    yield bytes(held) + tar.end()


def split_target(text: str) -> tuple[str, str]:
    """Name and path of NAME:PATH; InvalidInput names what is wrong with it."""
    name, colon, path = text.partition(":")
    if not colon or not name:
        raise InvalidInput(
            f"{text[:80]!r} names no place in a VE", hint="write NAME:PATH, e.g. web:/etc/hosts"
        )
    return name, access.path("path", path)


def _one_ve(sources: tuple[str, ...]) -> tuple[str, list[str]]:
    found = [split_target(source) for source in sources]
    names = sorted({name for name, _ in found})
    if len(names) > 1:
        raise InvalidInput(
            f"pull: files of {' and '.join(names)}", hint="pull them from one VE after the other"
        )
    return names[0], [path for _, path in found]


def _tell(done: "Transferred", notes: list[str], where: str) -> None:
    for note in notes:
        click.echo(f"Note: {clean(note)}", err=True)
    what = "1 file" if done.files == 1 else f"{done.files} files"
    click.echo(f"{what}, {format_size(done.bytes)}: {where}")
