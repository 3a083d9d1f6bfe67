"""Files that vectl writes whole or not at all."""

from pathlib import Path

import pytest

from veapi.v1.simulate_pb2 import SavedView
from vectl import messagefile
from vectl.wholefile import whole


def test_a_file_that_breaks_off_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "view.json"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole(file) as out:
        out.write(b"half")
        raise KeyboardInterrupt
    assert [each.name for each in tmp_path.iterdir()] == ["view.json"]
    assert file.read_text() == "old"


def test_a_message_is_for_its_owner_alone_whatever_was_there_before(tmp_path: Path) -> None:
    file = tmp_path / "view.json"
    for each in (file, tmp_path / ".view.json.new"):
        each.write_text("old")
        each.chmod(0o644)
    messagefile.write(SavedView(version=1), str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert messagefile.read(str(file), SavedView(), what="view", hint="").version == 1
