"""Writes the members of a tar beneath a folder, and nowhere else.

The tar is hostile, and so may be whoever can change the folder meanwhile. So no path is ever given to the kernel: each
folder is opened by its one name beneath the one before, without following links (O_NOFOLLOW), and a file comes into
being under a name of ours and is renamed when it is complete. Names with `..`, absolute ones and device nodes are not
checked away but can't be said at all.

Whoever runs this has what rights it has: inside a VE those of its root, at a person's desk those of the person.
"""

import os
from typing import NamedTuple

from veapi import tarstream
from veapi.tarstream import Member

_DEPTH = 256
_NAME_BYTES = 255
_NOTES = 20
_FOLDERS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Refused(Exception):
    """The text names the member and says why."""


class Rules(NamedTuple):
    """`owner`: of everything; None: as the tar says (`own`), or whoever runs this. `links_out`: keep symlinks that lead out."""

    owner: tuple[int, int] | None = None
    own: bool = False
    special_bits: bool = False
    links_out: bool = False


class Untar:
    """Feed it with members and content in their order; `close` in any case, after `finish` if all went well.

    `first`: what the first part of all names is called instead. OSError when the disk is full, and the like.
    """

    def __init__(self, folder_fd: int, rules: Rules, *, first: bytes | None = None) -> None:
        self._root = folder_fd
        self._rules = rules
        self._first = first
        self._path: list[tuple[bytes, int]] = []
        self._folders: dict[tuple[bytes, ...], Member] = {}
        self._written: set[tuple[bytes, ...]] = set()
        self._open: _File | None = None
        self._serial = 0
        self.files = 0
        self.bytes = 0
        self.notes: list[str] = []

    def take(self, found: Member | bytes) -> None:
        """Refused, or OSError that names the member."""
        if isinstance(found, bytes):
            self._content(found)
            return
        try:
            self._begin(found)
        except OSError as error:
            raise _told(error, found.name) from None

    def finish(self) -> None:
        """All came: folders get their modes and times."""
        self._complete()
        for parts, member in reversed(self._folders.items()):
            fd = self._folder(parts)
            self._settle(fd, member)

    def close(self) -> None:
        """Removes what is not complete."""
        if self._open is not None:
            os.close(self._open.fd)
            self._unlink(self._open.folder, self._open.draft)
            os.close(self._open.folder)
            self._open = None
        while self._path:
            os.close(self._path.pop()[1])

    def _begin(self, member: Member) -> None:
        self._complete()
        parts = self._parts(member.name)
        match member.kind:
            case tarstream.FOLDER:
                self._make_folder(parts, member)
            case tarstream.FILE:
                self._begin_file(parts, member)
            case tarstream.SYMLINK:
                self._make_symlink(parts, member)
            case tarstream.HARD_LINK:
                self._make_hard_link(parts, member)
            case _:
                self._note(f"{shown(member.name)}: left out, it is a device, pipe or socket")

    def _parts(self, name: bytes) -> tuple[bytes, ...]:
        parts = tuple(name.rstrip(b"/").split(b"/"))
        if self._first is not None:
            parts = (self._first, *parts[1:])
        if len(parts) > _DEPTH or any(not _is_name(part) for part in parts):
            raise Refused(f"{shown(name)}: a name that leads elsewhere, or is too long or deep")
        return parts

    def _make_folder(self, parts: tuple[bytes, ...], member: Member) -> None:
        parent = self._folder(parts[:-1])
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            self._folder(parts)  # it must be one
        else:
            self._folders[parts] = member
            self.files += 1

    def _begin_file(self, parts: tuple[bytes, ...], member: Member) -> None:
        parent = os.dup(self._folder(parts[:-1]))
        draft = self._draft()
        try:
            fd = os.open(draft, _NEW, 0o600, dir_fd=parent)
        except OSError:
            os.close(parent)
            raise
        self._open = _File(parts, member, parent, fd, draft)
        if member.size == 0:
            self._complete()

    def _content(self, data: bytes) -> None:
        file = self._open
        if file is None:
            return  # of something that was left out
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(file.fd, view) :]
        except OSError as error:
            raise _told(error, b"/".join(file.parts)) from None
        self.bytes += len(data)

    def _complete(self) -> None:
        file = self._open
        if file is None:
            return
        self._settle(file.fd, file.member)
        self._put(file.folder, file.draft, file.parts)
        self._open = None
        os.close(file.fd)
        os.close(file.folder)

    def _make_symlink(self, parts: tuple[bytes, ...], member: Member) -> None:
        if not self._rules.links_out and leads_out(parts, member.link):
            self._note(f"{shown(member.name)}: left out, a link that leads out of the folder")
            return
        parent, draft = self._folder(parts[:-1]), self._draft()
        os.symlink(member.link, draft, dir_fd=parent)
        owner = self._owner(member)
        if owner is not None:
            os.chown(draft, *owner, dir_fd=parent, follow_symlinks=False)
        self._put(parent, draft, parts)

    def _make_hard_link(self, parts: tuple[bytes, ...], member: Member) -> None:
        """Only to what came before in the same tar."""
        target = self._parts(member.link)
        if target not in self._written:
            raise Refused(f"{shown(member.name)}: a hard link to what did not come before it")
        source = os.dup(self._folder(target[:-1]))
        try:
            parent, draft = self._folder(parts[:-1]), self._draft()
            os.link(target[-1], draft, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            self._put(parent, draft, parts)
            self._unlink(parent, draft)  # a rename to itself leaves it
        finally:
            os.close(source)

    def _put(self, folder: int, draft: bytes, parts: tuple[bytes, ...]) -> None:
        try:
            os.rename(draft, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            self._unlink(folder, draft)
            raise
        self._written.add(parts)
        self.files += 1

    def _settle(self, fd: int, member: Member) -> None:
        owner = self._owner(member)
        if owner is not None:
            os.fchown(fd, *owner)
        bits = 0o7777 if self._rules.special_bits else 0o777
        os.fchmod(fd, member.mode & bits)
        os.utime(fd, (member.mtime, member.mtime))

    def _owner(self, member: Member) -> tuple[int, int] | None:
        return (member.uid, member.gid) if self._rules.own else self._rules.owner

    def _folder(self, parts: tuple[bytes, ...]) -> int:
        """A descriptor of it, ours to keep; opened part by part, as far as it is not the one that is open."""
        common = 0
        for (name, _), part in zip(self._path, parts, strict=False):
            if name != part:
                break
            common += 1
        while len(self._path) > common:
            os.close(self._path.pop()[1])
        for part in parts[common:]:
            at = self._path[-1][1] if self._path else self._root
            self._path.append((part, os.open(part, _FOLDERS, dir_fd=at)))
        return self._path[-1][1] if self._path else self._root

    def _draft(self) -> bytes:
        self._serial += 1
        return b".verack-%d-%d.part" % (os.getpid(), self._serial)

    def _note(self, text: str) -> None:
        if len(self.notes) < _NOTES:
            self.notes.append(text)

    @staticmethod
    def _unlink(folder: int, name: bytes) -> None:
        try:
            os.unlink(name, dir_fd=folder)
        except OSError:
            return


class _File(NamedTuple):
    parts: tuple[bytes, ...]
    member: Member
    folder: int
    fd: int
    draft: bytes


def leads_out(parts: tuple[bytes, ...], target: bytes) -> bool:
    """Whether a symlink at `parts` leads above the top, by its own words."""
    if target.startswith(b"/"):
        return True
    depth = len(parts) - 1
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
        elif part not in (b"", b"."):
            depth += 1
        if depth < 0:
            return True
    return False


def shown(name: bytes) -> str:
    """For a message: printable, and not too long."""
    text = name[:200].decode(errors="replace")
    return "".join(char if char.isprintable() else "?" for char in text)


def _is_name(part: bytes) -> bool:
    return part not in (b"", b".", b"..") and b"\0" not in part and len(part) <= _NAME_BYTES


def _told(error: OSError, name: bytes) -> OSError:
    return OSError(error.errno, error.strerror, shown(name))
