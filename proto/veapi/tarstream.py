"""Tar as a stream of members, for files on their way into a VE and out of it: headers to bytes, and bytes to members.

Pure, and small: ustar with pax records for what does not fit, no sparse files, no GNU extensions. Reading trusts nothing:
`Reader` gives names as they came, and whoever writes files by them (`veapi.untar`) refuses what leads elsewhere.
"""

from collections.abc import Iterator
from typing import NamedTuple

BLOCK = 512
FILE, HARD_LINK, SYMLINK, CHAR, BLOCK_DEVICE, FOLDER, FIFO = "0", "1", "2", "3", "4", "5", "6"
END = bytes(2 * BLOCK)
_PAX, _PAX_GLOBAL = "x", "g"
_NAME_BYTES = 100
_OCTAL_11 = 8**11
_OCTAL_7 = 8**7
_PAX_LIMIT_BYTES = 64 << 10
_SIZE_LIMIT_BYTES = 1 << 53


class TarError(ValueError):
    """The text says what is wrong with it."""


class Member(NamedTuple):
    """What a header says. `kind` is one of the letters above; only files have a `size`; `mtime` in whole seconds."""

    name: bytes
    kind: str = FILE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: bytes = b""


def header(member: Member) -> bytes:
    """Its blocks; content follows, filled up by `padding`."""
    records = _records(member)
    found = b""
    if records:
        body = b"".join(_record(key, value) for key, value in records)
        pax = Member(b"PaxHeader", _PAX, size=len(body))
        found = _block(pax) + body + padding(len(body))
    return found + _block(member)


def padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def _records(member: Member) -> list[tuple[bytes, bytes]]:
    found = []
    if len(member.name) > _NAME_BYTES:
        found.append((b"path", member.name))
    if len(member.link) > _NAME_BYTES:
        found.append((b"linkpath", member.link))
    for key, value, most in (
        (b"size", member.size, _OCTAL_11),
        (b"uid", member.uid, _OCTAL_7),
        (b"gid", member.gid, _OCTAL_7),
        (b"mtime", member.mtime, _OCTAL_11),
    ):
        if not 0 <= value < most:
            found.append((key, b"%d" % value))
    return found


def _record(key: bytes, value: bytes) -> bytes:
    """Its own length first, that of the length included."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _block(member: Member) -> bytes:
    head = b"".join(
        (
            member.name[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0"),
            _octal(member.mode & 0o7777, 7),
            _octal(member.uid, 7),
            _octal(member.gid, 7),
            _octal(member.size, 11),
            _octal(member.mtime, 11),
            b" " * 8,
            member.kind.encode(),
            member.link[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0"),
            b"ustar\x0000",
        )
    ).ljust(BLOCK, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def _octal(value: int, digits: int) -> bytes:
    """What does not fit is in the pax records; here it is 0."""
    return b"%0*o\0" % (digits, value if 0 <= value < 8**digits else 0)


class Reader:
    """Takes bytes as they come; gives members, then their content in pieces. TarError for what is no such tar."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._left = 0
        self._skip = 0
        self._pax: dict[bytes, bytes] = {}
        self._pax_left: int | None = None
        self._pax_kind = _PAX
        self._zeros = 0
        self.ended = False

    def feed(self, data: bytes) -> Iterator[Member | bytes]:
        """What is complete with these bytes. After the end everything is passed over."""
        if self.ended:
            return
        self._held += data
        while not self.ended and len(self._held) >= self._needed():
            found = self._take()
            if found is not None:
                yield found

    def _needed(self) -> int:
        """Bytes without which nothing can be said."""
        if self._left or self._skip:
            return 1
        return BLOCK if self._pax_left is None else self._pax_left

    def _take(self) -> Member | bytes | None:
        if self._left:
            piece = self._cut(self._left)
            self._left -= len(piece)
            return piece
        if self._skip:
            self._skip -= len(self._cut(self._skip))
            return None
        if self._pax_left is not None:
            self._take_pax(self._cut(self._pax_left))
            return None
        return self._take_block(self._cut(BLOCK))

    def _cut(self, most: int) -> bytes:
        piece = bytes(self._held[:most])
        del self._held[: len(piece)]
        return piece

    def finish(self) -> None:
        """No more comes. TarError when it was cut."""
        if not self.ended:
            raise TarError("it was cut short")

    def _take_block(self, block: bytes) -> Member | None:
        if not any(block):
            self._zeros += 1
            self.ended = self._zeros == 2
            return None
        if self._zeros:
            raise TarError("a single empty block is in it")
        member = _parsed(block)
        if member.kind in (_PAX, _PAX_GLOBAL):
            if member.size > _PAX_LIMIT_BYTES:
                raise TarError(f"a header has {member.size} bytes")
            self._pax_left, self._pax_kind = member.size, member.kind
            return None
        member, self._pax = _with_records(member, self._pax), {}
        self._left = member.size
        self._skip = -member.size % BLOCK
        return member

    def _take_pax(self, body: bytes) -> None:
        self._pax_left = None
        self._skip = -len(body) % BLOCK
        if self._pax_kind == _PAX:
            self._pax = _read_records(body)


def _read_records(body: bytes) -> dict[bytes, bytes]:
    found = {}
    while body:
        number, _, _ = body.partition(b" ")
        length = int(number) if number.isdigit() and len(number) < 7 else 0
        whole = 0 < length <= len(body)
        record, body = body[:length], body[length:]
        key, equals, value = record[len(number) + 1 :].partition(b"=")
        if not whole or not equals or not value.endswith(b"\n"):
            raise TarError("a header can't be read")
        found[key] = value[:-1]
    return found


def _with_records(member: Member, records: dict[bytes, bytes]) -> Member:
    changed = member._replace(
        name=records.get(b"path", member.name), link=records.get(b"linkpath", member.link)
    )
    numbers = {
        key.decode(): _decimal(records[key])
        for key in (b"size", b"uid", b"gid", b"mtime")
        if key in records
    }
    changed = changed._replace(**numbers)  # type: ignore[arg-type]  # of numbers only
    if changed.kind != FILE:
        changed = changed._replace(size=0)
    if not 0 <= changed.size < _SIZE_LIMIT_BYTES:
        raise TarError(f"a file has {changed.size} bytes")
    return changed


def _decimal(text: bytes) -> int:
    whole = text.partition(b".")[0]
    if not whole.removeprefix(b"-").isdigit() or len(whole) > 20:
        raise TarError("a number in a header can't be read")
    return int(whole)


def _parsed(block: bytes) -> Member:
    if _number(block[148:156]) != sum(block[:148]) + 8 * 32 + sum(block[156:]):
        raise TarError("a checksum is wrong")
    name = block[:_NAME_BYTES].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:262] == b"ustar" else b""
    kind = block[156:157].decode("ascii", "replace")
    size = _number(block[124:136])
    return Member(
        name=prefix + b"/" + name if prefix else name,
        kind=FILE if kind in ("\0", "7") else kind,
        mode=_number(block[100:108]) & 0o7777,
        uid=_number(block[108:116]),
        gid=_number(block[116:124]),
        size=size if kind in ("0", "\0", "7", _PAX, _PAX_GLOBAL) else 0,
        mtime=_number(block[136:148]),
        link=block[157:257].partition(b"\0")[0],
    )


def _number(field: bytes) -> int:
    text = field.strip(b"\0 ")
    if text and not all(48 <= digit < 56 for digit in text):
        raise TarError("a number in a header can't be read")
    return int(text, 8) if text else 0
