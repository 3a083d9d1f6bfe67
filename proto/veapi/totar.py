"""Packs files into a tar, following no link beneath what was named; for files that others may change meanwhile.

Symlinks stay symlinks, hard links within what is packed stay so, what is mounted inside is left out, and so are devices,
pipes and sockets. A file that shrinks while it is read is filled up with zeros, one that grows is cut.
"""

import os
import stat
from collections.abc import Iterator

from veapi import tarstream
from veapi.tarstream import Member
from veapi.untar import shown

PIECE_BYTES = 256 << 10
_DEPTH = 200
_NOTES = 20
_PSEUDO_BYTES = 1 << 20
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class NotPacked(Exception):
    """Something that was named can't be packed; the text says what and why."""


class ToTar:
    """Counts what it packs."""

    def __init__(self, *, recursive: bool) -> None:
        self._recursive = recursive
        self._links: dict[tuple[int, int], bytes] = {}
        self.files = 0
        self.bytes = 0
        self.notes: list[str] = []

    def pack(self, path: bytes) -> Iterator[bytes]:
        """One that was named, under the last part of its name; a link at its end is followed. NotPacked when it can't be."""
        name = path.rstrip(b"/").rpartition(b"/")[2]
        name = b"root" if name in (b"", b".", b"..") else name
        try:
            fd = os.open(path, _OPEN)
        except OSError as error:
            raise NotPacked(f"{shown(path)}: {error.strerror}") from None
        try:
            found = os.fstat(fd)
            if stat.S_ISDIR(found.st_mode) and not self._recursive:
                raise NotPacked(f"{shown(path)}: it is a folder, which needs -r")
            if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
                raise NotPacked(f"{shown(path)}: it is neither a file nor a folder")
            yield from self._opened(fd, found, name, found.st_dev, 0)
        finally:
            os.close(fd)

    def end(self) -> bytes:
        return tarstream.END

    def _opened(
        self, fd: int, found: os.stat_result, name: bytes, device: int, depth: int
    ) -> Iterator[bytes]:
        if stat.S_ISREG(found.st_mode):
            yield from self._file(fd, found, name)
            return
        yield tarstream.header(_member(found, name, tarstream.FOLDER))
        self.files += 1
        if depth >= _DEPTH:
            self._note(name, "it is too deep")
            return
        for child in sorted(os.listdir(fd)):
            yield from self._child(fd, os.fsencode(child), name, device, depth + 1)

    def _child(
        self, folder: int, child: bytes, above: bytes, device: int, depth: int
    ) -> Iterator[bytes]:
        name = above + b"/" + child
        try:
            found = os.stat(child, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                link = os.readlink(child, dir_fd=folder)
                yield tarstream.header(_member(found, name, tarstream.SYMLINK, link))
                self.files += 1
                return
            if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
                self._note(name, "it is a device, pipe or socket")
                return
            if found.st_dev != device:
                self._note(name, "something is mounted there")
                return
            fd = os.open(child, _OPEN | os.O_NOFOLLOW, dir_fd=folder)
        except OSError as error:
            self._note(name, error.strerror or "unreadable")
            return
        try:
            again = os.fstat(fd)
            if stat.S_IFMT(again.st_mode) != stat.S_IFMT(found.st_mode):
                self._note(name, "it changed while it was read")
                return
            yield from self._opened(fd, again, name, device, depth)
        finally:
            os.close(fd)

    def _file(self, fd: int, found: os.stat_result, name: bytes) -> Iterator[bytes]:
        identity = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and identity in self._links:
            yield tarstream.header(_member(found, name, tarstream.HARD_LINK, self._links[identity]))
            self.files += 1
            return
        if found.st_nlink > 1:
            self._links[identity] = name
        self.files += 1
        if found.st_size == 0:  # as of /proc and /sys, whose files have content and no size
            content = _read_some(fd)
            member = _member(found, name, tarstream.FILE)._replace(size=len(content))
            self.bytes += len(content)
            yield tarstream.header(member) + content + tarstream.padding(len(content))
            return
        yield tarstream.header(_member(found, name, tarstream.FILE)._replace(size=found.st_size))
        yield from self._content(fd, found.st_size, name)
        yield tarstream.padding(found.st_size)

    def _content(self, fd: int, size: int, name: bytes) -> Iterator[bytes]:
        left = size
        while left:
            piece = os.read(fd, min(PIECE_BYTES, left))
            if not piece:
                self._note(
                    name, "it shrank while it was read, zeros are at its end", left_out=False
                )
                piece = bytes(min(PIECE_BYTES, left))
            left -= len(piece)
            self.bytes += len(piece)
            yield piece

    def _note(self, name: bytes, why: str, *, left_out: bool = True) -> None:
        if len(self.notes) < _NOTES:
            self.notes.append(f"{shown(name)}: {'left out, ' if left_out else ''}{why}")


def _member(found: os.stat_result, name: bytes, kind: str, link: bytes = b"") -> Member:
    return Member(
        name=name,
        kind=kind,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        mtime=max(0, int(found.st_mtime)),
        link=link if isinstance(link, bytes) else os.fsencode(link),
    )


def _read_some(fd: int) -> bytes:
    content = b""
    while len(content) < _PSEUDO_BYTES:
        try:
            piece = os.read(fd, _PSEUDO_BYTES - len(content))
        except OSError:
            break
        if not piece:
            break
        content += piece
    return content
