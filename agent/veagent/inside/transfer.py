"""Files into a VE and out of it: push reads a tar (or one file) at stdin, pull writes one to stdout.

The last line of stderr is JSON: what was done, or what was wrong. See `enter` for how it gets into the VE.
"""

import json
import os
import sys
from typing import NoReturn

from veagent.inside.enter import close_up, enter_running, enter_stopped, hide
from veagent.inside.users import NoSuchUser, find_user, read_lines
from veapi.tarstream import Member, Reader, TarError
from veapi.totar import PIECE_BYTES, NotPacked, ToTar
from veapi.untar import Refused, Rules, Untar, shown

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Wrong(Exception):
    """Kind, message, hint."""


def main() -> NoReturn:
    job = json.loads(sys.argv[1])
    try:
        _enter(job)
        close_up()
        done = _push(job) if job["push"] else _pull(job)
    except Wrong as error:
        kind, message, hint = error.args
        _say({"error": kind, "message": message, "hint": hint}, 1)
    except (Refused, TarError) as error:
        _say(_wrong("invalid_input", f"the tar is refused: {error}", "send plain files"), 1)
    except NotPacked as error:
        _say(_wrong("not_found", str(error), "look with `vectl exec NAME -- ls -l`"), 1)
    except OSError as error:
        _say(_os_error(error), 1)
    _say(done, 0)


def _enter(job: dict[str, object]) -> None:
    """The codecs of names are loaded before: afterwards nothing can be."""
    for name in ("utf-8", "ascii"):
        "".encode(name)
    hide()
    id_base = int(str(job["id_base"]))
    pidfd = int(str(job["pidfd"]))
    if pidfd >= 0:
        cgroups = job["cgroups"]
        assert isinstance(cgroups, list)
        enter_running(pidfd, id_base, cgroups)
    else:
        enter_stopped(str(job["root"]), id_base, read_only=not job["push"])


# --- push -------------------------------------------------------------------------------------------------------------


def _push(job: dict[str, object]) -> dict[str, object]:
    path = os.fsencode(str(job["path"]))
    owner = _owner(str(job["owner"]))
    plain = bool(job["plain"])
    rules = Rules(
        owner=owner or ((0, 0) if plain else None),
        own=owner is None and not plain,
        special_bits=True,
        links_out=True,
    )
    folder, first = _destination(path, into=bool(job["into"]))
    untar = Untar(folder, rules, first=first)
    try:
        if plain:
            member = Member(
                first or b"", mode=int(str(job["mode"])), size=1, mtime=int(str(job["now"]))
            )
            _read_plain(untar, member)
        else:
            _read_tar(untar)
        untar.finish()
    finally:
        untar.close()
    return {"files": untar.files, "bytes": untar.bytes, "notes": untar.notes}


def _owner(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    try:
        user = find_user(text, read_lines("/etc/passwd"), read_lines("/etc/group"))
    except NoSuchUser as error:
        raise Wrong("not_found", str(error), "give a number, or look at its /etc/passwd") from None
    return user.uid, user.gid


def _destination(path: bytes, *, into: bool) -> tuple[int, bytes | None]:
    """The folder to write in, and how what comes is called there; None: as it calls itself."""
    try:
        return os.open(path, _FOLDER), None
    except (FileNotFoundError, NotADirectoryError):
        if into or path.endswith(b"/"):
            raise Wrong(
                "not_found",
                f"{shown(path)} is no folder of the VE",
                "make it first: vectl exec NAME -- mkdir -p DIR",
            ) from None
    above, _, name = path.rstrip(b"/").rpartition(b"/")
    if name in (b"", b".", b".."):
        raise Wrong("invalid_input", f"{shown(path)} is no name for a file", "name the file")
    try:
        return os.open(above or b"/", _FOLDER), name
    except OSError as error:
        raise Wrong(
            "not_found",
            f"{shown(above or b'/')}: {error.strerror}",
            "make the folder first: vectl exec NAME -- mkdir -p DIR",
        ) from None


def _read_tar(untar: Untar) -> None:
    reader = Reader()
    while data := os.read(0, PIECE_BYTES):
        for found in reader.feed(data):
            untar.take(found)
    reader.finish()


def _read_plain(untar: Untar, member: Member) -> None:
    """All of stdin but its last byte, which says that it is whole: its sender may have gone."""
    if not member.name:
        raise Wrong("invalid_input", "the path is a folder of the VE", "name the file in it")
    untar.take(member)
    held = b""
    while data := os.read(0, PIECE_BYTES):
        held += data
        untar.take(held[:-1])
        held = held[-1:]
    if held != b"\n":
        raise TarError("it was cut short")


# --- pull -------------------------------------------------------------------------------------------------------------


def _pull(job: dict[str, object]) -> dict[str, object]:
    paths = job["paths"]
    assert isinstance(paths, list)
    tar = ToTar(recursive=bool(job["recursive"]))
    for path in paths:
        for piece in tar.pack(os.fsencode(path)):
            _write(piece)
    _write(tar.end())
    return {"files": tar.files, "bytes": tar.bytes, "notes": tar.notes}


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


# --- words ------------------------------------------------------------------------------------------------------------


def _wrong(kind: str, message: str, hint: str) -> dict[str, object]:
    return {"error": kind, "message": message, "hint": hint}


def _os_error(error: OSError) -> dict[str, object]:
    where = f"{error.filename}: " if error.filename else ""
    words = error.strerror or "it failed"
    match error.errno:
        case 28 | 122:  # ENOSPC, EDQUOT
            hint = "the VE's disk is full: free some, or raise its limit: vectl set NAME --disk"
        case 20 | 21 | 40:  # ENOTDIR, EISDIR, ELOOP
            hint = "something else has that name in the VE: a folder, a file or a link"
        case 30:  # EROFS
            hint = "that part of the VE can't be written to"
        case _:
            hint = "look at the path inside the VE"
    return _wrong("conflict", f"{where}{words}", hint)


def _say(words: dict[str, object], code: int) -> NoReturn:
    os.write(2, b"\n" + json.dumps(words).encode() + b"\n")
    os._exit(code)
