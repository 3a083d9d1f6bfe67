"""Opening what lies in a root that somebody else filled, without ever leaving it.

Naively `root / "etc/hostname"` follows a symlink `etc -> /etc` and writes on the host (the class of CVE-2026-23954).
openat2(2) makes the kernel resolve the whole path inside the root instead.
"""

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SYS_OPENAT2 = 437
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH, _IN_ROOT = 0x02, 0x04, 0x08, 0x10
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _openat2(root_fd: int, path: str, flags: int, resolve: int) -> int:
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=0, resolve=resolve | _NO_MAGICLINKS)
    fd = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(root_fd),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int(fd)


@contextmanager
def opened_root(root: Path) -> Iterator[int]:
    """A descriptor of the root's folder."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def look(root_fd: int, path: str) -> os.stat_result | None:
    """What `path` is as a process inside the root sees it (symlinks followed within); None when nothing is there."""
    try:
        fd = _openat2(root_fd, path, os.O_PATH, _IN_ROOT)
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def open_plain(root_fd: int, path: str) -> int:
    """A plain file, open for reading. OSError when it is none, or when any part of the path is a symlink."""
    fd = _openat2(root_fd, path, os.O_RDONLY | os.O_NONBLOCK, _BENEATH | _NO_SYMLINKS)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "no plain file", path)


def read_within(root_fd: int, path: str, *, most_bytes: int) -> bytes:
    """The first bytes of a plain file as a process inside the root sees it (symlinks followed within); OSError."""
    fd = _openat2(root_fd, path, os.O_RDONLY | os.O_NONBLOCK, _IN_ROOT)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "no plain file", path)
        return os.read(fd, most_bytes)
    finally:
        os.close(fd)


def write_file(root_fd: int, folder: str, name: str, content: bytes) -> None:
    """Replaces folder/name (also when it is a symlink) by a file 0644 of root.

    `folder` is made when it is missing. OSError ELOOP or ENOTDIR when a part of it is a symlink or a file.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o755, dir_fd=root_fd)
    fd = _openat2(root_fd, folder, os.O_RDONLY | os.O_DIRECTORY, _BENEATH | _NO_SYMLINKS)
    try:
        _replace(fd, name, content)
    finally:
        os.close(fd)


def _replace(folder_fd: int, name: str, content: bytes) -> None:
    draft = f".{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft, dir_fd=folder_fd)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(draft, flags, 0o644, dir_fd=folder_fd)
    try:
        os.fchmod(fd, 0o644)
        os.write(fd, content)
    finally:
        os.close(fd)
    os.replace(draft, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)


def kind(found: os.stat_result) -> str:
    """`a symlink`, `a file`: for messages."""
    names = {stat.S_IFLNK: "a symlink", stat.S_IFREG: "a file", stat.S_IFDIR: "a folder"}
    return names.get(stat.S_IFMT(found.st_mode), "a special file")
