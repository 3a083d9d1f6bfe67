"""Hostile tars, and a hostile neighbour, against a folder of a person."""

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from veapi.tarstream import Member, Reader
from veapi.totar import NotPacked, ToTar
from veapi.untar import Refused, Rules, Untar, leads_out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    (tmp_path / "secret").write_text("secret")
    return made


def untar(folder: Path, *found: Member | bytes, rules: Rules = Rules(), first=None) -> Untar:  # noqa: B008
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    made = Untar(fd, rules, first=first)
    try:
        for item in found:
            made.take(item)
        made.finish()
    finally:
        made.close()
        os.close(fd)
    return made


def link(name: bytes, to: bytes) -> Member:
    return Member(name, "2", link=to)


HOSTILE = [
    [Member(b"../secret", size=1), b"x"],
    [Member(b"/tmp/x", size=1), b"x"],
    [Member(b"a/../../secret", size=1), b"x"],
    [Member(b"a\0b", size=1), b"x"],
    [Member(b"", size=1), b"x"],
    [Member(b".", "5")],
    [Member(b"..", "5")],
    [Member(b"a", "1", link=b"../secret")],
    [Member(b"a", "1", link=b"mine")],
    [link(b"a", b".."), Member(b"a/secret", size=1), b"x"],
    [link(b"a", b"/"), Member(b"a/tmp/x", size=1), b"x"],
    [link(b"a", b"../secret"), Member(b"b", "1", link=b"a"), Member(b"b", size=1), b"x"],
]


@pytest.mark.parametrize("links_out", [False, True])
@pytest.mark.parametrize("found", HOSTILE)
def test_nothing_is_written_outside(folder: Path, found, links_out) -> None:
    (folder / "mine").write_text("mine")
    with suppress(Refused, OSError):
        untar(folder, *found, rules=Rules(links_out=links_out))
    assert (folder.parent / "secret").read_text() == "secret"
    assert sorted(entry.name for entry in folder.parent.iterdir()) == ["in", "secret"]
    assert (folder / "mine").stat().st_nlink == 1
    assert not [entry for entry in folder.rglob("*") if entry.name.endswith(".part")]


def test_a_link_of_the_persons_own_is_not_followed(folder: Path) -> None:
    (folder / "a").symlink_to("..")
    with pytest.raises(OSError, match=r"Not a directory|symbolic link"):
        untar(folder, Member(b"a", "5"), Member(b"a/secret", size=1), b"x")
    assert (folder.parent / "secret").read_text() == "secret"


def test_a_file_replaces_a_link_and_not_what_it_leads_to(folder: Path) -> None:
    (folder / "a").symlink_to("../secret")
    untar(folder, Member(b"a", size=1), b"x")
    assert (folder / "a").read_text() == "x"
    assert (folder.parent / "secret").read_text() == "secret"


@pytest.mark.parametrize("kind", ["3", "4", "6", "7", "S", "L", "K", "g"])
def test_devices_and_unknown_kinds_are_left_out(folder: Path, kind: str) -> None:
    made = untar(folder, Member(b"dev", kind), Member(b"ok", size=1), b"x")
    assert [entry.name for entry in folder.iterdir()] == ["ok"]
    assert len(made.notes) == 1


@pytest.mark.parametrize(("special", "mode"), [(False, 0o755), (True, 0o4755)])
def test_set_id_bits_only_come_when_asked_for(folder: Path, special, mode: int) -> None:
    untar(folder, Member(b"a", mode=0o4755, size=1), b"x", rules=Rules(special_bits=special))
    assert stat.S_IMODE((folder / "a").stat().st_mode) == mode


@pytest.mark.parametrize(
    ("at", "target", "out"),
    [
        (b"a", b"b", False),
        (b"a", b"/b", True),
        (b"a", b"..", True),
        (b"d/a", b"../b", False),
        (b"d/a", b"../../b", True),
        (b"a", b"x/../../b", True),
        (b"a", b"x/../b", False),
        (b"d/a", b"./..//../b", True),
    ],
)
def test_links_that_lead_out_are_known_by_their_words(at: bytes, target: bytes, out) -> None:
    assert leads_out(tuple(at.split(b"/")), target) is out


def test_a_folder_that_others_swap_for_a_link_meanwhile_leads_nowhere(folder: Path) -> None:
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for act in (
                lambda: (folder / "d").rename(folder.parent / "away"),
                lambda: (folder / "d").symlink_to(folder.parent),
                (folder / "d").unlink,
                lambda: (folder.parent / "away").rename(folder / "d"),
            ):
                try:
                    act()
                except OSError:
                    continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(300):
            try:
                untar(folder, Member(b"d", "5", 0o755), Member(b"d/secret", size=1), b"x")
            except OSError:
                continue
    finally:
        stop.set()
        thread.join()
    assert (folder.parent / "secret").read_text() == "secret"


def test_a_tree_goes_through_and_is_the_same(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "d").mkdir(parents=True)
    (source / "d/f").write_bytes(b"x" * 700_000)
    os.link(source / "d/f", source / "g")
    (source / "l").symlink_to("d/f")
    os.mkfifo(source / "pipe")
    tar, reader = ToTar(recursive=True), Reader()
    made: list[Member | bytes] = []
    for piece in (*tar.pack(os.fsencode(source)), tar.end()):
        made += reader.feed(piece)
    reader.finish()
    done = untar(folder, *made, first=b"copy")
    copy = folder / "copy"
    assert (copy / "d/f").read_bytes() == b"x" * 700_000
    assert (copy / "g").stat().st_ino == (copy / "d/f").stat().st_ino
    assert str((copy / "l").readlink()) == "d/f"
    assert tar.notes == ["tree/pipe: left out, it is a device, pipe or socket"]
    assert (done.files, done.bytes) == (tar.files, tar.bytes) == (5, 700_000)


def test_a_folder_needs_to_be_asked_for(folder: Path) -> None:
    with pytest.raises(NotPacked, match="-r"):
        list(ToTar(recursive=False).pack(os.fsencode(folder)))


def test_what_is_not_complete_leaves_nothing(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    made = Untar(fd, Rules())
    made.take(Member(b"a", size=10))
    made.take(b"12345")
    made.close()
    os.close(fd)
    assert list(folder.iterdir()) == []
