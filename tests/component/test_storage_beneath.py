"""Files of a root are reached through no link that leads out of it."""

import pytest

from veagent.storage import beneath


def test_a_file_is_written_in_the_root_and_through_no_symlink(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    with beneath.opened_root(root) as fd:
        beneath.write_file(fd, "etc", "hostname", b"web\n")
        assert (root / "etc/hostname").read_bytes() == b"web\n"
        (root / "etc/hostname").unlink()
        (root / "etc/hostname").symlink_to(outside / "x")
        beneath.write_file(fd, "etc", "hostname", b"web\n")
        (root / "out").symlink_to(outside)
        with pytest.raises(OSError, match="symbolic link"):
            beneath.write_file(fd, "out", "hostname", b"no\n")
    assert list(outside.iterdir()) == []
    assert (root / "etc/hostname").read_bytes() == b"web\n"


def test_a_look_follows_links_only_inside_the_root(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/busybox").write_text("x")
    (tmp_path / "init").symlink_to("/bin/busybox")
    (tmp_path / "passwd").symlink_to("/etc/passwd")
    with beneath.opened_root(tmp_path) as fd:
        assert beneath.look(fd, "init") is not None
        assert beneath.look(fd, "passwd") is None
        assert beneath.look(fd, "../../../../etc/passwd") is None
