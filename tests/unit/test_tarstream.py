import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veapi.tarstream import (
    END,
    FILE,
    FOLDER,
    HARD_LINK,
    SYMLINK,
    Member,
    Reader,
    TarError,
    header,
    padding,
)

NAMES = st.binary(min_size=1, max_size=300).map(lambda name: name.replace(b"\0", b"0"))
MEMBERS = st.builds(
    Member,
    name=NAMES,
    kind=st.sampled_from([FILE, FOLDER, SYMLINK, HARD_LINK]),
    size=st.just(0),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime=st.integers(0, 2**40),
    link=st.one_of(st.just(b""), NAMES),
)


def packed(members: list[tuple[Member, bytes]]) -> bytes:
    return b"".join(header(m) + data + padding(len(data)) for m, data in members) + END


def read(data: bytes, *, step: int = 1 << 16) -> list[tuple[Member, bytes]]:
    reader, found = Reader(), []
    for at in range(0, len(data), step):
        for item in reader.feed(data[at : at + step]):
            if isinstance(item, Member):
                found.append((item, b""))
            else:
                found[-1] = (found[-1][0], found[-1][1] + item)
    reader.finish()
    return found


@given(st.lists(st.tuples(MEMBERS, st.binary(max_size=1500)), max_size=5), st.integers(1, 3000))
def test_what_is_written_is_read_again_however_it_is_cut(members, step: int) -> None:
    wanted = [
        (m._replace(size=len(data)), data) if m.kind == FILE else (m, b"") for m, data in members
    ]
    assert read(packed(wanted), step=step) == wanted


def test_others_read_what_we_write() -> None:
    long = b"d/" * 80 + b"name"
    members = [
        (Member(long, size=3, uid=3_000_000, mtime=9, mode=0o4755), b"abc"),
        (Member("\N{SNOWMAN}".encode(), SYMLINK, link=long), b""),
    ]
    with tarfile.open(fileobj=io.BytesIO(packed(members))) as tar:
        first, second = tar.getmembers()
        content = tar.extractfile(first)
        assert content is not None
        assert content.read() == b"abc"
    assert (first.name, first.uid, first.mode) == (long.decode(), 3_000_000, 0o4755)
    assert (second.name, second.linkname) == ("\N{SNOWMAN}", long.decode())


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_we_read_what_others_write(form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        info = tarfile.TarInfo("f" * 90)
        info.size, info.uid, info.mtime = 5, 77, 123
        tar.addfile(info, io.BytesIO(b"hello"))
    ((member, data),) = read(out.getvalue())
    assert (member.name, member.uid, member.mtime, data) == (b"f" * 90, 77, 123, b"hello")


GOOD = packed([(Member(b"a", size=600), b"x" * 600)])


@given(st.integers(0, len(GOOD) - 513))
def test_a_cut_one_is_told(size: int) -> None:
    reader = Reader()
    list(reader.feed(GOOD[:size]))
    with pytest.raises(TarError, match="cut short"):
        reader.finish()


@given(st.binary(max_size=2048))
def test_rubbish_is_an_error_of_ours_or_unfinished(data: bytes) -> None:
    reader = Reader()
    try:
        list(reader.feed(data))
        reader.finish()
    except TarError:
        return
    assert not any(data[:1024])


def pax(*records: bytes) -> bytes:
    body = b"".join(records)
    return header(Member(b"p", "x", size=len(body))) + body + padding(len(body))


@pytest.mark.parametrize(
    "head",
    [
        pax(b"99 path=a\n"),
        pax(b"x path=a\n"),
        pax(b"10 size=-5\n"),
        pax(b"14 size=apple\n"),
        pax(b"28 size=9999999999999999999\n"),
        pax(b"9 uid=a\n"),
        header(Member(b"p", "x", size=70_000)),
        b"\0" * 512 + GOOD,
    ],
)
def test_headers_that_lie_are_refused(head: bytes) -> None:
    with pytest.raises(TarError):
        read(head + GOOD)
