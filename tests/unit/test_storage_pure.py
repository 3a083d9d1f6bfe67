"""What storage decides without a kernel."""

import errno
import hashlib
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veagent.storage.devices import Mounted, parse_mountinfo
from veagent.storage.failure import doing
from veagent.storage.fullness import Thresholds, refusal
from veagent.storage.images import image_folder
from veagent.storage.pool import PoolSettings
from veagent.storage.quotas import group_of
from veagent.storage.rootfs import escapes
from veagent.storage.roots import check_uid
from veagent.storage.space import Chunks, Space, metadata_free
from veagent.storage.unpack import describe, is_tar, printable, sniff
from veapi.errors import InvalidInput, RemoteFailed
from veapi.units import format_size

MIB, GIB = 1 << 20, 1 << 30

POOL = "36 28 0:31 / /srv/my\\040pool rw,noatime shared:1 - btrfs /dev/loop7 rw,space_cache=v2"


def test_mountinfo_gives_kind_and_source_of_the_topmost_mount():
    lines = [POOL, "37 36 0:40 / /srv/my\\040pool rw - tmpfs none rw"]
    assert parse_mountinfo(lines[:1], Path("/srv/my pool")) == Mounted("btrfs", "/dev/loop7")
    assert parse_mountinfo(lines, Path("/srv/my pool")) == Mounted("tmpfs", "none")
    assert parse_mountinfo(lines, Path("/srv")) is None
    assert parse_mountinfo(["", "garbage"], Path("/srv")) is None


@pytest.mark.parametrize("options", [{"mount": None}, {"size_bytes": 1 << 20}])
def test_a_pool_that_can_not_be_is_refused_by_field(options):
    fields = {"kind": "loop", "path": Path("/p"), "size_bytes": 1 << 30, "mount": Path("/m")}
    with pytest.raises(InvalidInput, match=r"pool\.(mount|size)"):
        PoolSettings(**{**fields, **options})


def test_the_record_of_a_pool_lies_outside_of_it():
    pool = PoolSettings(kind="loop", path=Path("/p"), size_bytes=1 << 30, mount=Path("/v/pool"))
    assert pool.record_path == Path("/v/pool.pool.json")


def test_heads_are_told_apart():
    tar = tarfile.TarInfo("x").tobuf()
    assert sniff(tar) == "tar"
    assert sniff(b"\x1f\x8b\x08" + bytes(600)) == "gz"
    assert sniff(b"\xfd7zXZ\0" + bytes(600)) == "xz"
    assert sniff(b"\x28\xb5\x2f\xfd" + bytes(600)) == "zst"
    with pytest.raises(InvalidInput, match="a zip file"):
        sniff(b"PK\x03\x04" + bytes(600))


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_of_tar_is_known(dialect):
    assert is_tar(tarfile.TarInfo("name").tobuf(dialect))


@given(st.binary(max_size=2048))
def test_no_head_breaks_the_recognition(head):
    assert describe(head)
    assert is_tar(head) in (True, False)


@given(st.binary(max_size=600).map(lambda raw: raw.decode(errors="replace")))
def test_what_programs_say_is_safe_to_show(words):
    shown = printable(words)
    assert shown.isprintable() or not shown
    assert len(shown) <= 500


@pytest.mark.parametrize(
    ("target", "out"),
    [
        ("usr/bin", False),
        ("/usr/bin", False),
        ("a/../b", False),
        ("", False),
        ("..", True),
        ("../x", True),
        ("a/../../x", True),
        ("/../x", True),
    ],
)
def test_links_that_climb_out_are_seen(target, out):
    assert escapes(target) is out


def test_uids_and_digests_become_paths_only_in_their_one_form():
    uid = "7e57aaaa-0000-4000-8000-000000000001"
    assert check_uid(uid) == uid
    digest = hashlib.sha256(b"").hexdigest()
    assert image_folder(Path("/i"), f"sha256:{digest}") == Path(f"/i/{digest}")
    for bad in ("", "sha256:..", f"sha256:{digest}\n", f"sha512:{digest}", digest.upper()):
        with pytest.raises(InvalidInput):
            image_folder(Path("/i"), bad)


def test_what_the_kernel_says_becomes_an_error_with_a_hint():
    with pytest.raises(RemoteFailed, match="making X: No space left") as failed, doing("making X"):
        raise OSError(errno.ENOSPC, "whatever")
    assert "full" in failed.value.hint


def space_of(size, free, metadata):
    return Space(size_bytes=size, free_bytes=free, metadata_free_bytes=metadata)


@pytest.mark.parametrize(
    ("size", "least"),
    [(GIB // 2, GIB // 20), (4 * GIB, GIB // 4), (10 * GIB, GIB // 4), (100 * GIB, 2 * GIB)],
)
def test_a_pool_refuses_below_2_percent_or_256_mib_but_never_above_a_tenth(size, least):
    assert refusal(space_of(size, least, GIB), Thresholds()) == ""
    words = refusal(space_of(size, least - 2 * MIB, GIB), Thresholds())
    assert words.startswith("the pool is nearly full: ")
    assert f"of {format_size(size)} are free" in words


def test_full_metadata_refuse_though_data_have_room():
    assert "metadata" in refusal(space_of(10 * GIB, 5 * GIB, 15 * MIB), Thresholds())
    assert refusal(space_of(10 * GIB, 5 * GIB, 16 * MIB), Thresholds()) == ""
    assert refusal(space_of(10 * GIB, 0, 0), Thresholds(0, 0)) == ""


def test_the_room_of_metadata_is_what_its_chunks_have_and_what_nobody_has_yet():
    data, metadata, reserve = 1, 4, 1 << 49
    chunks = [
        Chunks(data, 400, 300, 1),
        Chunks(metadata, 100, 30, 2),
        Chunks(reserve, 5, 0, 1),
    ]
    assert metadata_free(1000, chunks) == 100 - 30 - 5 + (1000 - 400 - 200) // 2
    assert metadata_free(500, chunks) == 65
    assert metadata_free(500, [Chunks(metadata, 8, 8, 1), Chunks(reserve, 5, 0, 1)]) == 492 - 5


def test_a_group_is_known_by_the_uid_alone_and_never_a_subvolume_s():
    uids = [f"7e57aaaa-0000-4000-8000-{number:012x}" for number in range(2000)]
    groups = {group_of(uid) for uid in uids}
    assert len(groups) == len(uids)
    assert group_of(uids[0]) == group_of(uids[0])
    assert all(group >> 48 == 1 and group & (1 << 47) for group in groups)
