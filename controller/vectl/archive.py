"""A VE in a file: a tar of small parts that can be written and read as a stream, and told whole from cut or changed.

    verack-ve.json          what it is: format, the VE's name, labels and spec
    root.tar.zst.00000001   its root, a tar packed by zstd, in parts of at most 1 MiB
    root.tar.zst.00000002   …
    sha256                  of all before: of each member its name, a NUL, its size, a line end, its content

So `tar x` and `cat root.tar.zst.* | zstd -d | tar x` take one apart without us. The order of members is fixed, and
nothing else may be in it. A reader that comes to the end without its sum, or with another one, has nothing.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping

from veapi import tarstream
from veapi.errors import InvalidInput
from veapi.tarstream import Member, Reader, TarError

FORMAT = 1
MANIFEST, ROOT, SUM = b"verack-ve.json", b"root.tar.zst.%08d", b"sha256"
PART_BYTES = 1 << 20
_MANIFEST_LIMIT_BYTES = 1 << 20
_SUM_BYTES = 64
_MADE = "it is no file of `vectl export`, or it was changed or cut; get it again"


class _Sum:
    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def begin(self, name: bytes, size: int) -> None:
        self._hash.update(b"%s\0%d\n" % (name, size))

    def add(self, data: bytes) -> None:
        self._hash.update(data)

    @property
    def hex(self) -> str:
        return self._hash.hexdigest()


class Writer:
    """Parts of the file, in order: `begin`, `root` as often as there is something, `end`."""

    def __init__(self, *, at: int) -> None:
        self._at = at
        self._sum = _Sum()
        self._held = bytearray()
        self._parts = 0

    def begin(self, manifest: Mapping[str, object]) -> bytes:
        data = json.dumps({"format": FORMAT, **manifest}, indent=1).encode() + b"\n"
        return self._member(MANIFEST, data)

    def root(self, data: bytes) -> Iterator[bytes]:
        self._held += data
        while len(self._held) >= PART_BYTES:
            yield self._part(PART_BYTES)

    def end(self) -> bytes:
        last = self._part(len(self._held)) if self._held else b""
        total = self._sum.hex.encode()
        return last + self._member(SUM, total) + tarstream.END

    def _part(self, size: int) -> bytes:
        data = bytes(self._held[:size])
        del self._held[:size]
        self._parts += 1
        return self._member(ROOT % self._parts, data)

    def _member(self, name: bytes, data: bytes) -> bytes:
        self._sum.begin(name, len(data))
        self._sum.add(data)
        member = Member(name, size=len(data), mtime=self._at)
        return tarstream.header(member) + data + tarstream.padding(len(data))


class Archive:
    """Reads such a file. `manifest` first, then `root`; InvalidInput for all that is not exactly one, at the latest at its end."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._reader = Reader()
        self._sum = _Sum()
        self._found: list[Member | bytes] = []
        self.read_bytes = 0

    async def manifest(self) -> dict[str, object]:
        """Of a newer format: InvalidInput says which."""
        member = await self._member()
        if member is None or member.name != MANIFEST or member.size > _MANIFEST_LIMIT_BYTES:
            raise _refused("it does not begin as one")
        try:
            found = json.loads(await self._all(member))
        except ValueError:
            raise _refused("what it says of itself can't be read") from None
        if not isinstance(found, dict) or type(found.get("format")) is not int:
            raise _refused("it does not say its format")
        if found["format"] > FORMAT:
            raise InvalidInput(
                f"the file has format {found['format']}; this vectl knows up to {FORMAT}",
                hint="update vectl, or export it with an older one",
            )
        return found

    async def root(self) -> AsyncIterator[bytes]:
        """The packed root. The last piece is only given after the sum was right."""
        number, held = 0, b""
        while True:
            member = await self._member()
            if member is None:
                raise _refused("it was cut short")
            if member.name == SUM:
                await self._check(member)
                break
            number += 1
            if member.name != ROOT % number or not 0 < member.size <= PART_BYTES:
                raise _refused(f"there is something else in it than part {number} of the root")
            self._sum.begin(member.name, member.size)
            data = await self._content(member)
            if held:
                yield held
            held = data
        if not held:
            raise _refused("there is no root in it")
        yield held

    async def _check(self, member: Member) -> None:
        wanted = self._sum.hex
        if member.size != _SUM_BYTES or (await self._plain(member)) != wanted.encode():
            raise _refused("its checksum is wrong")
        if await self._member() is not None:
            raise _refused("there is more in it after its checksum")

    async def _all(self, member: Member) -> bytes:
        self._sum.begin(member.name, member.size)
        return await self._content(member)

    async def _content(self, member: Member) -> bytes:
        data = await self._plain(member)
        self._sum.add(data)
        return data

    async def _plain(self, member: Member) -> bytes:
        data = b""
        while len(data) < member.size:
            found = await self._next()
            if not isinstance(found, bytes):
                raise _refused("it was cut short")
            data += found
        return data

    async def _member(self) -> Member | None:
        """None at the end of the tar; InvalidInput at the end of what came, when that is earlier."""
        found = await self._next()
        if isinstance(found, bytes) or (found is not None and found.kind != tarstream.FILE):
            raise _refused("there is something else in it than its parts")
        return found

    async def _next(self) -> Member | bytes | None:
        while not self._found:
            if self._reader.ended:
                return None
            piece = await anext(self._pieces, None)
            if piece is None:
                raise _refused("it was cut short")
            self.read_bytes += len(piece)
            try:
                self._found.extend(self._reader.feed(piece))
            except TarError as error:
                raise _refused(str(error)) from None
        return self._found.pop(0)


def _refused(why: str) -> InvalidInput:
    return InvalidInput(f"the file is refused: {why}", hint=_MADE)
