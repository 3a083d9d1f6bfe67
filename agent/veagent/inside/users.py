"""Users of a VE, as its own /etc/passwd and /etc/group tell. Never by the C library: that would load code of the VE."""

import os
import stat

IDS = 65_536
_FILE_LIMIT_BYTES = 1 << 20
_GROUPS_LIMIT = 64
_SHOWN = 64


class User:
    """Ids as the VE numbers them. `shell` may be empty. (No dataclass: its import costs more than all that is done here.)"""

    __slots__ = ("gid", "groups", "home", "name", "shell", "uid")

    def __init__(
        self, *, uid: int, gid: int, name: str, home: str, shell: str, groups: tuple[int, ...]
    ) -> None:
        self.uid = uid
        self.gid = gid
        self.name = name
        self.home = home
        self.shell = shell
        self.groups = groups


class NoSuchUser(LookupError):
    """The text says which."""


def read_user(wanted: str) -> User:
    """Of the root that this process is in."""
    return find_user(wanted, read_lines("/etc/passwd"), read_lines("/etc/group"))


def find_user(wanted: str, passwd: list[str], group: list[str]) -> User:
    """`wanted` is a name or number, with or without :group; empty: 0. NoSuchUser when it is not there.

    A number needs no entry: its group is then the same number, its home /.
    """
    name, colon, group_name = (wanted or "0").partition(":")
    fields = _entry(name, passwd, parts=7)
    if fields is not None:
        user = _of_entry(fields, group)
    elif name.isascii() and name.isdigit():
        user = _of_number(name)
    else:
        raise NoSuchUser(f"the VE has no user {name[:_SHOWN]}")
    if not colon:
        return user
    user.gid = _find_group(group_name, group)
    user.groups = (user.gid,)
    return user


def read_lines(path: str) -> list[str]:
    """Of a plain file of at most 1 MiB; none when it is something else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return []
    with os.fdopen(fd, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        data = b""
        while len(data) < _FILE_LIMIT_BYTES and (piece := file.read(_FILE_LIMIT_BYTES)):
            data += piece
    return data[:_FILE_LIMIT_BYTES].decode("utf-8", "surrogateescape").split("\n")


def _entry(name: str, lines: list[str], *, parts: int) -> list[str] | None:
    """By name; by number when none is called so."""
    entries = [fields for line in lines if len(fields := line.split(":")) >= parts]
    number = _plain(name)
    by_name = next((fields for fields in entries if fields[0] == name), None)
    return by_name or next((fields for fields in entries if fields[2] == number), None)


def _of_entry(fields: list[str], group: list[str]) -> User:
    name, _, uid, gid, _, home, shell = fields[:7]
    own = _number("user", gid)
    groups = (own, *_memberships(name, own, group))
    return User(
        uid=_number("user", uid),
        gid=own,
        name=name,
        home=home or "/",
        shell=shell.strip(),
        groups=groups,
    )


def _of_number(text: str) -> User:
    number = _number("user", text)
    name, home = ("root", "/root") if number == 0 else (text, "/")
    return User(uid=number, gid=number, name=name, home=home, shell="", groups=(number,))


def _memberships(name: str, own: int, group: list[str]) -> list[int]:
    found = []
    for line in group:
        fields = line.split(":")
        member = len(fields) >= 4 and name in fields[3].strip().split(",")
        if member and (gid := _id(fields[2])) is not None:
            found.append(gid)
    return [gid for gid in dict.fromkeys(found) if gid != own][:_GROUPS_LIMIT]


def _find_group(name: str, lines: list[str]) -> int:
    fields = _entry(name, lines, parts=4)
    if fields is not None:
        return _number("group", fields[2])
    if name.isascii() and name.isdigit():
        return _number("group", name)
    raise NoSuchUser(f"the VE has no group {name[:_SHOWN]}")


def _number(what: str, text: str) -> int:
    number = _id(text)
    if number is None:
        raise NoSuchUser(f"{what} {text[:20]} is beyond the ids of a VE (0 to {IDS - 1})")
    return number


def _id(text: str) -> int | None:
    """None unless it is one of a VE's. The text is of any length: `int` refuses thousands of digits by another error."""
    plain = _plain(text)
    if plain is None or len(plain) > len(str(IDS)) or int(plain) >= IDS:
        return None
    return int(plain)


def _plain(text: str) -> str | None:
    """A number without zeros before it; None when it is none."""
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else None
