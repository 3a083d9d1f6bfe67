import pytest
from hypothesis import given
from hypothesis import strategies as st

from veapi.errors import InvalidInput
from veapi.tarstream import END, Member, header, padding
from vectl.archive import PART_BYTES, Archive, Writer

MANIFEST = {"name": "web", "spec": {"image": "debian"}}


def made(root: bytes, manifest=MANIFEST) -> bytes:
    writer = Writer(at=7)
    found = writer.begin(manifest)
    for at in range(0, len(root), 100_000):
        found += b"".join(writer.root(root[at : at + 100_000]))
    return found + writer.end()


async def read(data: bytes, *, step: int = 70_000) -> tuple[dict[str, object], bytes]:
    async def pieces():
        for at in range(0, len(data), step):
            yield data[at : at + step]

    archive = Archive(pieces())
    manifest = await archive.manifest()
    return manifest, b"".join([piece async for piece in archive.root()])


@pytest.mark.parametrize("size", [1, 1000, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
async def test_what_is_written_is_read_again(size: int) -> None:
    root = bytes(range(256)) * (size // 256 + 1)
    manifest, found = await read(made(root[:size]))
    assert manifest == {"format": 1, **MANIFEST}
    assert found == root[:size]


WHOLE = made(b"root" * 500)


@given(st.integers(0, len(WHOLE) - 513))
async def test_every_cut_is_refused(size: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        await read(WHOLE[:size])
    assert refused.value.hint


CONTENT = [at for at in range(len(WHOLE) - 1024) if WHOLE[at]]


@given(st.sampled_from(CONTENT), st.integers(1, 255))
async def test_no_change_of_content_passes(at: int, flip: int) -> None:
    """What is told is what was written, or nothing is."""
    changed = WHOLE[:at] + bytes([WHOLE[at] ^ flip]) + WHOLE[at + 1 :]
    try:
        found = await read(changed)
    except InvalidInput:
        return
    assert found == await read(WHOLE)


async def test_nothing_of_a_changed_file_comes_but_whole_parts_before_its_last() -> None:
    """So whoever sends the pieces on has never sent all of it."""
    data = made(b"r" * (2 * PART_BYTES + 5))
    at = data.index(b"root.tar.zst.00000003") + 512
    changed = data[:at] + b"R" + data[at + 1 :]
    given_bytes = 0

    async def pieces():
        yield changed

    archive = Archive(pieces())
    await archive.manifest()
    with pytest.raises(InvalidInput):
        async for piece in archive.root():
            given_bytes += len(piece)
    assert given_bytes == 2 * PART_BYTES


def parts(*members: tuple[bytes, bytes]) -> bytes:
    heads = [(Member(name, size=len(data)), data) for name, data in members]
    return b"".join(header(m) + data + padding(len(data)) for m, data in heads) + END


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut short"),
        (b"hello" * 300, "checksum|number"),
        (END, "does not begin"),
        (parts((b"other", b"x")), "does not begin"),
        (parts((b"verack-ve.json", b"{")), "can't be read"),
        (parts((b"verack-ve.json", b"[]")), "does not say"),
        (parts((b"verack-ve.json", b'{"format": "1"}')), "does not say"),
        (parts((b"verack-ve.json", b'{"format": true}')), "does not say"),
        (parts((b"verack-ve.json", b'{"format": 2}')), "knows up to 1"),
        (parts((b"verack-ve.json", b'{"format": 1}')), "cut short"),
        (parts((b"verack-ve.json", b'{"format": 1}'), (b"../x", b"y")), "something else"),
        (parts((b"verack-ve.json", b'{"format": 1}'), (b"root.tar.zst.00000002", b"y")), "part 1"),
        (parts((b"verack-ve.json", b'{"format": 1}'), (b"sha256", b"0" * 64)), "checksum"),
    ],
)
async def test_what_is_no_such_file_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        await read(data)
    assert refused.value.hint
